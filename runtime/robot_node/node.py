"""The robot node: a robot driven by a policy behind a link, through a queue of its action chunks.

tick k:  merge what has arrived · ask if the queue runs low · pop k, or hold · act · wait for k + 1
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import Observation, PolicySpec, SpecError
from tactus.runtime.robot_node.action_queue import RTC, ActionQueue, hold
from tactus.runtime.robot_node.clock import Clock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.control_loop import ControlLoop
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.history import stacked
from tactus.runtime.robot_node.intervention import Intervention
from tactus.runtime.robot_node.stop_listener import listening
from tactus.runtime.robot_node.watcher import PERSON, POLICY, Merged, TickView, Watcher
from tactus.runtime.wire.link import AnyLink, Continue, LinkError, Reply, Stopped

DELAYS_KEPT = 10
"""How many of the latest chunks' delays, in ticks, real-time chunking expects the worst of for the next one."""

"""What a tick without an action does to the plan. pause: it waits with the robot, which stands still and has missed
nothing: the next chunk goes on with the action after the last one executed. skip: it runs on by absolute tick, for a
world that does not wait (a conveyor, a ball).

    tick                  0 1 2 3 4 5 6 7       chunk of 4 asked for at tick 2, there at tick 6
    executed, pause       0 1 2 3 - - c d       c was meant for tick 4, when the robot began to stand still
    executed, skip        0 1 2 3 - - - -       all of it was meant for ticks up to 5
"""


class _InFlight(NamedTuple):
    seq: int
    sent_s: float


class RobotNode(ControlLoop):
    """Runs episodes of `robot` with the policy behind `link`, on `clock`. policy: what the link's policies have in
    common, where it has several or they change; who answers is asked in its own way. person: who may take over.

    Raises SpecError if the policy cannot do what the aggregation needs.
    """

    def __init__(
        self,
        robot: Robot,
        policy: PolicySpec,
        link: AnyLink,
        clock: Clock,
        config: LoopConfig,
        say: Callable[[str], None] = print,
        person: Intervention | None = None,
    ) -> None:
        if config.aggregate == RTC and not policy.takes_prefix:
            raise SpecError(f"aggregate: {RTC} needs a policy that can continue a chunk; {policy.name} cannot")
        steps = config.execution_horizon or policy.n_action_steps or policy.horizon
        if steps > policy.horizon:
            raise SpecError(f"execution_horizon: found {steps}; a chunk of {policy.name} has {policy.horizon} actions")
        super().__init__(robot, clock, config.max_ticks, say)
        self._policy = policy
        self._link = link
        self._person = person
        self._config = config
        self._period_s = 1 / robot.spec.fps
        self._pauses = config.starvation == "pause"
        self._queue = ActionQueue(robot.spec.action, config.aggregate)
        self._history: deque[Observation] = deque(maxlen=1 - policy.observation_offsets[0])
        self._delays: deque[int] = deque(maxlen=DELAYS_KEPT)

    def run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher] = ()) -> EpisodeStats:
        """Reset, wait for the first chunk, then act tick by tick until the outcome is done or max_ticks.

        Raises LinkError if the policy node is silent for too long, or never gives a first chunk, and Stopped, the
        robot having been stopped, after `stop` or a STOP over the link.
        """
        renders = self._robot.renders
        stats = super().run_episode(episode, seed, watchers)
        stats.renders = self._robot.renders - renders
        return stats

    def _start(self, episode: int, seed: int) -> None:
        self._queue.clear()
        self._history.clear()
        self._delays.clear()
        self._in_flight: _InFlight | None = None
        self._asked: dict[int, tuple[int, float]] = {}  # by seq: which request of the episode, and when it began
        self._must_ask = False
        self._merged = 0
        self._at = 0  # the tick's place in the plan, which is what chunks and the policy count by
        self._origins: dict[int, int] = {}  # the tick at which the chunk with this start was asked for
        self._decided = 0  # the tick whose observation the latest action answers
        self._staleness_s: dict[int, float] = {}  # by the tick it was asked at: age of the oldest array then
        self._retry_s = 0.0
        self._last_error = ""
        self._planned_from = 0  # chunks of a plan from before a person took over are not taken in
        if self._person is not None:
            self._person.begin()
            self._stats.by_person = []
        self._stats.policy = self._policy.identity
        self._task = self._begin(episode, seed)
        self._timed("reset", lambda: self._reset(episode, seed))
        self._link.reset(episode, seed, self._task)
        self._wait_for_first_chunk()

    def _reset(self, episode: int, seed: int) -> None:
        """What moves to its start can be stopped over the link meanwhile."""
        if not self._robot.wall_time:
            self._robot.reset(episode, seed)
            return
        with listening(self._link, self._robot.stop):
            self._robot.reset(episode, seed)

    def _wait_for_first_chunk(self) -> None:
        """The start gate: tick 0 begins when its chunk is in the queue; no episode starts by starving."""
        give_up_s = time.monotonic() + self._config.start_timeout_s
        self._clock.start()
        self._remember(0)
        while not self._queue.remaining(0):
            if self._needs_inference():
                self._ask(0)
            self._timed("link", lambda: self._link.wait(0.02))
            self._receive(0)
            if self._last_error and not self._in_flight:
                time.sleep(self._config.error_retry_s)
                self._retry_s = 0.0
            if time.monotonic() > give_up_s:
                reason = f"; the policy's last error: {self._last_error}" if self._last_error else ""
                raise LinkError(f"no first chunk within {self._config.start_timeout_s:g} s{reason}")
        self._clock.start()

    def _decide(self, tick: int, last: np.ndarray | None) -> TickView:
        """Merge what has arrived, ask if the queue runs low, pop the tick's action, or hold."""
        self._remember(tick)
        self._receive(tick)
        if self._person is not None and (view := self._by_person(self._person, tick, last)):
            return view
        if self._needs_inference():
            self._ask(tick)
            self._receive(tick)
        start = self._queue.source(self._at)
        source = self._origins.get(start, -1)
        self._stats.sources.append(source)
        self._decided = source if source >= 0 else self._decided
        action = self._timed("queue", lambda: self._queue.pop(self._at))
        starved = action is None
        if action is None:
            action = hold(last, self._robot.spec.action)
            self._stats.starved_ticks += 1
        age_s = (tick - self._decided) * self._period_s + self._staleness_s.get(self._decided, 0.0)
        return self._view(tick, action, starved, start, age_s)

    def _by_person(self, person: Intervention, tick: int, last: np.ndarray | None) -> TickView | None:
        """The tick as a person decides it; None if it is the policy's."""
        before = person.driver, person.returning
        person.look(lambda: replace(self._robot.observe(), tick=tick, task=self._task), last)
        if before != (person.driver, person.returning):  # what was planned is for a robot that was elsewhere
            self._queue.clear()
            self._in_flight, self._merged, self._planned_from = None, 0, self._at
            if before[0] == POLICY:
                self._report(tick, "a person takes over")
        if person.returning and self._answered(tick, last):
            self._report(tick, "the policy drives again")
            person.answered()
        assert self._stats.by_person is not None
        self._stats.by_person.append(person.driver == PERSON)
        if person.driver == POLICY:
            return None
        action = person.decide(last)
        starved = action is None
        self._stats.sources.append(-1 if starved else tick)
        self._stats.starved_ticks += starved
        view = self._view(tick, hold(last, self._robot.spec.action) if action is None else action, starved, -1, 0.0)
        return replace(view, driver=PERSON)

    def _answered(self, tick: int, last: np.ndarray | None) -> bool:
        """Whether the policy, which is asked anew with what is seen now, has answered the person who hands back. A
        policy node that is lost is told of, and the person goes on."""
        try:
            if self._needs_inference():
                self._ask(tick, hold(last, self._robot.spec.action))
                self._receive(tick)
        except Stopped:
            raise
        except LinkError as error:
            self._in_flight = None
            self._retry_s = self._clock.now_s() + self._config.request_timeout_s
            self._report(tick, f"cannot hand back yet: {error}")
        return self._queue.remaining(self._at) > 0

    def _events(self) -> list[str]:
        return [*super()._events(), *([] if self._person is None else self._person.events())]

    def _receive(self, now: int) -> None:
        self._check_stopped()
        for reply in self._timed("link", self._link.poll):
            if reply.again:
                self._hand_over(now, reply.error)
                continue
            answered = self._in_flight is not None and reply.seq in (self._in_flight.seq, 0)
            if reply.chunk is None:
                self._last_error = reply.error
                self._stats.policy_errors += 1
                self._report(now, f"the policy node reports {reply.error}")
                self._retry_s = self._clock.now_s() + self._config.error_retry_s
            elif (chunk := reply.chunk).start >= self._planned_from:
                merge = self._timed(
                    "queue", lambda chunk=chunk: self._queue.merge(chunk.actions, chunk.start, self._at)
                )
                self._merged = max(self._merged, reply.seq)
                self._record(reply, now, merge.stale)
            if answered:
                self._in_flight = None

    def _hand_over(self, now: int, why: str) -> None:
        """Another policy answers from now on: it is asked at once, while what is queued is still executed."""
        self._in_flight, self._must_ask, self._retry_s = None, True, 0.0
        self._stats.handovers.append((now, why))
        self._report(now, why)

    def _record(self, reply: Reply, now: int, stale: int) -> None:
        assert reply.chunk is not None
        stats = self._stats
        stats.chunk_policies.append(reply.chunk.policy)
        index, began_s = self._asked[reply.seq]
        asked = stats.asked[index]
        self._origins[reply.chunk.start] = asked
        stats.chunks += 1
        stats.stale_actions_dropped += stale
        stats.latency_ticks.append(now - asked)
        stats.starts.append(asked)
        stats.lengths.append(len(reply.chunk.actions))
        stats.stale.append(stale)
        if stats.chunks > 1:  # the first one's tick waits for it
            self._delays.append(self._at - reply.chunk.start)
        stats.inference_ms.append(reply.inference_ms)
        stats.queued_ms.append(reply.chunk.timings_ms.get("queued", 0.0))
        stats.round_trip_ms.append(reply.round_trip_ms)
        stats.latency_ms[index] = (time.perf_counter() - began_s) * 1000
        for watcher in self._watchers:
            watcher.merged(Merged(now, self._at, asked, reply, stale))

    def _needs_inference(self) -> bool:
        now_s = self._clock.now_s()
        if self._in_flight is not None:
            if now_s - self._in_flight.sent_s < self._config.request_timeout_s:
                return False
            self._stats.resends += 1
            self._check_silence()
            return True
        if now_s < self._retry_s:
            return False
        return self._must_ask or self._queue.remaining(self._at) <= self._ask_at

    @property
    def _ask_at(self) -> float:
        """How many actions may be queued when the next chunk is asked for."""
        horizon, steps = self._link.policy.horizon, self._config.execution_horizon or self._link.policy.n_action_steps
        return max(self._config.chunk_size_threshold * horizon, horizon - (steps or horizon))

    def _check_silence(self) -> None:
        """A request went unanswered: a slow policy still answers pings, a dead one does not."""
        silent_s = self._link.silent_s
        if silent_s > self._config.lost_after_s:
            raise LinkError(f"the policy node has been silent for {silent_s:.1f} s; the robot holds")
        if silent_s > self._config.request_timeout_s:
            self._report(self._tick, f"the policy node has been silent for {silent_s:.1f} s; asking again")
        self._link.ping()

    def _ask(self, tick: int, held: np.ndarray | None = None) -> None:
        """held: the command that a person gives until the policy has answered."""
        began_s, self._must_ask = time.perf_counter(), False
        observation = self._timed("observe", lambda: self._observation(tick))
        self._staleness_s[tick] = self._staleness(observation)
        left = self._queue.remaining(self._at)
        continued = Continue(max(self._delays, default=0), held) if self._config.aggregate == RTC else None
        seq = self._timed("link", lambda: self._link.request(observation, left, self._merged, continued))
        self._in_flight = _InFlight(seq, self._clock.now_s())
        self._asked[seq] = len(self._stats.asked), began_s
        self._stats.requests += 1
        self._stats.asked.append(tick)
        self._stats.latency_ms.append(math.nan)
        for watcher in self._watchers:
            watcher.asked(tick, seq, observation)

    def _staleness(self, observation: Observation) -> float:
        """Seconds since the oldest of the arrays was taken: a frozen camera's picture may be old. 0 in simulation."""
        stamps_ns = [ns for name in observation.arrays if (ns := observation.stamps_ns.get(name, 0))]
        if not self._robot.wall_time or not stamps_ns:
            return 0.0
        return (time.monotonic_ns() - min(stamps_ns)) / 1e9

    def _observation(self, tick: int) -> Observation:
        """What the policy reads at `tick`, rendered: this tick's, or the offsets' stacked; before the first tick the
        first is repeated."""
        seen = self._history_at(tick)
        arrays = {name: seen.arrays[name] for name in self._link.policy.inputs}
        return Observation(arrays, seen.stamps_ns, self._at, self._task)

    def _history_at(self, tick: int) -> Observation:
        policy = self._link.policy
        if len(policy.observation_offsets) == 1:
            return self._robot.observe()
        arrays = stacked(self._history, tick, policy.observation_offsets, [*policy.inputs])
        return Observation(arrays, self._history[-1].stamps_ns)

    def _remember(self, tick: int) -> None:
        """A policy with a history needs this tick's observation even if none is asked for now."""
        if len(self._policy.observation_offsets) > 1:
            self._history.append(replace(self._robot.observe(), tick=tick))

    def _view(self, tick: int, action: np.ndarray, starved: bool, source: int, age_s: float) -> TickView:
        left = self._queue.remaining(self._at + 1)
        late_s = self._clock.lateness_s
        return TickView(tick, action, starved, left, self._robot.observe, self._at, source, age_s, late_s, self._queue)

    def _final_view(self, tick: int, last: np.ndarray) -> TickView:
        return self._view(tick, last, False, -1, 0.0)

    def _wait(self, view: TickView) -> int:
        """Take in what arrives meanwhile, for the tick that comes next; then the plan moves on, as STARVATION says."""
        self._at = self._at + (not view.starved) if self._pauses else view.tick + 1
        reached = self._clock.wait_until(view.tick + 1, self._idle)
        self._at += 0 if self._pauses else reached - view.tick - 1
        return reached

    def _idle(self, left_s: float) -> None:
        if self._link.wait(left_s):
            self._receive(self._tick + 1)
