"""Several LIBERO robots for a script that trains: in one process, with one thread or two, or in processes of their own.

    python tests/bench/vector.py [--suite=libero_object] [--steps=200] [--pictures]

Control steps per second of all robots together, each stepped with an action of its own; with --pictures two of 256² are
read at every step. The ways take turns, so that whatever else the machine does hits all alike. `bare` is the same count
of processes in which 25 mj_step a control step are all that is done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

TURNS = 5
Work = Callable[[int], None]


def robots(count: int, threads: int, options: argparse.Namespace) -> Work:
    from tactus.hal.gym.vector import RobotVector
    from tactus.hal.libero import LiberoConfig

    cameras: dict[str, Any] = {} if options.pictures else {"cameras": []}
    config = LiberoConfig(suite=options.suite, tasks=[0], assets=options.assets, environment_state=False, **cameras)
    vector = RobotVector([config] * count, threads=threads)
    shape = vector.action_space.shape or ()

    def work(steps: int) -> None:
        vector.reset(options={"episodes": [0] * count})
        for move in np.random.default_rng(0).uniform(-0.5, 0.5, (steps, *shape)).astype(np.float32):
            vector.step(move)

    return work


def physics(options: argparse.Namespace) -> Work:
    from mujoco import mj_step  # pyright: ignore[reportAttributeAccessIssue] - made in C

    from tactus.hal.libero import LiberoConfig

    robot: Any = LiberoConfig(suite=options.suite, tasks=[0], assets=options.assets, cameras=[]).make()

    def work(steps: int) -> None:
        robot.reset(0, 0)
        model, data = robot._env.sim.model._model, robot._env.sim.data._data
        for _ in range(steps * 25):
            mj_step(model, data)

    return work


def serve(kind: str, count: int, threads: int, options: argparse.Namespace, pipe: Connection) -> None:
    """A process that works when it is told to. Answers with when the steps began and ended: resets are not counted."""
    warnings.simplefilter("ignore")
    work = physics(options) if kind == "bare" else robots(count, threads, options)
    work(1)
    pipe.send("ready")
    while (steps := pipe.recv()) is not None:
        began_s = time.perf_counter()
        work(1)
        reset_s = time.perf_counter() - began_s
        work(steps)
        pipe.send((time.perf_counter() - began_s - 2 * reset_s) / (steps - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--assets", default="primitive")
    parser.add_argument("--steps", type=int, default=200, help="per turn")
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ways = {
        "one robot": (1, ("robots", 1, 1)),
        "two, one thread": (1, ("robots", 2, 1)),
        "two, two threads": (1, ("robots", 2, 2)),
        "two processes": (2, ("robots", 1, 1)),
        "bare, one": (1, ("bare", 1, 1)),
        "bare, two processes": (2, ("bare", 1, 1)),
    }
    pipes: dict[str, list[Connection]] = {}
    for name, (processes, (kind, count, threads)) in ways.items():
        pipes[name] = []
        for _ in range(processes):
            here, there = context.Pipe()
            context.Process(target=serve, args=(kind, count, threads, options, there), daemon=True).start()
            pipes[name].append(here)
        assert all(pipe.recv() == "ready" for pipe in pipes[name])
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, (_, (_, count, _)) in ways.items():
            for pipe in pipes[name]:
                pipe.send(options.steps)
            rates[name].append(sum(count / pipe.recv() for pipe in pipes[name]))
    looks = "two pictures a step" if options.pictures else "no pictures"
    print(f"{options.suite}, {looks}: control steps per second of all robots, median of {TURNS} turns")
    for name, found in rates.items():
        alone = rates["bare, one" if name.startswith("bare") else "one robot"]
        ratio = statistics.median(a / b for a, b in zip(found, alone, strict=True))
        print(f"{name:20s} {statistics.median(found):7.0f}   {ratio:.2f} x one")
    for name in pipes:
        for pipe in pipes[name]:
            pipe.send(None)


if __name__ == "__main__":
    main()
