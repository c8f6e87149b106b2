"""A link in virtual time: a latency model decides at which tick a reply becomes visible.

    tick        4    5    6    7
    request     *
    fixed:2               visible       however long the policy really took

The simulator goes on stepping while the policy thinks; it waits only where a reply is due and not there yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from tactus.hal.spec import Observation
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.wire.latency import Delivery, LatencyModel, LatencySampler
from tactus.runtime.wire.link import Link, LinkError, Reply, Restarted

LOOK_S = 0.1


@dataclass
class _Pending:
    seq: int
    tick: int
    delivery: Delivery | None
    reply: Reply | None = None


class VirtualDelayedLink:
    """Wraps a Link for a robot node on a VirtualClock. `lost_after_s`: wall time without a sign of life.

    Raises Restarted where a policy node comes back in mid-episode: going on would give an episode that cannot be
    repeated.
    """

    def __init__(self, link: Link, clock: VirtualClock, model: LatencyModel, lost_after_s: float) -> None:
        self._link = link
        self._clock = clock
        self._model = model
        self._lost_after_s = lost_after_s
        self._sampler: LatencySampler | None = None
        self._pending: list[_Pending] = []
        self._overtaken: list[Reply] = []
        self._resumed = link.resumed
        self._answered = False

    def reset(self, episode: int, seed: int, task: str) -> None:
        """Open an episode; its delays follow from seed and episode alone. What is still on its way is forgotten."""
        self._pending, self._overtaken = [], []
        self._resumed, self._answered = self._link.resumed, False
        self._sampler = self._model.sampler(self._clock.fps, seed, episode)
        self._link.reset(episode, seed, task)

    def request(self, observation: Observation, ticks_left: int, merged: int, delay_ticks: int | None = None) -> int:
        """As Link.request. Replies still on their way are fetched first: the node keeps only the newest request."""
        for pending in self._pending:
            self._await(pending)
        self._pending = [pending for pending in self._pending if pending.delivery and not pending.delivery.dropped]
        assert self._sampler is not None, "reset first"
        seq = self._link.request(observation, ticks_left, merged, delay_ticks)
        delivery = None if self._model.needs_reply else self._sampler.draw()
        self._pending.append(_Pending(seq, self._clock.tick, delivery))
        return seq

    def wait(self, timeout_s: float) -> bool:
        """Stand still until the oldest reply is there, and make it visible now: nobody moves before tick 0."""
        for pending in self._pending:
            self._await(pending)
            pending.tick, pending.delivery = self._clock.tick, Delivery(0)
        return bool(self._pending)

    def ping(self) -> None:
        """As Link.ping."""
        self._link.ping()

    @property
    def silent_s(self) -> float:
        """As Link.silent_s: wall time, since that is where a policy node dies."""
        return self._link.silent_s

    def poll(self) -> list[Reply]:
        """Replies that become visible at the clock's tick or did before it."""
        visible, waiting = [], []
        for pending in self._pending:
            if pending.delivery is None:
                self._await(pending)
            assert pending.delivery is not None
            if pending.delivery.dropped or pending.tick + pending.delivery.ticks > self._clock.tick:
                waiting.append(pending)
                continue
            reply = self._await(pending)
            if pending.delivery.overtaken:
                self._overtaken.append(reply)
            else:
                visible += [reply, *self._overtaken]
                self._overtaken = []
        self._pending = waiting
        return visible

    def _await(self, pending: _Pending) -> Reply:
        """Block in wall time until this request's reply is there; the link's pings tell a slow policy from a dead
        one."""
        while pending.reply is None:
            self._link.wait(LOOK_S)
            for reply in self._link.poll():
                if reply.seq in (pending.seq, 0):
                    pending.reply = reply
            if self._link.silent_s > self._lost_after_s:
                raise LinkError(
                    f"the policy node at {self._link.endpoint} has been silent for {self._lost_after_s:g} s"
                )
        restarted, self._resumed = self._link.resumed != self._resumed, self._link.resumed
        if restarted and self._answered:
            raise Restarted(f"the policy node at {self._link.endpoint} was started again in mid-episode")
        self._answered = True
        if pending.delivery is None:
            assert self._sampler is not None
            pending.delivery = self._sampler.draw(pending.reply.inference_ms)
        return pending.reply

    def close(self) -> None:
        """Close the wrapped link."""
        self._link.close()
