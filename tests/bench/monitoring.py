"""What onlookers cost a 30 Hz loop: metrics, metrics that are fetched, and a view, against the same loop without any.

    python tests/bench/monitoring.py [--seconds=40] [--fetch_hz=1]

A robot node on the real clock, seven joints and two cameras of 640x480, a policy node in another process. The loops
take turns in slices of 5 s, so that whatever else the machine does hits all alike. Printed for each: what its onlookers
took of the robot's thread per tick, how late ticks began, and the process's CPU time as a share of one core. The view
draws into a file, 10 pictures of each camera a second.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.spec import STATE, Observation
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.policies.scripted.ticker import TickerConfig
from tactus.runtime.metrics.endpoint import Endpoint
from tactus.runtime.metrics.robot import RobotMetrics
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import Watcher
from tactus.runtime.view.live_view import View
from tactus.runtime.view.rerun_recording import RerunRecording
from tactus.runtime.wire.link import Link

FPS, SLICE_S, SIZE = 30.0, 5.0, (480, 640)
HOOKS = ("begin", "asked", "merged", "before", "after", "said", "end")


class Robot(SyntheticRobot):
    """Its pictures cost nothing to have, as a camera thread's do: what is measured is what is done with them."""

    def __init__(self) -> None:
        super().__init__(SyntheticConfig(fps=FPS, cameras=2, image_size=SIZE, steps=int(SLICE_S * FPS)))
        noise = np.random.default_rng(0).integers(0, 60, (*SIZE, 3)).astype(np.uint8)
        ramp = np.linspace(0, 180, SIZE[1]).astype(np.uint8)[None, :, None]
        self._picture = noise + ramp

    def observe(self) -> Observation:
        arrays = {name: self._picture for name in self.spec.observations if name != STATE}
        now = time.monotonic_ns()
        return Observation({STATE: self._state.copy(), **arrays}, dict.fromkeys((STATE, *arrays), now))


class Timed(Watcher):
    """Adds up, tick by tick, what the watchers take."""

    def __init__(self, watchers: list[Watcher]) -> None:
        self.ticks_us: list[float] = []
        self._spent_ns = 0
        for hook in HOOKS:
            setattr(self, hook, self._timed([getattr(watcher, hook) for watcher in watchers], hook == "after"))

    def _timed(self, calls: list[Any], last: bool) -> Any:
        def call(*arguments: Any) -> None:
            began_ns = time.perf_counter_ns()
            for one in calls:
                one(*arguments)
            self._spent_ns += time.perf_counter_ns() - began_ns
            if last:
                self.ticks_us.append(self._spent_ns / 1000)
                self._spent_ns = 0

        return call


def serve(ready: Connection) -> None:
    node = PolicyNode(TickerConfig(cameras=2, image_size=SIZE).make(), "tcp://127.0.0.1:*")
    ready.send(node.endpoint)
    node.run()


@contextlib.contextmanager
def fetched(url: str, hz: float) -> Iterator[list[float]]:
    """Somebody fetches the metrics; how long that takes, in ms. It is the node's process that is asked."""
    took_ms: list[float] = []
    enough = threading.Event()

    def fetch() -> None:
        while not enough.wait(1 / hz):
            began_s = time.perf_counter()
            urllib.request.urlopen(url, timeout=5).read()
            took_ms.append((time.perf_counter() - began_s) * 1000)

    thread = threading.Thread(target=fetch)
    thread.start()
    yield took_ms
    enough.set()
    thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="per loop")
    parser.add_argument("--fetch_hz", type=float, default=1.0, help="how often metrics are fetched")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    policy_node = context.Process(target=serve, args=(there,), daemon=True)
    policy_node.start()
    link = Link(here.recv())
    policy = link.hello(Robot().spec, 30)
    loops = ("nobody", "metrics", "metrics, fetched", "view", "metrics and view")
    taken: dict[str, list[float]] = {name: [] for name in loops}
    late: dict[str, list[float]] = {name: [] for name in loops}
    cpu_s, wall_s = dict.fromkeys(loops, 0.0), dict.fromkeys(loops, 0.0)
    scrapes_ms: list[float] = []
    dropped = 0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(max(1, round(options.seconds / SLICE_S))):
            for name in loops:
                robot, clock = Robot(), RealClock(FPS)
                with contextlib.ExitStack() as stack:
                    watchers: list[Watcher] = []
                    if "metrics" in name:
                        watchers.append(metrics := RobotMetrics(robot, "ticker"))
                        endpoint = stack.enter_context(Endpoint("127.0.0.1", 0))
                        endpoint.add(metrics)
                        if "fetched" in name:
                            scrapes_ms = stack.enter_context(fetched(endpoint.url, options.fetch_hz)) + scrapes_ms
                    if "view" in name:
                        canvas = RerunRecording(str(Path(folder) / f"{name}{turn}.rrd"), robot.spec, True)
                        watchers.append(view := View(canvas, robot, 10.0, True))
                        stack.callback(view.close)
                    timed = Timed(watchers)
                    node = RobotNode(robot, policy, link, clock, LoopConfig(start_timeout_s=10))
                    began_cpu_s, began_s = time.process_time(), time.perf_counter()
                    stats = node.run_episode(0, 0, [timed])
                    cpu_s[name] += time.process_time() - began_cpu_s
                    wall_s[name] += time.perf_counter() - began_s
                    if "view" in name:
                        dropped += view.dropped
                taken[name] += timed.ticks_us
                late[name] += stats.lateness_ms
    link.close()
    policy_node.terminate()
    idle = cpu_s["nobody"] / wall_s["nobody"]
    p99_alone = np.percentile(late["nobody"], 99)
    print(f"{options.seconds:g} s a loop at {FPS:g} Hz, two cameras of {SIZE[1]}x{SIZE[0]}, metrics fetched at "
          f"{options.fetch_hz:g} Hz; {dropped} pictures dropped")  # fmt: skip
    for name in loops:
        mean, p50, p99 = np.mean(taken[name]), *np.percentile(taken[name], [50, 99])
        late50, late99 = np.percentile(late[name], [50, 99])
        share = cpu_s[name] / wall_s[name]
        print(
            f"{name:17s} a tick's onlookers take mean {mean:7.1f} p50 {p50:7.1f} p99 {p99:7.1f} µs   begins late by "
            f"p50 {late50:.3f} p99 {late99:.3f} ms ({late99 / p99_alone:.2f} of nobody's)   CPU {share:6.1%} of a core "
            f"({share - idle:+.1%})"
        )


if __name__ == "__main__":
    main()
