"""Two bases for RL on LIBERO that practice can help, and what a factor on the noise alone makes of them.

    python tests/bench/rl_bases.py
    python tests/bench/rl_bases.py --only=clean --held_out_seeds=1 --training_seeds=0

A base has learnt from rl_demos.py's demonstrations, of which a part are wrong, so that from one and the same initial
state it succeeds with one noise and fails with another. Less noise does not help: what it learnt most of is no success.
Trains on one core for a minute, then plays; leaves demonstrations and bases in outputs/bench/rl. The same weights come
out every time. Initial states 0 … 24 are for training, 25 … 49 are held out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from rl_demos import LIFTED_M, Demos, Mistake, libero, record, vector

from tactus.hal.libero.config import Suite
from tactus.hal.robot import Robot
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Observation
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import WEIGHTS, Shape, save
from tactus.policies.flow.training import train
from tactus.policies.policy import Policy
from tactus.runtime.distillation.rollouts import play
from tactus.runtime.statistics import wilson

FOLDER = Path(__file__).parents[2] / "outputs" / "bench" / "rl"
TRAINING, HELD_OUT = range(25), range(25, 50)
HORIZON, NUM_STEPS = 8, 4
SCALES = (1.0, 0.5, 0.0)
NOISES = 8
"""Rollouts of each training state."""
SEED = 10_000
"""Rollouts of another noise are this far apart: more than there are initial states."""
STALL_TICKS, STALL_M = 30, 0.01
AT_TARGET_M = 0.08


class Base(NamedTuple):
    """ways: what is shown from each of the initial states `states`. mistakes: by way; the others are right."""

    suite: Suite
    task: int
    max_steps: int
    states: tuple[int, ...]
    ways: tuple[str, ...]
    mistakes: dict[str, Mistake]
    hidden: int = 128
    steps: int = 1500


BASES = {
    "object": Base(
        "libero_object",
        1,
        120,
        tuple(TRAINING),
        ("right", "beside", "short", "dropped"),
        {
            "beside": Mistake(beside_m=(0, 0.06)),
            "short": Mistake(short_m=(0.1, 0)),
            "dropped": Mistake(dropped=0.5),
        },
        steps=2000,
    ),
    "spatial": Base(
        "libero_spatial",
        2,
        120,
        tuple(TRAINING),
        ("right", "short", "dropped"),
        {"short": Mistake(short_m=(0.1, 0)), "dropped": Mistake(dropped=0.5)},
        steps=2000,
    ),
}
OTHERS = {"clean": Base("libero_object", 1, 140, tuple(range(10)), ("right",), {}, hidden=256)}
"""No base: what a short training makes of ten demonstrations of which none is wrong."""


class Rollout(NamedTuple):
    """kind: of failure; empty for a success. stalled: the hand hardly moved in the end."""

    state: int
    success: bool
    kind: str
    stalled: bool
    ticks: int


def demonstrations(name: str, robot: Robot) -> Demos:
    base = (BASES | OTHERS)[name]
    episodes = [(state, way) for state in base.states for way in base.ways]
    return record(FOLDER / "demos" / f"{name}.npz", robot, episodes, base.mistakes)


def trained(name: str, robot: Robot) -> Path:
    """The base's folder; trained if it is not there."""
    base, folder = (BASES | OTHERS)[name], FOLDER / "bases" / name
    demos = demonstrations(name, robot)
    shown = ", ".join(
        f"{way} {sum(s for w, s in zip(demos.ways, demos.success, strict=True) if w == way)} of {count}"
        for way, count in Counter(demos.ways).items()
    )
    ticks = [len(a) for a, success in zip(demos.actions, demos.success, strict=True) if success]
    print(f"{name}: demonstrations that succeed: {shown}; those take {min(ticks)} to {max(ticks)} ticks", flush=True)
    if not (folder / WEIGHTS).is_file():
        inputs = {key: robot.spec.observations[key] for key in (STATE, ENVIRONMENT_STATE)}
        shape = Shape(inputs, robot.spec.action, HORIZON, robot.spec.fps, hidden=base.hidden, num_steps=NUM_STEPS)
        started_s = time.process_time()
        save(train(shape, demos.observations, demos.actions, steps=base.steps), folder)
        print(f"{name}: trained in {time.process_time() - started_s:.0f} s of one core", flush=True)
    print(f"{name}: weights sha256 {hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:16]}", flush=True)
    return folder


def rollouts(robot: Robot, policy: Policy, states: range, seeds: int) -> list[Rollout]:
    return [_rollout(robot, policy, state, SEED * seed) for seed in range(seeds) for state in states]


def _rollout(robot: Robot, policy: Policy, state: int, seed: int) -> Rollout:
    seen: list[np.ndarray] = []

    def saw(observation: Observation) -> None:
        seen.append(vector({name: array for name, array in observation.arrays.items()}))

    success = play(robot, policy, state, seed, saw)
    track = np.stack(seen)
    hand = track[-STALL_TICKS:, :3]
    stalled = not success and float(np.ptp(hand, axis=0).max()) < STALL_M
    return Rollout(state, success, "" if success else _kind(track), stalled, len(track))


def _kind(track: np.ndarray) -> str:
    """What became of the object, of observations [T, 22]."""
    objects, target = track[:, 8:11], track[-1, 15:17]
    lifted = objects[:, 2] > objects[0, 2] + LIFTED_M
    if not lifted.any():
        return "never lifted"
    if np.linalg.norm(objects[-1, :2] - target) < AT_TARGET_M:
        return "at the target, not in place"
    if lifted[-1] and np.linalg.norm(objects[-1] - track[-1, :3]) < AT_TARGET_M:
        return "still held"
    way = np.linalg.norm(objects[-1, :2] - objects[0, :2]) / np.linalg.norm(target - objects[0, :2])
    return "put down beside the target" if way > 0.75 else "dropped on the way"


def rate(found: list[Rollout]) -> str:
    successes = sum(rollout.success for rollout in found)
    low, high = wilson(successes, len(found))
    return f"{100 * successes / len(found):.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*BASES, *OTHERS])
    parser.add_argument("--held_out_seeds", type=int, default=4, help="noises of each held-out state and scale")
    parser.add_argument("--training_seeds", type=int, default=NOISES, help="noises of each training state")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in [given.only] if given.only else BASES:
        base = (BASES | OTHERS)[name]
        robot = libero(base.suite, base.task, base.max_steps, [*TRAINING, *HELD_OUT])
        folder = trained(name, robot)
        print(f"{name}: {base.suite} task {base.task}, at most {base.max_steps} ticks", flush=True)
        for scale in SCALES:
            policy = FlowConfig(path=str(folder), noise_scale=scale).make()
            seeds = given.held_out_seeds if scale else 1  # without noise, they are all the same
            found = rollouts(robot, policy, HELD_OUT, seeds)
            _tell(f"held out, noise scale {scale:g}", found)
        if given.training_seeds:
            found = rollouts(robot, FlowConfig(path=str(folder)).make(), TRAINING, given.training_seeds)
            _tell("training states, noise scale 1", found)
            counts = Counter(rollout.state for rollout in found if rollout.success)
            mixed = sum(0 < counts[state] < given.training_seeds for state in TRAINING)
            print(
                f"  of {given.training_seeds} rollouts, some succeed and some fail in {mixed} of {len(TRAINING)} states"
            )
        robot.close()


def _tell(title: str, found: list[Rollout]) -> None:
    kinds = Counter(rollout.kind for rollout in found if not rollout.success)
    ticks = [rollout.ticks for rollout in found if rollout.success]
    print(f"  {title}: {rate(found)}, n = {len(found)}, ticks of successes {np.median(ticks or [0]):.0f}")
    print(
        f"    failures: {', '.join(f'{kind} {count}' for kind, count in kinds.most_common()) or 'none'}; "
        f"of them stalled {sum(rollout.stalled for rollout in found)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
