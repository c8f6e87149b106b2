"""`tactus run`: a robot node in real time; latency is what network and policy really take, and what is asked for."""

from __future__ import annotations

from runtime.clock import Clock, RealClock
from runtime.commands.config import Config, parse
from runtime.commands.drivers import Timing, by_policy
from runtime.commands.episodes import run_episodes
from runtime.late_link import LateLink
from runtime.latency import LatencyModel
from runtime.link import Link
from runtime.robot_node import AnyLink


def main(arguments: list[str]) -> int:
    """Exit status 0 when every episode ran, whatever its success."""
    config = parse("run", arguments)
    return run_episodes("run", config, by_policy(config, real_time(config)))


def real_time(config: Config) -> Timing:
    """The wall clock's, with replies as they come, or as late as `config.latency` says."""

    def timing(fps: float, link: Link) -> tuple[Clock, AnyLink]:
        clock, model = RealClock(fps), LatencyModel.parse(config.latency)
        return clock, link if model.is_none else LateLink(link, clock, model)

    return timing
