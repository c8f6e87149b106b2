"""Plays episodes of a sweep in virtual time: one robot, one link, and for each cell its own latency and RobotNode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

import cv2
import numpy as np

from tactus.hal.config import Config
from tactus.hal.robot import RobotConfig
from tactus.hal.spec import PolicySpec
from tactus.hal.wrappers.checked import make
from tactus.hal.wrappers.noise import NoisyRobot
from tactus.runtime.evaluation.video import side_by_side
from tactus.runtime.lab.sweep_settings import Cell
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import episode_row, episode_timing
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import TickView, Watcher
from tactus.runtime.wire.config import ClientCurve
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link, LinkError, Refused

FRAMES = 6
"""Pictures of an episode on a strip."""
STRIP_PX = 144
"""Height of a camera's part of a strip."""
STRIP_WIDTH_PX = 3 * STRIP_PX
"""A picture on a strip is no wider."""


class WorkerConfig(Config):
    """What all workers of an experiment have in common but their endpoint. loop: each cell replaces its part of it."""

    robot: RobotConfig
    loop: LoopConfig = field(default_factory=LoopConfig)
    seed: int = 1000
    episodes: int = 1
    action_noise: float = 0.0
    action_noise_ticks: int = 1
    curve: ClientCurve = field(default_factory=ClientCurve)
    insecure: bool = False


class EpisodeRunner:
    """Raises what making the robot raises; Refused or Unreachable if there is no policy node for it at `endpoint`."""

    def __init__(self, config: WorkerConfig, endpoint: str) -> None:
        self._config = config
        self._endpoint = endpoint
        robot = make(config.robot)
        self.robot = NoisyRobot(robot, config.action_noise, config.action_noise_ticks) if config.action_noise else robot
        self.said: list[str] = []
        """What the robot nodes had to report: errors of the policy, silences."""
        try:
            self.policy = self._connect(config.loop.first_wait_s)
            self.robot.connect()
        except BaseException:
            self.close()
            raise

    def _connect(self, timeout_s: float) -> PolicySpec:
        """Over a new link, which is open only if a policy node has answered."""
        self._link = Link(self._endpoint, keys=client_keys(self._config.curve), insecure=self._config.insecure)
        self._nodes: dict[Cell, RobotNode] = {}
        try:
            return self._link.hello(self.robot.spec, timeout_s, real_time=False)
        except BaseException:
            self._link.close()
            raise

    def play(self, cell: Cell, episode: int, watchers: Sequence[Watcher] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
        """An episode from its beginning: its lines for episodes.jsonl and timings.jsonl.

        Raises LinkError if the policy node was lost meanwhile: what it kept of the episode is gone, and going on
        would give another episode than the one that can be repeated. The next call waits for the node to come back,
        and raises Refused or Unreachable if it does not, or is another.
        """
        if self._link.closed:
            policy = self._connect(self._config.loop.start_timeout_s)
            if policy != self.policy:
                self._link.close()
                raise Refused([f"{self._endpoint} now serves {policy.name}, another policy than {self.policy.name}"])
        try:
            stats = self._node(cell).run_episode(episode, self._config.seed, watchers)
        except LinkError:
            self._link.close()
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
            link = VirtualDelayedLink(self._link, clock, LatencyModel.parse(cell.latency), loop.lost_after_s)
            self._nodes[cell] = RobotNode(self.robot, self.policy, link, clock, loop, say=self.said.append)
        return self._nodes[cell]

    def close(self) -> None:
        """Say goodbye and let go of the robot."""
        if hasattr(self, "_link"):
            self._link.close()
        self.robot.close()


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
