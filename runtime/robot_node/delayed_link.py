"""Links whose replies are late as a latency model says: in virtual time, and in real time on top of what is real.

tick        4    5    6    7
request     *
fixed:2               visible       virtual: however long the policy really took
                                    real: or later, if it took longer
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tactus.hal.spec import Observation, PolicySpec
from tactus.runtime.robot_node.clock import Clock, RealClock, VirtualClock
from tactus.runtime.wire.latency import Delivery, LatencyModel, LatencySampler
from tactus.runtime.wire.link import Continue, LinkError, Reply, Restarted, TimedLink

LOOK_S = 0.1
ROUNDING_S = 1e-6


class _DelayedLink:
    """What both have in common: a link, and a fate for each of its replies."""

    def __init__(self, link: TimedLink, clock: Clock, model: LatencyModel) -> None:
        self._link = link
        self._fps = clock.fps
        self._model = model
        self._sampler: LatencySampler | None = None
        self._overtaken: list[Reply] = []

    def reset(self, episode: int, seed: int, task: str) -> None:
        """Open an episode; its delays follow from seed and episode alone. What is still on its way is forgotten."""
        self._overtaken = []
        self._sampler = self._model.sampler(self._fps, seed, episode)
        self._link.reset(episode, seed, task)

    def ping(self) -> None:
        """As Link.ping."""
        self._link.ping()

    @property
    def silent_s(self) -> float:
        """As Link.silent_s: wall time, since that is where a policy node dies."""
        return self._link.silent_s

    @property
    def policy(self) -> PolicySpec:
        """As Link.policy."""
        return self._link.policy

    def close(self) -> None:
        """Close the wrapped link."""
        self._link.close()

    def _draw(self, inference_ms: float = 0.0) -> Delivery:
        assert self._sampler is not None, "reset first"
        return self._sampler.draw(inference_ms)

    def _deliver(self, reply: Reply, delivery: Delivery) -> list[Reply]:
        """The replies that are seen now that this one is due: one that is overtaken waits for the next."""
        if delivery.overtaken:
            self._overtaken.append(reply)
            return []
        seen, self._overtaken = [reply, *self._overtaken], []
        return seen


@dataclass
class _Pending:
    """delivery: None while the delay is not known, since it is that of the reply."""

    seq: int
    tick: int
    delivery: Delivery | None
    reply: Reply | None = None


class VirtualDelayedLink(_DelayedLink):
    """Wraps a Link for a robot node on a VirtualClock. `lost_after_s`: wall time without a sign of life.

    The simulator goes on stepping while the policy thinks; it waits only where a reply is due and not there yet. Raises
    Restarted where a policy node comes back in mid-episode: going on would give an episode that cannot be repeated.
    """

    def __init__(self, link: TimedLink, clock: VirtualClock, model: LatencyModel, lost_after_s: float) -> None:
        super().__init__(link, clock, model)
        self._clock = clock
        self._lost_after_s = lost_after_s
        self._pending: list[_Pending] = []
        self._resumed = link.resumed
        self._answered = False

    def reset(self, episode: int, seed: int, task: str) -> None:
        """As _DelayedLink.reset."""
        self._pending = []
        self._resumed, self._answered = self._link.resumed, False
        super().reset(episode, seed, task)

    def request(self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None) -> int:
        """As Link.request. Replies still on their way are fetched first: the node keeps only the newest request."""
        for pending in self._pending:
            self._await(pending)
        self._pending = [pending for pending in self._pending if pending.delivery and not pending.delivery.dropped]
        seq = self._link.request(observation, ticks_left, merged, continued)
        self._pending.append(_Pending(seq, self._clock.tick, None if self._model.needs_reply else self._draw()))
        return seq

    def wait(self, timeout_s: float) -> bool:
        """Wait for the oldest reply, and make it visible now: the robot does not move before tick 0."""
        for pending in self._pending:
            self._await(pending)
            pending.tick, pending.delivery = self._clock.tick, Delivery(0)
        return bool(self._pending)

    def poll(self) -> list[Reply]:
        """Replies that become visible at the clock's tick or did before it."""
        visible, waiting = [], []
        for pending in self._pending:
            if pending.delivery is None:
                self._await(pending)
            assert pending.delivery is not None
            if pending.delivery.dropped or pending.tick + pending.delivery.ticks > self._clock.tick:
                waiting.append(pending)
            else:
                visible += self._deliver(self._await(pending), pending.delivery)
        self._pending = waiting
        return visible

    def _await(self, pending: _Pending) -> Reply:
        """Block in wall time until this request's reply is there; the link's pings tell a slow policy from a dead
        one. A link that nothing was asked of for a while had no reason to hear anything: silence counts from here."""
        began_s = time.monotonic()
        while pending.reply is None:
            self._link.wait(LOOK_S)
            for reply in self._link.poll():
                if reply.seq in (pending.seq, 0):
                    pending.reply = reply
            if min(self._link.silent_s, time.monotonic() - began_s) > self._lost_after_s:
                raise LinkError(
                    f"the policy node at {self._link.endpoint} has been silent for {self._lost_after_s:g} s"
                )
        restarted, self._resumed = self._link.resumed != self._resumed, self._link.resumed
        if restarted and self._answered:
            raise Restarted(f"the policy node at {self._link.endpoint} was started again in mid-episode")
        self._answered = True
        if pending.delivery is None:
            pending.delivery = self._draw(pending.reply.inference_ms)
        return pending.reply


@dataclass
class _Held:
    """A request's fate: when its reply may be seen (time.perf_counter), and the reply once it is there."""

    due_s: float
    delivery: Delivery
    reply: Reply | None = None


class RealDelayedLink(_DelayedLink):
    """Wraps a Link for a robot node on a RealClock. A reply becomes visible at the tick that virtual time would have it
    at, or when it really comes, whichever is later; the model `measured` adds nothing."""

    def __init__(self, link: TimedLink, clock: RealClock, model: LatencyModel) -> None:
        super().__init__(link, clock, model)
        self._clock = clock
        self._held: dict[int, _Held] = {}
        self._visible: list[Reply] = []

    def reset(self, episode: int, seed: int, task: str) -> None:
        """As _DelayedLink.reset."""
        self._held, self._visible = {}, []
        super().reset(episode, seed, task)

    def request(self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None) -> int:
        """As Link.request."""
        began_s = self._clock.tick_began_s()
        seq = self._link.request(observation, ticks_left, merged, continued)
        delivery = self._draw()
        self._held[seq] = _Held(began_s + delivery.ticks / self._fps, delivery)
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
            if not held.delivery.dropped:
                self._visible += self._deliver(held.reply, held.delivery)
