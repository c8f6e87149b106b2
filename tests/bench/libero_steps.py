"""LIBERO control steps per second: rendering on demand against LIBERO's own environment with its images on.

    python tests/bench/libero_steps.py [--suite=libero_object] [--steps=100] [--assets=primitive]

Both have two cameras at 256 x 256. LIBERO's environment renders both at every step; ours renders when an
observation is read, once per chunk. Each lives in a process of its own (robosuite cannot hold two renderers
in one) and they take turns, so that whatever else the machine does hits both alike. Both take the same actions from
the same initial state: what a picture costs depends on what is in it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from multiprocessing.connection import Connection

import numpy as np

CHUNKS = (1, 10, 50)
TURNS = 4


def actions(count: int) -> np.ndarray:
    moves = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 7)).astype(np.float32)
    moves[:, 2] = np.abs(moves[:, 2])  # upwards, away from the table
    return moves


def ours(suite: str, assets: str, pipe: Connection) -> None:
    from tactus.hal.libero import LiberoConfig

    warnings.simplefilter("ignore")
    robot = LiberoConfig(suite=suite, tasks=[0], assets=assets, environment_state=False).make()
    robot.reset(0, 0)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        steps, chunk = order
        robot.reset(0, 0)
        moves, started = actions(steps), time.perf_counter()
        for step, move in enumerate(moves):
            if chunk and step % chunk == 0:
                arrays = robot.observe().arrays
                assert all(arrays[name].nbytes for name in robot.spec.observations)
            robot.act(move)
        pipe.send(steps / (time.perf_counter() - started))


def libero(suite: str, assets: str, pipe: Connection) -> None:
    from tactus.hal.libero import LiberoConfig

    warnings.simplefilter("ignore")
    robot = LiberoConfig(suite=suite, tasks=[0], assets=assets).make()
    from libero.libero.envs import OffScreenRenderEnv

    path = robot.suite.bddl_file(0)
    env = OffScreenRenderEnv(bddl_file_name=path, camera_heights=256, camera_widths=256)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        env.seed(0)
        env.reset()
        env.set_init_state(robot.suite.init_states(0)[0])
        moves, started = actions(order[0]), time.perf_counter()
        for move in moves:
            raw, _, _, _ = env.step(move)
            assert raw["agentview_image"].nbytes
        pipe.send(order[0] / (time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--assets", default="auto")
    parser.add_argument("--steps", type=int, default=100, help="per turn")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, target in (("libero", libero), ("ours", ours)):
        pipes[name], there = context.Pipe()
        context.Process(target=target, args=(options.suite, options.assets, there), daemon=True).start()
        assert pipes[name].recv() == "ready"
    rates: dict[str, list[float]] = {"libero": [], "no images": []} | {f"chunks of {n}": [] for n in CHUNKS}
    for _ in range(TURNS):
        for name, found in rates.items():
            chunk = 0 if name == "no images" else int(name.rpartition(" ")[2]) if name != "libero" else 1
            pipe = pipes["libero" if name == "libero" else "ours"]
            pipe.send((options.steps, chunk))
            found.append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    base = statistics.median(rates["libero"])
    print(f"{options.suite}, 2 cameras at 256 x 256, median of {TURNS} turns of {options.steps} steps")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:14s} {rate:7.1f} steps/s  {1000 / rate:6.1f} ms a step  {rate / base:5.1f} x LIBERO's own")


if __name__ == "__main__":
    main()
