"""`tactus distill`: a student of few denoising steps from a flow policy of many, and whether it is as good."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tactus.hal.spec import SpecError
from tactus.runtime.commands.config import Distill
from tactus.runtime.commands.report_writer import DISTILLATION_REPORT, load_writer
from tactus.runtime.commands.verification import (
    INTERRUPTED,
    PASSED,
    at,
    bars,
    check_kind,
    check_robot,
    check_trials,
    observations_of,
    tell,
    told,
    trials_of,
)
from tactus.runtime.evaluation.results import ResultsError, make_folder
from tactus.runtime.policy_node.inference import make


def main(config: Distill, arguments: list[str]) -> int:
    """Exit status 0 if the student passes its verification, 1 if it does not, 2 if nothing can be distilled."""
    return told("distill", lambda: _distill(config, arguments))


def _distill(config: Distill, arguments: list[str]) -> int:
    load_writer(DISTILLATION_REPORT)
    check_robot(config, arguments)
    folder = Path(config.output_dir or f"outputs/distill_{time.strftime('%Y%m%d_%H%M%S')}")
    first = os.environ.get("RANK", "0") == "0"  # of those that torchrun has started
    if first and folder.exists() and any(folder.iterdir()) and not config.resume:
        raise ResultsError(f"output_dir: {folder} is not empty; --resume goes on with it, or give another folder")
    teacher_config = config.policy
    check_kind(teacher_config)
    teacher = make(teacher_config)

    from accelerate import PartialState

    from tactus.runtime.distillation.student import distill, read_kept
    from tactus.runtime.distillation.verification import check_shapes, verify

    check_shapes(teacher, teacher)
    assert teacher.flow is not None
    wanted, has = config.training.num_steps, teacher.flow.num_steps
    if wanted >= has:
        raise SpecError(f"num_steps: found {wanted}; the teacher takes {has}, and a student is to take fewer")
    check_trials(config, teacher)
    try:
        make_folder(folder)
        with bars() as bar:
            processes = PartialState(cpu=next(teacher.flow.network.parameters()).device.type == "cpu")
            with processes.main_process_first():
                found = observations_of(config, teacher, bar, folder / "observations.npz")
            print(f"teacher: {teacher.spec.name}, {teacher.flow.num_steps} steps")
            print(f"observations: {found.source}; {len(found.training)} to learn from, {len(found.held_out)} held out")
            place = distill(teacher, lambda: make(teacher_config), found, config.training, folder, bar)
            if not processes.is_main_process:
                return PASSED
            student, kept = make(at(teacher_config, place)), read_kept(place)
            trials = trials_of(config, teacher, student, bar)
            done = verify(teacher, student, found.held_out, found.source, kept, trials, config.training.seed, bar)
    except KeyboardInterrupt:
        print(f"tactus distill: interrupted; --output_dir={folder} --resume goes on from what is saved", flush=True)
        return INTERRUPTED
    print(f"student: {place}")
    return tell(done, folder)
