"""The policy of rtc_seams.py: trained once on rtc_demos.py's demonstrations, then kept in outputs/bench/rtc."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rtc_demos import HELD_OUT, HORIZON, TASKS, libero, record

from tactus.hal.spec import ENVIRONMENT_STATE, STATE
from tactus.policies.flow.network import FlowNetwork, Shape, load, save
from tactus.policies.flow.training import train

FOLDER = Path(__file__).parents[2] / "outputs" / "bench" / "rtc"
OFFSETS = (-1, 0)
"""Two observations, since the hand goes on for centimetres after a stop: where it is does not say how fast."""
STEPS = 5500


def trained() -> tuple[Path, np.ndarray]:
    """The folder of the policy, and σ per action dimension."""
    demos = record(FOLDER / "demos.npz")
    kept = [i for i, success in enumerate(demos.success) if success]
    print(
        f"{len(kept)} of {len(demos.success)} demonstrations succeeded, {sum(map(len, demos.actions))} ticks",
        flush=True,
    )
    actions = [demos.actions[i] for i in kept]
    folder = FOLDER / "policy"
    if not folder.is_dir():
        started_s = time.process_time()
        save(_train([demos.observations[i] for i in kept], actions), folder)
        print(f"training: {time.process_time() - started_s:.0f} s of one core", flush=True)
    load(folder)
    return folder, np.concatenate([chunks[:, 0] for chunks in actions]).std(0)


def _train(observations: list[np.ndarray], actions: list[np.ndarray]) -> FlowNetwork:
    robot = libero(TASKS, HELD_OUT)
    inputs = {name: robot.spec.observations[name] for name in (STATE, ENVIRONMENT_STATE)}
    shape = Shape(inputs, robot.spec.action, HORIZON, robot.spec.fps, OFFSETS)
    losses: list[float] = []

    def progress(step: int, loss: float) -> None:
        losses.append(loss)
        if (step + 1) % 1000 == 0:
            print(f"step {step + 1}: loss {np.mean(losses[-500:]):.3f}", flush=True)

    return train(shape, observations, actions, steps=STEPS, progress=progress)
