"""A link in real time whose replies are late: a latency model on top of what the network and the policy take.

    tick        4    5    6    7
    request     *
    fixed:2               visible       or later, if the policy really took longer

The same models as in virtual time (tactus.runtime.robot_node.virtual_delayed_link); `measured` adds nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tactus.hal.spec import Observation
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.wire.latency import Delivery, LatencyModel, LatencySampler
from tactus.runtime.wire.link import Link, Reply

ROUNDING_S = 1e-6


@dataclass
class _Held:
    """A request's fate: when its reply may be seen (time.perf_counter), and the reply once it is there."""

    due_s: float
    delivery: Delivery
    reply: Reply | None = None


class RealDelayedLink:
    """Wraps a Link for a robot node on a RealClock. A reply becomes visible at the tick that virtual time would have it
    at, or when it really comes, whichever is later."""

    def __init__(self, link: Link, clock: RealClock, model: LatencyModel) -> None:
        self._link = link
        self._clock = clock
        self._model = model
        self._sampler: LatencySampler | None = None
        self._held: dict[int, _Held] = {}
        self._visible: list[Reply] = []
        self._overtaken: list[Reply] = []

    def reset(self, episode: int, seed: int, task: str) -> None:
        """Open an episode; its delays follow from seed and episode alone. What is still on its way is forgotten."""
        self._held, self._visible, self._overtaken = {}, [], []
        self._sampler = self._model.sampler(self._clock.fps, seed, episode)
        self._link.reset(episode, seed, task)

    def request(self, observation: Observation, ticks_left: int, merged: int, delay_ticks: int | None = None) -> int:
        """As Link.request."""
        assert self._sampler is not None, "reset first"
        began_s = self._clock.tick_began_s()
        seq = self._link.request(observation, ticks_left, merged, delay_ticks)
        delivery = self._sampler.draw()
        self._held[seq] = _Held(began_s + delivery.ticks / self._clock.fps, delivery)
        return seq

    def poll(self) -> list[Reply]:
        """Replies that have come and are due."""
        self._take()
        visible, self._visible = self._visible, []
        return visible

    def wait(self, timeout_s: float) -> bool:
        """Wait until `poll` has something to give; False after timeout_s."""
        until_s = time.perf_counter() + timeout_s
        while True:
            self._take()
            left_s = until_s - time.perf_counter()
            if self._visible or left_s <= 0:
                return bool(self._visible)
            due_s = min((h.due_s for h in self._held.values() if h.reply and not h.delivery.dropped), default=until_s)
            self._link.wait(max(0.0, min(left_s, due_s - time.perf_counter())))

    def ping(self) -> None:
        """As Link.ping."""
        self._link.ping()

    @property
    def silent_s(self) -> float:
        """As Link.silent_s."""
        return self._link.silent_s

    def close(self) -> None:
        """Close the wrapped link."""
        self._link.close()

    def _take(self) -> None:
        for reply in self._link.poll():
            held = self._held.get(reply.seq)
            if held is None:  # not an answer to a request, or a second one
                self._visible.append(reply)
            else:
                held.reply = reply
        now_s = time.perf_counter() + ROUNDING_S
        for seq, held in [*self._held.items()]:
            if held.reply is None or held.due_s > now_s:
                continue
            del self._held[seq]
            if held.delivery.overtaken:
                self._overtaken.append(held.reply)
            elif not held.delivery.dropped:
                self._visible += [held.reply, *self._overtaken]
                self._overtaken = []
