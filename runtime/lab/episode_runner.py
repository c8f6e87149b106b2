"""Plays episodes of a sweep in virtual time: one robot, a link to each policy, and for each cell its own latency and
RobotNode."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import cv2
import numpy as np

from tactus.hal.config import Config
from tactus.hal.robot import RobotConfig
from tactus.hal.spec import PolicySpec
from tactus.hal.wrappers.checked import make
from tactus.hal.wrappers.disturbance import Disturbance
from tactus.runtime.evaluation.video import side_by_side
from tactus.runtime.lab.sweep_settings import Cell
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import episode_row, episode_timing
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import TickView, Watcher
from tactus.runtime.wire.config import ClientCurve, WireConfig
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link, LinkError, Refused, Unreachable

FRAMES = 6
"""Pictures of an episode on a strip."""
STRIP_PX = 144
"""Height of a camera's part of a strip."""
STRIP_WIDTH_PX = 3 * STRIP_PX
"""A picture on a strip is no wider."""
LEAST_WAIT_S = 1.0
"""What a policy node has to answer in at least, however long others have taken."""


class WorkerConfig(Config):
    """What all workers of an experiment have in common but their endpoints. loop: each cell replaces its part of it."""

    robot: RobotConfig
    loop: LoopConfig = field(default_factory=LoopConfig)
    seed: int = 1000
    episodes: int = 1
    disturbance: Disturbance = field(default_factory=Disturbance)
    curve: ClientCurve = field(default_factory=ClientCurve)
    insecure: bool = False
    wire: WireConfig = field(default_factory=WireConfig)


class EpisodeRunner:
    """endpoints: of the policy nodes, by the policies' names, "" for the only one.

    Raises what making the robot raises; Refused or Unreachable, naming every policy, if there is no node for it.
    """

    link_type = Link

    def __init__(self, config: WorkerConfig, endpoints: Mapping[str, str]) -> None:
        self._config = config
        self._endpoints = endpoints
        self._links: dict[str, Link] = {}
        self._nodes: dict[Cell, RobotNode] = {}
        self.robot = config.disturbance.applied_to(make(config.robot))
        self.said: list[str] = []
        """What the robot nodes had to report: errors of the policy, silences."""
        try:
            self.policies = self._greet(config.loop.first_wait_s)
            self.robot.connect()
        except BaseException:
            self.close()
            raise

    def _greet(self, timeout_s: float) -> dict[str, PolicySpec]:
        """The spec of each policy: all are asked, within timeout_s, before anything is said of those that fail."""
        until_s = time.monotonic() + timeout_s
        specs: dict[str, PolicySpec] = {}
        refused, silent = [], []
        for name in self._endpoints:
            try:
                specs[name] = self._connect(name, round(max(LEAST_WAIT_S, until_s - time.monotonic()), 1))
            except Refused as error:
                refused += [_of(name, reason) for reason in error.reasons]
            except Unreachable as error:
                silent.append(_of(name, str(error)))
        if refused:
            raise Refused([*refused, *silent])
        if silent:
            raise Unreachable("\n".join(silent))
        return specs

    def _connect(self, name: str, timeout_s: float) -> PolicySpec:
        """Over a new link, which is open only if a policy node has answered."""
        endpoint = self._endpoints[name]
        config = self._config
        link = self.link_type(endpoint, None, client_keys(config.curve), config.insecure, config.wire)
        link.say = self._say_of(name)
        self._links[name] = link
        self._nodes = {cell: node for cell, node in self._nodes.items() if cell.policy != name}
        try:
            return link.hello(self.robot.spec, timeout_s, real_time=False)
        except BaseException:
            link.close()
            raise

    def play(self, cell: Cell, episode: int, watchers: Sequence[Watcher] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
        """An episode from its beginning: its lines for episodes.jsonl and timings.jsonl.

        Raises LinkError if the policy node was lost meanwhile: what it kept of the episode is gone, and going on
        would give another episode than the one that can be repeated. The next call waits for the node to come back,
        and raises Refused or Unreachable if it does not, or is another.
        """
        name = cell.policy
        if self._links[name].closed:
            policy, known = self._connect(name, self._config.loop.start_timeout_s), self.policies[name]
            if policy != known:
                self._links[name].close()
                served = f"{self._endpoints[name]} now serves {policy.name}, another policy than {known.name}"
                raise Refused([_of(name, served)])
        try:
            stats = self._node(cell).run_episode(episode, self._config.seed, watchers)
        except LinkError:
            self._links[name].close()
            raise
        row = episode_row(episode, self._config.seed, self.robot.scene(episode), stats)
        return row, episode_timing(episode, stats)

    def film(self, cell: Cell, episode: int, ticks: int) -> tuple[dict[str, Any], bytes]:
        """Play it once more: its line, and a JPEG with FRAMES moments from the first tick to the last, cameras above
        each other; no bytes without a camera."""
        strip = _FilmStrip(ticks, [name for name, feature in self.robot.spec.observations.items() if feature.is_image])
        row, _ = self.play(cell, episode, [strip] if strip.cameras else [])
        return row, strip.jpeg()

    def _node(self, cell: Cell) -> RobotNode:
        if cell not in self._nodes:
            clock = VirtualClock(self.robot.spec.fps)
            loop = replace(
                self._config.loop,
                aggregate=cell.aggregate,
                chunk_size_threshold=cell.chunk_size_threshold,
                execution_horizon=cell.execution_horizon,
            )
            model, policy = LatencyModel.parse(cell.latency), self.policies[cell.policy]
            link = VirtualDelayedLink(self._links[cell.policy], clock, model, loop.lost_after_s)
            self._nodes[cell] = RobotNode(self.robot, policy, link, clock, loop, say=self._say_of(cell.policy))
        return self._nodes[cell]

    def _say_of(self, name: str) -> Callable[[str], None]:
        return lambda line: self.said.append(_of(name, line))

    def close(self) -> None:
        """Say goodbye and let go of the robot."""
        for link in self._links.values():
            link.close()
        self.robot.close()


def _of(name: str, text: str) -> str:
    """Where there are several policies, which one it is about."""
    return f"{name}: {text}" if name else text


class _FilmStrip(Watcher):
    """Keeps a few pictures of an episode whose length is known."""

    def __init__(self, ticks: int, cameras: list[str]) -> None:
        self.cameras = cameras
        self._wanted = {int(tick) for tick in np.linspace(0, max(0, ticks - 1), FRAMES)}
        self._frames: list[np.ndarray] = []

    def before(self, view: TickView) -> None:
        if view.tick in self._wanted:
            arrays = view.observe().arrays
            pictures = [side_by_side([arrays[name]], STRIP_PX, STRIP_WIDTH_PX) for name in self.cameras]
            widest = max(picture.shape[1] for picture in pictures)
            self._frames.append(
                np.concatenate([np.pad(each, [(0, 0), (0, widest - each.shape[1]), (0, 0)]) for each in pictures])
            )

    def jpeg(self) -> bytes:
        if not self._frames:
            return b""
        picture = cv2.cvtColor(np.concatenate(self._frames, axis=1), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
