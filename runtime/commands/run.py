"""`tactus run`: a robot node in real time; latency is what the network and the policy really take."""

from __future__ import annotations

import sys

from runtime.clock import Clock, RealClock
from runtime.commands.config import parse
from runtime.commands.drivers import by_policy
from runtime.commands.episodes import run_episodes
from runtime.link import Link
from runtime.robot_node import AnyLink


def main(arguments: list[str]) -> int:
    """Exit status 0 when every episode ran, whatever its success."""
    config = parse("run", arguments)
    if config.latency != "fixed:0":
        print(f"tactus run: latency={config.latency} is for eval; in real time it is what it is", file=sys.stderr)
    return run_episodes("run", config, by_policy(config, real_time))


def real_time(fps: float, link: Link) -> tuple[Clock, AnyLink]:
    """A `Timing`: the wall clock's, with replies as they come."""
    return RealClock(fps), link
