"""`tactus run`: a robot node in real time; latency is what network and policy really take, and what is asked for."""

from __future__ import annotations

from tactus.runtime.commands.config import Record, Run
from tactus.runtime.commands.drivers import Timing, by_policy
from tactus.runtime.commands.episodes import run_episodes
from tactus.runtime.robot_node.clock import Clock, RealClock
from tactus.runtime.robot_node.delayed_link import RealDelayedLink
from tactus.runtime.robot_node.node import AnyLink
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import TimedLink


def main(config: Run, arguments: list[str]) -> int:
    """Exit status 0 when every episode ran, whatever its success."""
    return run_episodes("run", config, by_policy(config, real_time(config)))


def real_time(config: Run | Record) -> Timing:
    """The wall clock's, with replies as they come, or as late as `config.latency` says."""

    def timing(fps: float, link: TimedLink) -> tuple[Clock, AnyLink]:
        clock, model = RealClock(fps), LatencyModel.parse(config.latency)
        return clock, link if model.is_none else RealDelayedLink(link, clock, model)

    return timing
