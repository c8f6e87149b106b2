"""How well a 30 Hz loop keeps time: the whole robot node against a bare loop and the peers' way of sleeping.

    python tests/bench/pacing.py [--seconds=60] [--busy=0]

Each loop does 4 ms of work a tick. They take turns in slices of 5 s, so that whatever else the machine does
hits all alike; each keeps its own grid within a slice, and drifts are added up over the slices.
- tactus: RobotNode with RealClock, a real link, a real policy node in another process, 50-action chunks
- bare: absolute deadline, sleep, 1 ms spin, and nothing else: the limit for a Python loop
- plain: absolute deadline with sleep alone
- relative: work, then sleep the rest of the period, as openpi-client and LeRobot do
--busy=N starts N processes that do nothing but compute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from tactus.hal.spec import STATE
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import Idle, RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.link import Link

FPS, WORK_S, SLICE_S = 30.0, 0.004, 5.0
TICKS = int(SLICE_S * FPS)

Slice = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Runs for SLICE_S; gives ticks and the times at which they began, in s."""


class StampedClock(RealClock):
    """Notes when each tick begins."""

    def start(self) -> None:
        super().start()
        self.began = [(0, self._start_s)]

    def wait_until(self, tick: int, idle: Idle) -> int:
        reached = super().wait_until(tick, idle)
        self.began.append((reached, self._start_s + reached / self.fps + self.lateness_s))
        return reached


class StampedRobot(SyntheticRobot):
    """Works for 4 ms in act(), and notes when that begins."""

    def __init__(self) -> None:
        super().__init__(SyntheticConfig(fps=FPS, steps=TICKS + 1, work_ms=WORK_S * 1000))
        self.acted: list[float] = []

    def act(self, action: np.ndarray) -> np.ndarray:
        self.acted.append(time.perf_counter())
        return super().act(action)


def work() -> None:
    until = time.perf_counter() + WORK_S
    while time.perf_counter() < until:
        pass


def serve(ready: Connection) -> None:
    spec = SyntheticConfig().make().spec
    node = PolicyNode(TickerPolicy({STATE: spec.observations[STATE]}, spec.action, 50), "tcp://127.0.0.1:*")
    ready.send(node.endpoint)
    node.run()


def compute() -> None:
    while True:
        sum(range(10_000))


def tactus(endpoint: str, act_after_ms: list[float]) -> Slice:
    robot, link, clock = StampedRobot(), Link(endpoint), StampedClock(FPS)
    policy = link.hello(robot.spec, 30)
    node = RobotNode(robot, policy, link, clock, LoopConfig(start_timeout_s=10))

    def run() -> tuple[np.ndarray, np.ndarray]:
        robot.acted = []
        node.run_episode(0, 0)
        ticks, began = zip(*clock.began, strict=True)
        act_after_ms.extend((act - begin) * 1000 for act, begin in zip(robot.acted, began, strict=True))
        return np.array(ticks), np.array(began)

    return run


def absolute(spin_s: float) -> Slice:
    def run() -> tuple[np.ndarray, np.ndarray]:
        ticks, start_s = [0], time.perf_counter()
        began = [start_s]
        while ticks[-1] < TICKS:
            work()
            tick = max(ticks[-1] + 1, int((time.perf_counter() - start_s) * FPS) + 1)
            deadline_s = start_s + tick / FPS
            if (left_s := deadline_s - spin_s - time.perf_counter()) > 0:
                time.sleep(left_s)
            while (now_s := time.perf_counter()) < deadline_s:
                pass
            ticks.append(tick)
            began.append(now_s)
        return np.array(ticks), np.array(began)

    return run


def relative() -> tuple[np.ndarray, np.ndarray]:
    began = []
    for _ in range(TICKS + 1):
        began.append(time.perf_counter())
        work()
        time.sleep(max(0.0, 1 / FPS - (time.perf_counter() - began[-1])))
    return np.arange(TICKS + 1), np.array(began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="per loop")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    others = [context.Process(target=serve, args=(there,), daemon=True)]
    others += [context.Process(target=compute, daemon=True) for _ in range(options.busy)]
    for process in others:
        process.start()
    act_after_ms: list[float] = []
    loops = {"tactus": tactus(here.recv(), act_after_ms), "bare": absolute(0.001), "plain": absolute(0.0)}
    loops["relative"] = relative
    slices: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in loops}
    for _ in range(max(1, round(options.seconds / SLICE_S))):
        for name, run in loops.items():
            slices[name].append(run())
    print(f"{options.seconds:g} s a loop at {FPS:g} Hz, {WORK_S * 1000:g} ms of work, {options.busy} busy processes")
    p99 = {}
    for name, runs in slices.items():
        late_ms = np.concatenate([(began - began[0] - ticks / FPS) * 1000 for ticks, began in runs])
        drift_ms = sum((began[-1] - began[0] - ticks[-1] / FPS) * 1000 for ticks, began in runs)
        rate = sum(ticks[-1] for ticks, _ in runs) / sum(began[-1] - began[0] for _, began in runs)
        skipped = sum(int(ticks[-1]) + 1 - len(ticks) for ticks, _ in runs)
        p99[name] = np.percentile(late_ms, 99)
        print(
            f"{name:9s} rate {rate:7.3f} Hz   drift {drift_ms:+9.2f} ms   a tick begins late by p50 "
            f"{np.percentile(late_ms, 50):7.4f} ms  p99 {p99[name]:7.4f} ms   skipped {skipped}"
        )
    act = np.percentile(act_after_ms, [50, 99])
    print(f"tactus p99 / bare p99: {p99['tactus'] / p99['bare']:.2f}; act() follows a tick's beginning by p50 "
          f"{act[0]:.3f} ms, p99 {act[1]:.3f} ms (merge, request and pop)")  # fmt: skip
    for process in others:
        process.terminate()


if __name__ == "__main__":
    main()
