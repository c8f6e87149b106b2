"""What LIBERO's two pictures cost on the primitive assets, on the same without their own looks, and on LIBERO's assets.

    python tests/bench/libero_pictures.py [--suite=libero_object] [--pictures=20] [--size=256]

The baseline is the primitive pack as it was: robosuite's own Panda, and every shape of an object drawn by itself. Each
lives in a process of its own and they take turns, in the same states, so that whatever else the machine does hits all
alike. LIBERO's assets are taken from $LIBERO_ASSETS, and left out without it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.libero.primitive.pack import write_pack

TURNS = 5


def faces(model: Any) -> dict[str, int]:
    """Of the seen meshes of every body; what MuJoCo draws by itself (boxes, cylinders) has none."""
    found: dict[str, int] = {}
    for geom in range(model.ngeom):
        mesh = int(model.geom_dataid[geom])
        if model.geom_group[geom] == 1 and mesh >= 0:
            name = model.body(int(model.geom_bodyid[geom])).name
            found[name] = found.get(name, 0) + int(model.mesh_facenum[mesh])
    return found


def draw(suite: str, assets: str, size: int, pipe: Connection) -> None:
    from tactus.hal.libero import LiberoConfig
    from tactus.hal.spec import IMAGES

    warnings.simplefilter("ignore")
    robot = LiberoConfig(suite=suite, tasks=[0], assets=assets, image_size=(size, size)).make()
    robot.reset(0, 0)
    model = robot._env.sim.model._model
    pipe.send((faces(model), int((model.geom_group == 1).sum())))
    while (count := pipe.recv()) is not None:
        robot.reset(0, 0)
        moves, taken = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 7)).astype(np.float32), []
        for move in moves:
            robot.act(move)
            arrays, started = robot.observe().arrays, time.perf_counter()
            assert all(arrays[name].std() for name in robot.spec.observations if name.startswith(IMAGES))
            taken.append(time.perf_counter() - started)
        pipe.send(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--pictures", type=int, default=20, help="pairs of pictures per turn")
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    scratch = tempfile.mkdtemp()
    write_pack(Path(scratch) / "plain", fast=False)
    packs = {"as it was": str(Path(scratch) / "plain"), "primitive": "primitive"}
    if os.environ.get("LIBERO_ASSETS"):
        packs["LIBERO's"] = os.environ["LIBERO_ASSETS"]
    context = multiprocessing.get_context("spawn")
    pipes, seen, taken = {}, {}, {name: [] for name in packs}
    for name, assets in packs.items():
        pipes[name], there = context.Pipe()
        context.Process(target=draw, args=(options.suite, assets, options.size, there), daemon=True).start()
        seen[name] = pipes[name].recv()
    for _ in range(TURNS):
        for name, pipe in pipes.items():
            pipe.send(options.pictures)
            taken[name] += pipe.recv()
    for pipe in pipes.values():
        pipe.send(None)
    shutil.rmtree(scratch)
    base, best = statistics.median(taken["as it was"]), min(taken["as it was"])
    print(f"{options.suite}, two pictures of {options.size} x {options.size}, {TURNS} turns of {options.pictures}")
    print(f"{'assets':12s} {'median':>10s} {'least':>10s} {'ratios':>15s}  seen geoms, faces of meshes")
    for name, found in taken.items():
        middle, (per_body, geoms) = statistics.median(found), seen[name]
        figures = f"{1000 * middle:7.1f} ms {1000 * min(found):7.1f} ms {base / middle:6.1f}x {best / min(found):6.1f}x"
        print(f"{name:12s} {figures}  {geoms}, {sum(per_body.values())}")
    print("faces by body, as it was and now:")
    for body in sorted(seen["as it was"][0]):
        print(f"  {body:24s} {seen['as it was'][0][body]:6d} {seen['primitive'][0].get(body, 0):6d}")


if __name__ == "__main__":
    main()
