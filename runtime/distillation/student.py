"""Trains a student into a folder, and keeps beside it what it was made of: distillation.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState

from tactus.hal.json_file import read_json
from tactus.hal.spec import SpecError
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.distillation.methods import Reflow
from tactus.policies.distillation.pairs import Pairs, cached, digest
from tactus.policies.distillation.trainer import Trained, train
from tactus.policies.policy import Policy
from tactus.runtime.distillation.observations import Observations
from tactus.runtime.evaluation.results import versions, write_whole

KEPT = "distillation.json"
STATE = "state.safetensors"
SETTINGS = sorted(DistillationConfig.__dataclass_fields__.keys() - {"save_every"})
"""What decides a student's bits, beside teacher and observations."""
Bar = Callable[[int], object]
Bars = Callable[[str, int], Bar]
"""Title and total -> what is told how many more are done."""


def read_kept(folder: Path) -> dict[str, Any] | None:
    """distillation.json of a student's folder; None for a student of another program."""
    file = folder / KEPT
    if not file.is_file():
        return None
    try:
        return read_json(file, dict)
    except ValueError as error:
        raise SpecError(f"student: {file} cannot be read: {error}") from error


def distill(
    teacher: Policy,
    make_student: Callable[[], Policy],
    found: Observations,
    config: DistillationConfig,
    folder: Path,
    bar: Bars,
    method: Reflow | None = None,
) -> Path:
    """FOLDER/student, trained unless it is there; pairs and state stand beside it, and are gone on from.

    make_student: a policy like the teacher, with weights of its own. method: in place of the config's. Under torchrun
    the first process makes and writes what all share. Raises SpecError if what is there is of other settings.
    """
    student_folder = folder / "student"
    settings = {key: getattr(config, key) for key in SETTINGS}
    about = {"teacher": teacher.spec.name, "observations": digest(found.training)[:16]}
    about |= {key: str(value) for key, value in settings.items()}
    assert teacher.flow is not None
    if teacher.flow.noise_scale != 1:
        about["noise_scale"] = str(teacher.flow.noise_scale)
    if (kept := read_kept(student_folder)) is not None:
        if kept["about"] != about:
            raise SpecError(f"resume: {student_folder} is a student of other settings; give another output_dir")
        return student_folder
    pairs: Pairs | None = None
    processes = PartialState(cpu=next(teacher.flow.network.parameters()).device.type == "cpu")
    if config.pairs is not None:
        made = bar("the teacher's chunks", config.pairs)
        with processes.main_process_first():
            pairs = cached(teacher.flow, found.training, config.pairs, config.seed, folder / "pairs", made)
    student = make_student().flow
    assert student is not None
    stepped, last = bar("training", config.steps), [0]

    def progress(step: int, loss: float) -> None:
        stepped(step + 1 - last[0])
        last[0] = step + 1

    trained = train(teacher.flow, student, found.training, pairs, config, folder / STATE, about, progress, method)
    if processes.is_main_process:
        student.save(student_folder, config.num_steps)
        write_whole(student_folder / KEPT, json.dumps(_kept(teacher, found, settings, about, trained)))
        (folder / STATE).unlink(missing_ok=True)
    processes.wait_for_everyone()
    return student_folder


def _kept(
    teacher: Policy, found: Observations, settings: dict[str, Any], about: dict[str, str], trained: Trained
) -> dict[str, Any]:
    return {
        "teacher": teacher.spec.name,
        "source": found.source,
        "settings": settings,
        "about": about,
        "facts": trained.facts,
        "versions": versions(),
        "losses": trained.losses.tolist(),
    }
