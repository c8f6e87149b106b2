"""`tactus distill verify TEACHER STUDENT`: is the student still the same policy, and if not, why not."""

from __future__ import annotations

import time
from pathlib import Path

from tactus.hal.config import decode
from tactus.policies.policy import PolicyConfig
from tactus.policies.scripted.config import ExpertConfig
from tactus.runtime.commands.config import DistillVerify
from tactus.runtime.commands.report_writer import DISTILLATION_REPORT, load_writer
from tactus.runtime.commands.verification import (
    at,
    bars,
    check_robot,
    observations_of,
    tell,
    told,
    trials_of,
)
from tactus.runtime.policy_node.inference import make


def main(config: DistillVerify, arguments: list[str]) -> int:
    """Exit status 0 if every check that could be made was passed, 1 if not, 2 if the two cannot be compared."""
    return told("distill-verify", lambda: _verify(config, arguments))


def _verify(config: DistillVerify, arguments: list[str]) -> int:
    from tactus.runtime.distillation.student import read_kept
    from tactus.runtime.distillation.verification import check_shapes, verify

    load_writer(DISTILLATION_REPORT)
    check_robot(config, arguments)
    folder = Path(config.output_dir or f"outputs/verify_{time.strftime('%Y%m%d_%H%M%S')}")
    given = not isinstance(config.policy, ExpertConfig)
    policy = config.policy if given else decode(PolicyConfig, {"path": config.teacher})
    teacher, student = make(at(policy, config.teacher)), make(at(policy, config.student))
    check_shapes(teacher, student)
    with bars() as bar:
        found = observations_of(config, teacher, bar)
        kept = read_kept(Path(config.student))
        trials = trials_of(config, teacher, student, bar)
        done = verify(teacher, student, found.held_out, found.source, kept, trials, config.verify_seed, bar)
    return tell(done, folder)
