"""`tactus eval`: episodes in virtual time, where a latency model decides when the policy's answers arrive."""

from __future__ import annotations

from tactus.runtime.commands.config import Eval, Record
from tactus.runtime.commands.drivers import Timing, by_policy
from tactus.runtime.commands.episodes import run_episodes
from tactus.runtime.robot_node.clock import Clock, VirtualClock
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import AnyLink
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import TimedLink


def main(config: Eval, arguments: list[str]) -> int:
    """Exit status 0 when every episode ran, whatever its success. One worker and no sweep: all in this process."""
    if config.shared:
        from tactus.runtime.commands.workers import run_workers

        return run_workers(config, arguments)
    return run_episodes("eval", config, by_policy(config, virtual_time(config)))


def virtual_time(config: Eval | Record) -> Timing:
    """Ticks only: replies arrive when `config.latency` says."""

    def timing(fps: float, link: TimedLink) -> tuple[Clock, AnyLink]:
        clock = VirtualClock(fps)
        return clock, VirtualDelayedLink(link, clock, LatencyModel.parse(config.latency), config.lost_after_s)

    return timing
