"""LIBERO control steps per second: rendering on demand against LIBERO's own environment with its images on.

    python tests/bench/libero_steps.py [--suite=libero_object] [--steps=100] [--assets=primitive] [--resets=1000]

Both have two cameras at 256 x 256. LIBERO's environment renders both at every step; ours renders when an
observation is read, once per chunk. Each lives in a process of its own (robosuite cannot hold two renderers
in one) and they take turns, so that whatever else the machine does hits both alike. Both take the same actions from
the same initial state: what a picture costs depends on what is in it.

Then without cameras: a control step, by compiled physics steps and by robosuite's own, against 25 mj_step from the same
state; resets; and what many resets over the suite's tasks leave in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

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


def bare(suite: str, assets: str, pipe: Connection) -> None:
    """Control steps without cameras; each is preceded by 25 mj_step from the same state, in a copy."""
    import mujoco

    from tactus.hal.libero import LiberoConfig

    warnings.simplefilter("ignore")
    robot = LiberoConfig(suite=suite, assets=assets, cameras=[]).make()
    started = time.perf_counter()
    robot.reset(0, 0)
    first = time.perf_counter() - started
    from tactus.hal.libero import control_step

    compiled = control_step.can_be_compiled
    pipe.send("ready")
    for path in ("compiled", "exact") * TURNS:
        control_step.can_be_compiled = compiled if path == "compiled" else lambda: False
        started = time.perf_counter()
        robot.reset(0, 0)
        times = {"reset": time.perf_counter() - started, "bare": 0.0, "step": 0.0}
        model, data = robot._env.sim.model._model, robot._env.sim.data._data
        copy = mujoco.MjData(model)
        for move in actions(pipe.recv()):
            mujoco.mj_copyData(copy, model, data)
            moments = [time.perf_counter()]
            for _ in range(25):
                mujoco.mj_step(model, copy)
            moments.append(time.perf_counter())
            robot.act(move)
            moments.append(time.perf_counter())
            times["bare"] += moments[1] - moments[0]
            times["step"] += moments[2] - moments[1]
        pipe.send((path, times))
    control_step.can_be_compiled = compiled
    count, sizes, waits = pipe.recv(), [], []
    for episode in range(count):
        started = time.perf_counter()
        robot.reset(episode, 0)
        waits.append(time.perf_counter() - started)
        sizes.append(resident())
    pipe.send((first, waits, sizes, len(robot._kept)))


def resident() -> float:
    """MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def without_cameras(pipe: Connection, options: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, float]]] = {"compiled": [], "exact": []}
    for _ in range(2 * TURNS):
        pipe.send(options.steps)
        path, times = pipe.recv()
        found[path].append(times)
    print("without cameras")
    for path, turns in found.items():
        step, alone = (1000 / options.steps * statistics.median(t[what] for t in turns) for what in ("step", "bare"))
        ratio = statistics.median(t["step"] / t["bare"] for t in turns)
        wait = 1000 * statistics.median(t["reset"] for t in turns)
        against = f"25 mj_step {alone:5.2f} ms: {ratio:.2f} x"
        print(f"{path:9s} {step:5.2f} ms a step, {against}; reset and settle {wait:.0f} ms")
    pipe.send(options.resets)
    first, waits, sizes, kept = pipe.recv()
    once = min(10, len(sizes) - 1)
    print(
        f"{len(sizes)} resets over {kept} tasks: first {1000 * first:.0f} ms, a known task "
        f"{1000 * statistics.median(waits[once:]):.0f} ms; {sizes[once] - sizes[0]:.0f} MB for the further tasks, "
        f"{sizes[-1] - sizes[once]:+.1f} MB in the resets after"
    )


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
    parser.add_argument("--resets", type=int, default=1000)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, target in (("libero", libero), ("ours", ours), ("bare", bare)):
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
    for name in ("libero", "ours"):
        pipes[name].send(None)
    base = statistics.median(rates["libero"])
    print(f"{options.suite}, 2 cameras at 256 x 256, median of {TURNS} turns of {options.steps} steps")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:14s} {rate:7.1f} steps/s  {1000 / rate:6.1f} ms a step  {rate / base:5.1f} x LIBERO's own")
    without_cameras(pipes["bare"], options)


if __name__ == "__main__":
    main()
