"""A robot's link to its policy node, or to several: one after another for a comparison, or one in another's place."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tactus.hal.robot import Robot
from tactus.runtime.commands.config import Eval, Record, Run
from tactus.runtime.evaluation.ab_comparison import ARMS, Comparison, Turn, draw
from tactus.runtime.robot_node.fallback_links import FallbackLinks
from tactus.runtime.robot_node.several_links import DrawnLinks, SeveralLinks
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.link import Link, Tap

AnyLinks = Link | SeveralLinks


def links_of(config: Run | Eval | Record, robot: Robot, tap: Tap, say: Callable[[str], None]) -> AnyLinks:
    """Not introduced yet. Raises Unreachable for an address that is none."""
    falls_back = isinstance(config, Run) and len(config.endpoints) > 1
    endpoints = config.policies or (config.endpoints if falls_back else [config.connect])
    numbers = itertools.count(1)
    links: list[Link] = []
    try:
        for endpoint in endpoints:
            links.append(Link(endpoint, None, client_keys(config.curve), config.insecure, config.wire, numbers))
    except BaseException:
        for link in links:
            link.close()
        raise
    for link in links:
        link.tap, link.say = tap, say
    if config.policies:
        for link in links:
            link.takes_swaps = False  # who is compared stays who it is
        turns = _turns(config, robot)
        return DrawnLinks(links, lambda episode: turns[episode].arm)
    if isinstance(config, Run) and falls_back:
        return FallbackLinks(links, config.fallback_after_s, config.return_after_s, config.request_timeout_s)
    return links[0]


def comparison_of(config: Run | Eval | Record, robot: Robot, links: AnyLinks) -> Comparison | None:
    """None where nothing is compared. links: introduced."""
    if not isinstance(links, DrawnLinks):
        return None
    names = {arm: policy.identity for arm, policy in zip(ARMS, links.policies, strict=True)}
    return Comparison(_turns(config, robot), names, config.alpha, config.stop_when_decided)


def _turns(config: Run | Eval | Record, robot: Robot) -> list[Turn]:
    return draw([robot.scene(episode).group for episode in range(config.episodes)], config.seed)
