"""N robots on one policy node: throughput, age of chunks, starved ticks; in passes of up to 8, and one by one.

python tests/bench/batching.py [--seconds=15]

A tiny SmolVLA (0.25 M, one CPU thread) in a `tactus serve` process of its own, robots in a process each:
  flat out    every robot asks again as soon as it has its answer
  50 Hz       every robot runs in real time, and wants a new chunk after every 4 ticks of 50
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
import numpy as np

from tactus.hal.spec import Observation
from tactus.hal.synthetic import SyntheticConfig
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.link import Link

FPS, STEPS, CAMERA = 50.0, 4, "observation.images.camera_0"
ROBOT: dict[str, Any] = {"fps": FPS, "width": 7, "cameras": 1, "image_size": (64, 64)}
ROBOTS = (1, 2, 4, 8)


def flat_out(link: Link, seconds: float) -> dict[str, Any]:
    robot = SyntheticConfig(**ROBOT).make()
    link.hello(robot.spec, 60, real_time=False)
    link.reset(0, 0, "go")
    robot.reset(0, 0)
    seen = robot.observe()
    ages, tick, until_s = [], 0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        link.request(Observation(seen.arrays, seen.stamps_ns, tick, "go"), 0, 0)
        while not (replies := link.poll()):
            link.wait(1.0)
        ages.append(replies[0].round_trip_ms)
        tick += 1
    return {"chunks": len(ages), "ages_ms": ages, "ticks": tick, "starved": 0}


def real_time(link: Link, seconds: float) -> dict[str, Any]:
    robot = SyntheticConfig(**ROBOT, steps=int(seconds * FPS)).make()
    spec = link.hello(robot.spec, 60)
    node = RobotNode(robot, spec, link, RealClock(FPS), LoopConfig(chunk_size_threshold=0.0), say=lambda line: None)
    stats = node.run_episode(0, 0)
    found = {"chunks": stats.chunks, "ages_ms": stats.round_trip_ms[1:], "ticks": stats.ticks}
    return {**found, "starved": stats.starved_ticks}


LIVES = {"flat out": flat_out, "50 Hz": real_time}


def measure(folder: Path, max_batch: int, life: str, robots: int, seconds: float) -> str:
    endpoint = f"ipc://{folder}/node_{max_batch}_{robots}_{len(life)}"
    serve = ["-m", "tactus", "serve", f"--connect={endpoint}", f"--policy.path={folder}"]
    serve += ["--policy.threads=1", f"--policy.max_batch={max_batch}", f"--policy.n_action_steps={STEPS}"]
    serve += [f"--virtual_batch={max_batch}"]
    node = subprocess.Popen([sys.executable, *serve], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert node.stdout is not None
    try:
        while "policy node: smolvla" not in (line := node.stdout.readline()):
            assert line, "the policy node ended"
        command = [sys.executable, __file__, f"--life={life}", f"--endpoint={endpoint}", f"--seconds={seconds}"]
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(robots)]
        found = [json.loads(worker.communicate()[0]) for worker in workers]
    finally:
        node.terminate()
        node.wait()
    ages_ms = np.concatenate([one["ages_ms"] for one in found])
    ticks, starved = sum(one["ticks"] for one in found), sum(one["starved"] for one in found)
    chunks_s = sum(one["chunks"] for one in found) / seconds
    return f"{chunks_s:8.1f}{np.percentile(ages_ms, 95):9.1f}{100 * starved / ticks:9.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--life", choices=LIVES)
    parser.add_argument("--endpoint")
    options = parser.parse_args()
    if options.life:
        link = Link(options.endpoint)
        print(json.dumps(LIVES[options.life](link, options.seconds)))
        link.close()
        return
    with tempfile.TemporaryDirectory() as root:
        folder = checkpoints.smolvla(
            Path(root), images={CAMERA: (64, 64)}, state=7, action=7, chunk_size=50, n_action_steps=50, num_steps=10
        )
        columns = f"{'chunks/s':>10s}{'age p95':>9s}{'starved':>11s}"
        print(f"{'':22s}{'passes of up to 8':^30s}{'one by one':^30s}\n{'':22s}{columns}{columns}   (age in ms)")
        for life in LIVES:
            for robots in ROBOTS:
                rows = [measure(folder, max_batch, life, robots, options.seconds) for max_batch in (8, 1)]
                print(f"{life:10s}{robots:3d} robots  {'  '.join(rows)}", flush=True)


if __name__ == "__main__":
    main()
