"""The callbacks of an episode, for whatever watches it: video, dataset, flight recorder, live view, metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tactus.hal.robot import Outcome
from tactus.hal.spec import Observation
from tactus.runtime.robot_node.action_queue import ActionQueue
from tactus.runtime.wire.link import Reply


@dataclass(frozen=True)
class Beginning:
    """An episode that begins: the arguments of Robot.reset, and the instruction."""

    episode: int
    seed: int
    task: str


@dataclass(frozen=True)
class Merged:
    """A chunk that was taken into the queue.

    tick: when. at: that tick's place in the plan. asked: the tick of the observation it answers. stale: how many of its
    actions came too late.
    """

    tick: int
    at: int
    asked: int
    reply: Reply
    stale: int


Who = Literal["policy", "person"]
POLICY: Who = "policy"
PERSON: Who = "person"


@dataclass(frozen=True)
class TickView:
    """One tick as watchers see it, just before the action is sent, and once more when all is over.

    remaining: queued ticks after it. at: the tick's place in the plan, by which chunks count. source: start of the
    newest chunk in the action, -1 if there was none. age_s: since the observation it was decided on. lateness_s: how
    late the tick began. queue: to look at, None where there is none. driver: who decided it.
    """

    tick: int
    action: np.ndarray
    starved: bool
    remaining: int
    observe: Callable[[], Observation]
    at: int = 0
    source: int = -1
    age_s: float = 0.0
    lateness_s: float = 0.0
    queue: ActionQueue | None = None
    driver: Who = POLICY


class Watcher:
    """Watches episodes; a subclass overrides the callbacks it needs. They are called in the robot's own thread, on its
    time: on a real clock they must be quick.

        begin   said*   ( asked? merged* )*   before   after   before   after   …   end
    """

    def begin(self, beginning: Beginning) -> None:
        """The robot is about to be reset for an episode."""

    def asked(self, tick: int, seq: int, observation: Observation) -> None:
        """Request `seq` went out; the observation's own `tick` is its place in the plan."""

    def merged(self, merged: Merged) -> None:
        """A chunk was taken into the queue."""

    def before(self, view: TickView) -> None:
        """The tick's action is about to be sent."""

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        """It was sent. sent: what the robot made of it, after limits."""

    def said(self, tick: int, line: str) -> None:
        """A line for the user: an error of the policy, a silence, what a limit did, a fault."""

    def end(self, view: TickView) -> None:
        """All is over; the last thing to be seen. Not called if the run ends with an error."""
