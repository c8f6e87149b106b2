"""Faults put into a pipeline, in several draws each: is the stage named, and is the first cause told the right one?

    python tests/bench/hypotheses.py [--draws=5] [--only=WORDS]

Prints a table as docs/diagnosis.md has it, and what was told in place of the right cause. Then traces of the same with
float noise of 1e-7: how often a difference is told where none is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from array_faults import CASES, Case, pipeline

from tactus.runtime.diagnosis.comparison import compare


def verdict(case: Case, seed: int) -> tuple[bool, bool, str]:
    """Whether the stage and the cause are right, and what was said."""
    found = compare(pipeline(seed), case.trace(seed))
    first = found.findings[0] if found.findings else None
    said = f"{first.name}: {first.sentence}" if first else "nothing"
    cause = first is not None and first.name.startswith(case.called) and case.says in first.sentence
    return found.first is not None and found.first.name == case.stage, cause, said


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    chosen = [case for case in CASES if options.only in case.name]
    print("| fault | stage | named | cause | s |\n|---|---|---|---|---|")
    stages = causes = 0
    wrong: list[str] = []
    for case in chosen:
        began = time.perf_counter()
        seen = [verdict(case, seed) for seed in range(options.draws)]
        took = (time.perf_counter() - began) / options.draws
        named, right = sum(stage for stage, *_ in seen), sum(cause for _, cause, _ in seen)
        stages, causes = stages + named, causes + right
        print(
            f"| {case.name} | {case.stage} | {named} of {len(seen)} | {right} of {len(seen)} | {took:.1f} |", flush=True
        )
        told = Counter(said[:230] for _, cause, said in seen if not cause)
        wrong += [f"{case.name}: {count} × {said}" for said, count in told.items()]
    total = len(chosen) * options.draws
    print(f"\nstage {stages} of {total} ({stages / total:.1%}), cause {causes} of {total} ({causes / total:.1%})")
    print("\n".join(wrong))
    if not options.only:
        alarms = [seed for seed in range(50) if compare(pipeline(seed), pipeline(seed, jitter=1e-7)).first is not None]
        print(f"{len(alarms)} alarms in 50 pairs of the same with float noise of 1e-7")


if __name__ == "__main__":
    main()
