"""What the flight recorder costs: CPU time and lateness of a robot node with and without it, and what kill -9 loses.

    python tests/bench/flight.py [--seconds=60] [--kills=10] [--folder=DIR]

A synthetic robot at 30 Hz with two cameras of 640x480 and 4 ms of work a tick, a policy node in another process. Slices
of 5 s with and without the recorder take turns, so that whatever else the machine does hits both alike. CPU time is the
robot node's whole process, kernel time included, from before the record's file is opened until it is closed.
- usual: chunks of 50 at threshold 0.5: a request every 25 ticks
- worst: a request every tick, 55 MB/s
Then `tactus run` is killed with SIGKILL in mid-run, and its record is read up to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.scripted.ticker import TickerConfig
from tactus.runtime.flight.channels import TICK
from tactus.runtime.flight.queue_replay import replay_queue
from tactus.runtime.flight.reader import read_flights
from tactus.runtime.flight.recorder import FlightRecorder
from tactus.runtime.flight.ring import Ring
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.link import Link

FPS, WORK_MS, SLICE_S, CAMERAS, SIZE = 30.0, 4.0, 5.0, 2, (480, 640)
TICKS = int(SLICE_S * FPS)
THRESHOLDS = {"usual": 0.5, "worst": 1.0}
SETTLE_S = 1.0
ROBOT = SyntheticConfig(fps=FPS, steps=TICKS + 1, work_ms=WORK_MS, cameras=CAMERAS, image_size=SIZE)


def serve(ready: Connection, endpoint: str) -> None:
    policy = TickerConfig(cameras=CAMERAS, image_size=SIZE).make()
    node = PolicyNode(policy, endpoint)
    ready.send(node.endpoint)
    node.run()


class Slice(NamedTuple):
    """cpu_percent: of a core. late_ms: how late each tick began."""

    cpu_percent: float
    late_ms: list[float]


class Loop:
    """A robot node; a slice is an episode."""

    def __init__(self, endpoint: str, threshold: float, folder: Path, flight_gb: float) -> None:
        self.robot = ROBOT.make()
        self.link = Link(endpoint)
        self.clock = RealClock(FPS)
        self.config = LoopConfig(start_timeout_s=10, chunk_size_threshold=threshold)
        self.policy = self.link.hello(self.robot.spec, 30)
        self.node = RobotNode(self.robot, self.policy, self.link, self.clock, self.config)
        self.folder = folder
        self.max_bytes = int(flight_gb * 1e9)
        self.tap = self.link.tap
        self.rates: list[float] = []
        self.wrong = 0

    def run(self, recorded: bool) -> Slice:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        recorder = FlightRecorder(Ring(self.folder, 10, self.max_bytes)) if recorded else None
        if recorder is not None:
            about = {"run": uuid.uuid4().hex, "robot": self.robot.spec.to_dict(), "policy": self.policy.to_dict()}
            recorder.start({**about, "loop": dataclasses.asdict(self.config)})
        self.link.tap = recorder.tap if recorder is not None else self.tap
        stats = self.node.run_episode(0, 0, [recorder] if recorder is not None else [])
        if recorder is not None:
            recorder.close()
        self.link.tap = self.tap
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        if recorder is not None:
            files = [*self.folder.glob("*.mcap")]
            self.rates.append(sum(file.stat().st_size for file in files) / wall_s / 1e6)
            self.wrong += sum(replay_queue(flight).difference is not None for flight in read_flights(self.folder))
            shutil.rmtree(self.folder)
        return Slice(100 * cpu_s / wall_s, stats.lateness_ms)


def cost(name: str, loop: Loop, seconds: float) -> None:
    slices: dict[bool, list[Slice]] = {False: [], True: []}
    for turn in range(max(1, round(seconds / SLICE_S))):
        for recorded in (False, True) if turn % 2 else (True, False):
            time.sleep(SETTLE_S)
            slices[recorded].append(loop.run(recorded))
    print(
        f"{name}: {np.median(loop.rates):.1f} MB/s, {len(slices[True])} slices each, {loop.wrong} replayed differently"
    )
    cpu = {recorded: np.array([one.cpu_percent for one in some]) for recorded, some in slices.items()}
    added = cpu[True] - cpu[False]
    print(
        f"  CPU of the robot node, % of a core: without {np.median(cpu[False]):.2f}, with {np.median(cpu[True]):.2f}; "
        f"added, pair by pair: median {np.median(added):+.2f}, mean {added.mean():+.2f}, "
        f"{added.min():+.2f} to {added.max():+.2f}"
    )
    p99 = {}
    for recorded, some in slices.items():
        late_ms = np.concatenate([one.late_ms for one in some])
        p50, p99[recorded], worst = np.percentile(late_ms, [50, 99, 100])
        middle = np.median([np.percentile(one.late_ms, 99) for one in some])
        word = "with   " if recorded else "without"
        print(f"  a tick begins late, {word}: p50 {p50:.4f} ms  p99 {p99[recorded]:.4f} ms (the median slice's p99 "
              f"{middle:.4f})  max {worst:.3f} ms")  # fmt: skip
    print(f"  p99 with / without: {p99[True] / p99[False]:.2f}", flush=True)


def kill(name: str, threshold: float, endpoint: str, folder: Path, kills: int) -> None:
    lost_s = []
    for number in range(kills):
        flight = folder / f"kill-{name}-{number}"
        command = [sys.executable, "-m", "tactus", "run", f"--connect={endpoint}", "--episodes=1",
                   "--robot.type=synthetic", f"--robot.cameras={CAMERAS}", f"--robot.image_size=[{SIZE[0]},{SIZE[1]}]",
                   "--robot.steps=100000", f"--chunk_size_threshold={threshold}", f"--record_flight={flight}",
                   f"--output_dir={flight}-results"]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not any(file.stat().st_size > 4_000_000 for file in flight.glob("*.mcap")):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        time.sleep(1.0 + random.random())
        killed_ns = time.time_ns()
        process.send_signal(signal.SIGKILL)
        process.wait()
        records = read_flights(flight)[-1].records
        last_ns = max(record.log_ns for record in records if record.topic == TICK)
        lost_s.append((killed_ns - last_ns) / 1e9)
        shutil.rmtree(flight)
        shutil.rmtree(f"{flight}-results", ignore_errors=True)
    print(f"{name}: kill -9, {kills} times: the last tick read is {min(lost_s):.3f} to {max(lost_s):.3f} s before it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="per kind of slice")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--gb", type=float, default=1.0, help="how large the record may become")
    parser.add_argument("--folder", type=Path, help="where to record; not given: a temporary folder")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(there, f"ipc://{folder}/node"), daemon=True)
        server.start()
        stack.callback(server.terminate)
        endpoint = here.recv()
        for name, threshold in THRESHOLDS.items():
            if options.seconds:
                cost(name, Loop(endpoint, threshold, folder / name, options.gb), options.seconds)
        for name, threshold in THRESHOLDS.items():
            if options.kills:
                kill(name, threshold, endpoint, folder, options.kills)


if __name__ == "__main__":
    main()
