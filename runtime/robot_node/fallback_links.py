"""Links to several policy nodes in order of preference: when the one that is asked falls silent, the next one goes on.

    first     ─ answers ───╳ killed            started again · answers pings for return_after_s ·│ answers
    second    ─ pings ─────│ fallback_after_s │ answers ················································│ pings

All of them hear of every episode, so that any can go on; the policy that takes over is asked for the present
observation at once, while the robot still executes what is queued. Chunks may differ in length: queues count by tick.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tactus.hal.spec import Observation
from tactus.runtime.robot_node.several_links import SeveralLinks
from tactus.runtime.wire.link import Continue, Link, LinkError, Reply, Stopped

ERRORS = 3
"""In a row, after which a policy counts as one that does not answer."""


@dataclass
class _Health:
    """well_since_s: since when it has answered without a break, None while it does not. errors: in a row. out: why it
    is of no use any more, to the end of the run."""

    well_since_s: float | None = None
    errors: int = 0
    out: str = ""


class FallbackLinks(SeveralLinks):
    """For real time. fallback_after_s: how long the one that is asked may be silent. return_after_s: how long one that
    is preferred must have answered without a break before it is asked again. overdue_s: how long a request may go
    unanswered by a policy node that does answer pings."""

    def __init__(self, links: Sequence[Link], fallback_after_s: float, return_after_s: float, overdue_s: float) -> None:
        super().__init__(links)
        self._fallback_after_s, self._return_after_s, self._overdue_s = fallback_after_s, return_after_s, overdue_s
        self._health = [_Health(well_since_s=0.0) for _ in links]
        self._requested_s: float | None = None
        self._seq = 0
        self._news: list[Reply] = []

    @property
    def silent_s(self) -> float:
        """As Link.silent_s, of the one that was heard last."""
        return min(link.silent_s for link in self._links)

    def reset(self, episode: int, seed: int, task: str) -> None:
        """Open the episode at all of them."""
        self._requested_s = None
        for index, link in enumerate(self._links):
            self._health[index].errors = 0
            link.reset(episode, seed, task)
        self._news = [Reply(0, error=f"{self.endpoint} begins in another's place", again=True)] if self._asked else []

    def request(self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None) -> int:
        """As Link.request, to the one that is asked."""
        self._seq = super().request(observation, ticks_left, merged, continued)
        if self._requested_s is None:  # else it has been owed since then
            self._requested_s = time.monotonic()
        return self._seq

    def poll(self) -> list[Reply]:
        """As Link.poll, of the one that is asked; and a Reply that says so when another is asked from now on. Raises
        Stopped after a STOP from any."""
        replies, self._news = self._news, []
        for index, link in enumerate(self._links):
            found = self._heard(index, link)
            if index == self._asked:
                self._take_note(found)
                replies += found
        now_s = time.monotonic()
        why = self._why_not(self._asked, now_s)
        better = [i for i in range(self._asked) if self._is_well(i, now_s)]
        if better:
            name = self._links[better[0]].endpoint
            return [*replies, self._ask(better[0], f"{name} has answered for {self._return_after_s:g} s: it goes on")]
        others = [i for i in range(len(self._links)) if i != self._asked and not self._why_not(i, now_s)]
        if all(health.out for health in self._health):
            raise LinkError(why)
        if why and others:
            return [*replies, self._ask(others[0], f"{why}; {self._links[others[0]].endpoint} goes on")]
        return replies

    def _heard(self, index: int, link: Link) -> list[Reply]:
        """What has come, and what that says of the link's health."""
        health = self._health[index]
        replies: list[Reply] = []
        try:
            replies = link.poll()
        except Stopped:
            raise
        except LinkError as error:
            health.out = health.out or " ".join(str(error).split())
        link.probe()
        if not link.unanswered_s:
            health.well_since_s = time.monotonic() if health.well_since_s is None else health.well_since_s
        elif link.unanswered_s > self._fallback_after_s:
            health.well_since_s = None
        return replies

    def _take_note(self, replies: Sequence[Reply]) -> None:
        """Of answers to what was asked."""
        health = self._health[self._asked]
        for reply in replies:
            health.errors = 0 if reply.chunk is not None else health.errors + 1
            if reply.seq in (0, self._seq):
                self._requested_s = None

    def _why_not(self, index: int, now_s: float) -> str:
        """Why a policy node cannot be relied on; empty if it can."""
        health, link, name = self._health[index], self._links[index], self._links[index].endpoint
        if health.out:
            return f"{name}: {health.out}"
        if health.well_since_s is None:
            return f"{name} has been silent for {link.unanswered_s:.2f} s"
        if health.errors >= ERRORS:
            return f"{name} has reported {health.errors} errors in a row"
        if index == self._asked and self._requested_s is not None and now_s - self._requested_s > self._overdue_s:
            return f"{name} answers pings, and has owed a chunk for {now_s - self._requested_s:.2f} s"
        return ""

    def _is_well(self, index: int, now_s: float) -> bool:
        """Whether one that is preferred may be asked again."""
        since_s = self._health[index].well_since_s
        return since_s is not None and now_s - since_s > self._return_after_s and not self._why_not(index, now_s)

    def _ask(self, index: int, why: str) -> Reply:
        """Another one from now on."""
        left = self._health[self._asked]
        if left.errors or self._requested_s is not None:  # it has to prove itself anew
            left.errors, left.well_since_s = 0, time.monotonic()
        self._asked, self._requested_s = index, None
        return Reply(0, error=why, again=True)
