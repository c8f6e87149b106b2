"""`tactus compare A B`: the first stage in which two traces differ, and what explains it."""

from __future__ import annotations

import sys
from pathlib import Path

from tactus.hal.spec import SpecError
from tactus.policies.tracing.trace_file import Trace, TraceError
from tactus.runtime.commands.config import Compare
from tactus.runtime.diagnosis.comparison import compare
from tactus.runtime.diagnosis.comparison_report import text_lines, write_html, write_json
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.policy_node.inference import make

EQUAL, DIFFERENT, UNUSABLE = 0, 1, 2
REPORT = ("jinja2", "scipy", "safetensors")


def main(config: Compare, arguments: list[str]) -> int:
    """Exit status 0: equal within tolerance; 1: a difference; 2: nothing that can be compared.

    With --policy.* the policy is run again on A's observations, with what differs in B, stage by stage.
    """
    try:
        a, b = Trace.load(config.a), Trace.load(config.b)
        again = Trace.load(config.again) if config.again is not None else None
        found = compare(a, b, again, config.tolerance)
        if found.first is not None and config.policy is not None:
            from tactus.runtime.diagnosis.stage_swap import swap_stages, worth_swapping

            found.swaps = swap_stages(a, b, make(config.policy), worth_swapping(found), config.seed)
        if config.json is not None:
            write_json(found, Path(config.json))
        if config.html is not None:
            write_html(found, Path(config.html))
    except (TraceError, ResultsError, SpecError) as error:
        print(f"tactus compare: {error}", file=sys.stderr)
        return UNUSABLE
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in REPORT:
            raise
        print(
            f"tactus compare: needs {error.name}, which is not installed: pip install 'tactus[report]'", file=sys.stderr
        )
        return UNUSABLE
    print("\n".join(text_lines(found)))
    return EQUAL if found.first is None else DIFFERENT
