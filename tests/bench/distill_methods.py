"""Which way of distilling is the better one for one step: the methods side by side, on the flow policy of rtc_seams.py.

python tests/bench/distill_methods.py [--steps=1500]

The same observations, pairs, seed and number of optimiser steps for each; errors are against the teacher's ten steps on
observations and noises that none has seen. The teacher's own chunks in fewer steps are the control.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rtc_demos import HELD_OUT, TASKS
from rtc_policy import trained

from tactus.hal.libero import LiberoConfig
from tactus.hal.wrappers.checked import make
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.distillation.measures import Measures, measure
from tactus.policies.flow.config import FlowConfig
from tactus.runtime.distillation.observations import from_rollouts
from tactus.runtime.distillation.student import distill

WAYS = [(method, optimizer) for method in ("reflow", "consistency") for optimizer in ("muon", "adamw")]


def told(name: str, found: Measures, spent_s: float) -> None:
    errors = "  ".join(f"{100 * error.median:5.1f} %" for error in found.errors)
    straight = found.straightness / found.teacher_straightness
    print(
        f"{name:20} {errors}   {straight:5.2f}   {found.spread / found.teacher_spread:5.2f}   {spent_s:5.0f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = FlowConfig(path=str(trained()[0]))
    teacher = config.make()
    others = [state for state in range(50) if state not in HELD_OUT]
    sim = {"cameras": [], "assets": "primitive", "tasks": TASKS, "init_states": others}
    with make(LiberoConfig("libero_object", **sim)) as robot:
        found = from_rollouts(robot, teacher, 40, 4096, 0.2, 1000)
    print("error against ten steps with      1        2        4       10   straightness  spread   training")
    told("the teacher itself", measure(teacher.flow, teacher.flow, found.held_out), 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        for method, optimizer in WAYS:
            training = DistillationConfig(
                method=method, optimizer=optimizer, steps=arguments.steps, batch=arguments.batch, pairs=50_000
            )
            folder, begun_s = Path(scratch) / f"{method} {optimizer}", time.process_time()
            place = distill(teacher, config.make, found, training, folder, lambda *_: lambda more: None)
            spent_s = time.process_time() - begun_s
            student = FlowConfig(path=str(place)).make()
            told(f"{method}, {optimizer}", measure(teacher.flow, student.flow, found.held_out), spent_s)


if __name__ == "__main__":
    main()
