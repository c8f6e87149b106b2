"""A robot attended by a person, who puts the scene in order before each episode and judges how it went."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tactus.hal.robot import Outcome, Robot, RobotError
from tactus.hal.wrappers.wrapper import RobotWrapper

HINT = "Enter: begin; then s: success, f: failure"
LOOK_S = 0.1
"""While it waits for the person, it looks so often whether it was stopped."""


class AttendedRobot(RobotWrapper):
    """`robot`, which cannot tell how an episode went; `press` is called with the person's keys, from any thread.

    `reset` goes to the starting pose, then waits for Enter; s or f ends the episode as a success or a failure.
    say: where the person is told what is waited for. Raises RobotError if it is stopped while it waits.
    """

    def __init__(self, robot: Robot, say: Callable[[str], None] = print) -> None:
        super().__init__(robot)
        self.say = say
        self._ready = threading.Event()
        self._verdict: bool | None = None
        self._stopped = ""

    @property
    def wall_time(self) -> bool:
        """A person lives in the world's time."""
        return True

    def reset(self, episode: int, seed: int) -> None:
        super().reset(episode, seed)
        self._verdict = None
        self._ready.clear()
        self.say(f"episode {episode}: put the scene in order, then press Enter")
        while not self._ready.wait(LOOK_S):
            if self._stopped:
                raise RobotError(self._stopped)

    def press(self, key: str) -> bool:
        """A key of the terminal; whether it was for this."""
        if key in "\r\n":
            self._ready.set()
        elif key in "sf" and self._ready.is_set():
            self._verdict = key == "s"
        else:
            return False
        return True

    def stop(self, reason: str) -> None:
        self._stopped = reason
        super().stop(reason)

    def outcome(self) -> Outcome:
        judged = self._verdict is not None
        return Outcome(success=bool(self._verdict), done=judged, reward=float(bool(self._verdict)))
