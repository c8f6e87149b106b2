"""The teleoperation node: a robot driven by a person's device on the beat, watched and recorded like a policy's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.robot import Robot
from tactus.hal.spec import STATE
from tactus.hal.teleop import Teleoperator
from tactus.runtime.robot_node.clock import Clock
from tactus.runtime.robot_node.control_loop import ControlLoop
from tactus.runtime.robot_node.watcher import PERSON, TickView

LOOK_S = 0.1
"""While it waits for a person, it looks so often whether it was stopped."""


class TeleopNode(ControlLoop):
    """Runs episodes of `robot` as `teleoperator` decides, on `clock`, until the person ends them; the counterpart of
    RobotNode."""

    asks: bool = False
    """Whether each episode begins only when `enter` is called."""

    def __init__(
        self,
        robot: Robot,
        teleoperator: Teleoperator,
        clock: Clock,
        max_ticks: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(robot, clock, max_ticks, say)
        self._teleoperator = teleoperator
        self._entered = threading.Event()
        self._deciding = Fence("teleop", "decide")

    def enter(self) -> None:
        """The person begins the episode, or ends it; from any thread."""
        self._entered.set()

    def _start(self, episode: int, seed: int) -> None:
        self._wait_for_person(episode)
        self._task = self._begin(episode, seed)
        self._robot.reset(episode, seed)
        seen = self._robot.observe().arrays
        with Fence("teleop", "reset"):
            self._teleoperator.reset(seen[STATE] if STATE in seen else np.empty(0, np.float32))
        self._clock.start()

    def _wait_for_person(self, episode: int) -> None:
        self._entered.clear()
        if self.asks:
            self._say(f"episode {episode}: Enter when the scene is ready")
            while not self._entered.wait(LOOK_S):
                self._check_stopped()
            self._entered.clear()

    def _decide(self, tick: int, last: np.ndarray | None) -> TickView | None:
        self._check_stopped()
        with self._deciding:
            self._teleoperator.look(lambda: replace(self._robot.observe(), tick=tick, task=self._task))
            action = None if self._entered.is_set() else self._teleoperator.decide()
        if action is None:
            return None
        self._stats.sources.append(tick)
        return TickView(
            tick, action, False, 0, self._robot.observe, at=tick, lateness_s=self._clock.lateness_s, driver=PERSON
        )

    def _events(self) -> list[str]:
        with Fence("teleop", "events"):
            return [*self._robot.events(), *self._teleoperator.events()]
