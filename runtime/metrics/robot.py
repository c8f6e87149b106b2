"""The Prometheus metrics of a robot node, noted tick by tick."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tactus.hal.robot import Outcome, Robot
from tactus.hal.spec import Observation
from tactus.runtime.metrics.histogram import LATENESS_SECONDS, Histogram
from tactus.runtime.robot_node.watcher import PERSON, Beginning, Merged, TickView, Watcher

COUNTERS_EVERY_S = 1.0
"""The robot's own counters are read this often at most: some of them take a lock or a percentile."""

TOTALS = {
    "ticks": "Actions sent.",
    "starved_ticks": "Ticks for which no action was queued; the robot held.",
    "person_ticks": "Ticks that a person drove, having taken over from the policy, or without one.",
    "interventions": "Times that a person took over.",
    "skipped_ticks": "Ticks that passed while another one's work overran.",
    "requests": "Observations sent to the policy node, those sent again too.",
    "chunks": "Chunks taken into the queue.",
    "stale_actions": "Actions of those chunks whose tick had passed.",
    "said_lines": "Output told to a person: errors of the policy, silences, limits, faults.",
    "episodes": "Episodes that ended.",
    "successes": "Episodes that ended with success.",
}


class RobotMetrics(Watcher):
    """Counts what it watches; totals are of this process, also of an episode that had to be begun again.

    The robot's counters are read in its own thread. A scrape, in another thread, may fall between two of a tick's
    figures; every single one is whole.
    """

    def __init__(self, robot: Robot, policy: str) -> None:
        self._robot = robot
        self._about = [robot.spec.name, policy]
        self._totals = dict.fromkeys(TOTALS, 0)
        self._lateness = Histogram(LATENESS_SECONDS)
        self._latency, self._round_trip, self._inference = Histogram(), Histogram(), Histogram()
        self._asked_ns: dict[int, int] = {}
        self._counters: Mapping[str, float] = {}
        self._counters_due_s = 0.0
        self._episode = self._last = -1
        self._starved = self._succeeded = self._by_person = False
        self._depth = 0
        self._age_s = 0.0

    def begin(self, beginning: Beginning) -> None:
        self._episode, self._last = beginning.episode, -1
        self._succeeded = self._by_person = False
        self._asked_ns.clear()

    def asked(self, tick: int, seq: int, observation: Observation) -> None:
        self._totals["requests"] += 1
        self._asked_ns[seq] = max(observation.stamps_ns.values(), default=0) or time.monotonic_ns()

    def merged(self, merged: Merged) -> None:
        totals, reply = self._totals, merged.reply
        totals["chunks"] += 1
        totals["stale_actions"] += merged.stale
        asked_ns = self._asked_ns.pop(reply.seq, None)
        if asked_ns is not None:
            self._latency.add((time.monotonic_ns() - asked_ns) / 1e9)
        if reply.round_trip_ms:
            self._round_trip.add(reply.round_trip_ms / 1000)
        self._inference.add(reply.inference_ms / 1000)
        for seq in [seq for seq in self._asked_ns if seq < reply.seq]:
            del self._asked_ns[seq]  # superseded: it will not be answered

    def before(self, view: TickView) -> None:
        self._starved, self._depth, self._age_s = view.starved, view.remaining, view.age_s
        by_person = view.driver == PERSON
        self._totals["person_ticks"] += by_person
        self._totals["interventions"] += by_person and not self._by_person
        self._by_person = by_person
        self._skipped(view.tick)
        if view.tick:
            self._lateness.add(view.lateness_s)  # tick 0 begins whenever its chunk is there

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        self._last = tick
        self._totals["ticks"] += 1
        self._totals["starved_ticks"] += self._starved
        self._succeeded = outcome is not None and outcome.success
        if time.monotonic() >= self._counters_due_s:
            self._read_counters()

    def said(self, tick: int, line: str) -> None:
        self._totals["said_lines"] += 1

    def end(self, view: TickView) -> None:
        self._skipped(view.tick - 1)  # its tick is the one after the one that was not played
        self._totals["episodes"] += 1
        self._totals["successes"] += self._succeeded
        self._depth, self._age_s = 0, 0.0
        self._read_counters()

    def _skipped(self, tick: int) -> None:
        self._totals["skipped_ticks"] += max(0, tick - self._last - 1)

    def _read_counters(self) -> None:
        self._counters = dict(self._robot.counters())
        self._counters_due_s = time.monotonic() + COUNTERS_EVERY_S

    def collect(self) -> Iterator[Metric]:
        for name, documentation in TOTALS.items():
            yield CounterMetricFamily(f"tactus_robot_{name}", documentation, self._totals[name])
        yield GaugeMetricFamily("tactus_robot_queue_depth", "Actions queued after this tick's.", self._depth)
        yield GaugeMetricFamily(
            "tactus_robot_action_age_seconds", "Since the observation that the action was decided on.", self._age_s
        )
        yield GaugeMetricFamily("tactus_robot_episode", "Number of the episode, -1 before the first.", self._episode)
        yield GaugeMetricFamily("tactus_robot_fps", "Ticks per second as configured.", self._robot.spec.fps)
        yield self._lateness.family("tactus_robot_tick_lateness_seconds", "How late a tick began.")
        yield self._latency.family("tactus_robot_latency_seconds", "From an observation to its chunk in the queue.")
        yield self._round_trip.family("tactus_robot_round_trip_seconds", "From a request to its answer.")
        yield self._inference.family("tactus_robot_inference_seconds", "What the policy took, without waiting.")
        counters = GaugeMetricFamily("tactus_robot_counter", "The robot's own counters.", labels=["name"])
        for name, value in self._counters.items():
            counters.add_metric([name], value)
        yield counters
        about = GaugeMetricFamily("tactus_robot_info", "Always 1.", labels=["robot", "policy"])
        about.add_metric(self._about, 1)
        yield about
