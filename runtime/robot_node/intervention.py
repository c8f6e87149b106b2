"""A person beside a policy: who drives a tick, and what the person commands.

    key                  i             i
    tick         0 1 2 3 4 5 6 7 8 9 10 11
    driven by    . . . . P P P P P P .  .       the policy is asked with what is seen at tick 9, and answers by tick 10

Until the policy has answered, the person goes on: nobody lets the robot starve. A hand that is elsewhere than the robot
is met halfway: what lies between them when it takes over is let go of evenly within MEET_S.

    command      robot + (hand's way since) + its distance at first · share of MEET_S that has passed
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.spec import STATE, Observation, RobotSpec
from tactus.hal.teleop import Teleoperator
from tactus.runtime.robot_node.watcher import PERSON, POLICY, Who


class Intervention:
    """driver: of the tick that is. returning: whether the person has handed back and the policy not answered yet.

    robot: which is driven. meet_s: seconds in which robot and hand meet; the robot's own speed limit holds besides.
    """

    def __init__(self, teleoperator: Teleoperator, robot: RobotSpec, meet_s: float) -> None:
        self._teleoperator = teleoperator
        self._absolute = np.array([mode == "absolute" for mode in robot.action.mode] or False)
        self._dtype = np.dtype(robot.action.dtype)
        self._step = 1 / max(1.0, meet_s * robot.fps)
        self._fence = Fence("teleop", "decide")
        self._pressed = threading.Event()
        self.begin()

    def begin(self) -> None:
        """An episode begins, and the policy drives."""
        self.driver: Who = POLICY
        self.returning = False
        self._apart: np.ndarray | None = None
        self._share = 0.0
        self._pressed.clear()

    def press(self) -> None:
        """The person takes over, or hands back, in the tick that begins next; from any thread."""
        self._pressed.set()

    def look(self, observe: Callable[[], Observation], last: np.ndarray | None) -> None:
        """A tick begins: whose it is. last: the command before."""
        with self._fence:
            self._teleoperator.look(observe)
            wants = self._teleoperator.wants()
            if self.driver == POLICY and last is not None and not wants:
                self._teleoperator.follow(last)
        drives = self.driver == PERSON and not self.returning
        if self._pressed.is_set():
            self._pressed.clear()
            wants = not drives
        if wants is None or wants == drives:
            return
        self.returning = self.driver == PERSON and not wants
        if self.driver == POLICY:
            self.driver, self._apart, self._share = PERSON, None, 0.0
            seen = observe().arrays
            with Fence("teleop", "reset"):
                self._teleoperator.reset(seen[STATE] if STATE in seen else np.empty(0, np.float32))

    def decide(self, last: np.ndarray | None) -> np.ndarray | None:
        """The person's command; None if there is none, and the robot holds. last: the command before."""
        with self._fence:
            action = self._teleoperator.decide()
        if action is None or last is None:
            return action
        if self._apart is None:
            self._apart = np.where(self._absolute, last - action, 0)
        met = action + self._apart * max(0.0, 1 - self._share)
        self._share += self._step
        return met.astype(self._dtype)

    def answered(self) -> None:
        """The policy has answered, and drives from this tick on."""
        self.driver, self.returning = POLICY, False

    def events(self) -> list[str]:
        """What a person should be told, since the last call."""
        with Fence("teleop", "events"):
            return self._teleoperator.events()
