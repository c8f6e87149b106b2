"""What it costs to hold a robot to its spec: ticks of a robot as `make` gives it, and of the same robot unchecked.

    python tests/bench/checked.py [--ticks=20000] [--width=7] [--cameras=2]

A tick is observe, every array read, act, events and outcome; pictures are 480x640. Prints the time per tick of both,
in turns within one run, and the difference as a share of a 30 Hz period.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import STATE, Observation
from tactus.hal.synthetic import SyntheticConfig
from tactus.hal.wrappers.checked import make

TURNS = 10


class Still(type(SyntheticConfig().make())):
    """Its pictures are taken once, so that the ticks hold little else than what is measured."""

    def observe(self) -> Observation:
        if "seen" not in vars(self):
            self.seen = super().observe()
        return self.seen


def us_per_tick(robot: Robot, ticks: int) -> float:
    robot.reset(0, 0)
    action = np.zeros(robot.spec.action.shape, np.float32)
    started_s = time.perf_counter()
    for _ in range(ticks):
        arrays = robot.observe().arrays
        for name in robot.spec.observations:
            arrays[name]
        robot.act(action)
        robot.events()
        robot.outcome()
    return (time.perf_counter() - started_s) / ticks * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=7)
    parser.add_argument("--cameras", type=int, default=2)
    arguments = parser.parse_args()
    SyntheticConfig.entry_point = f"{__name__}:Still"
    config = SyntheticConfig(width=arguments.width, cameras=arguments.cameras, image_size=(480, 640), steps=10**9)
    robots = {"bare": config.make(), "checked": make(config)}
    assert STATE in robots["bare"].spec.observations
    spent = {name: [] for name in robots}
    for _ in range(TURNS):
        for name, robot in robots.items():
            spent[name].append(us_per_tick(robot, arguments.ticks // TURNS))
    bare, checked = (float(np.median(spent[name])) for name in robots)
    print(f"bare {bare:.1f} us a tick, checked {checked:.1f} us: {checked - bare:+.1f} us, {checked / bare:.1f}x")
    print(f"of a 30 Hz period: {(checked - bare) * 30 / 1e6:.4%}")


if __name__ == "__main__":
    main()
