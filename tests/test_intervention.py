"""A person takes over from a policy and hands back: within a tick, without a gap, and every frame says who drove."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, eventually, synthetic
from hardware import RecordingHardware
from hypothesis import given
from hypothesis import strategies as st
from test_flight import Continuing

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.robot import RobotError
from tactus.hal.spec import STATE, Chunk, Feature, Observation, RobotSpec
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.hal.teleop import Teleoperator
from tactus.hal.teleop.leader import FollowingLeader
from tactus.policies.policy import Prefix, Request
from tactus.policies.scripted.config import ExpertConfig, TickerConfig
from tactus.runtime.evaluation.results import Results
from tactus.runtime.flight.queue_replay import replay_queue
from tactus.runtime.flight.reader import read_flights
from tactus.runtime.flight.recorder import FlightRecorder
from tactus.runtime.flight.ring import Ring
from tactus.runtime.person.config import ScriptedPersonConfig
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats, episode_row, spans
from tactus.runtime.robot_node.intervention import Intervention
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import PERSON, POLICY, TickView, Watcher
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

HELD = 1000.0
"""What the hand below always says; the policies count ticks."""


class Hand(Teleoperator):
    """Wants what `at` says of a tick, and is always at HELD. asked: where the robot stood when it took over."""

    def __init__(self, at: dict[int, bool], lost: bool = False) -> None:
        self._at = at
        self._tick = -1
        self._lost = lost
        self.stood: list[np.ndarray] = []
        self.followed: list[np.ndarray] = []

    def connect(self, robot: RobotSpec) -> None: ...

    def reset(self, state: np.ndarray) -> None:
        self.stood.append(state)

    def look(self, observe: Callable[[], Observation]) -> None:
        self._tick = observe().tick

    def wants(self) -> bool | None:
        return self._at.get(self._tick)

    def decide(self) -> np.ndarray | None:
        return None if self._lost else np.full(3, HELD, np.float32)

    def follow(self, action: np.ndarray) -> None:
        self.followed.append(action)

    def close(self) -> None: ...


class Views(Watcher):
    def __init__(self) -> None:
        self.views: list[TickView] = []
        self.lines: list[str] = []

    def before(self, view: TickView) -> None:
        self.views.append(dataclasses.replace(view, action=view.action.copy(), queue=None))

    def said(self, tick: int, line: str) -> None:
        self.lines.append(f"{tick} {line}")


class Absolute(SyntheticRobot):
    """Takes positions, as arms do."""

    def __init__(self) -> None:
        super().__init__(synthetic())
        self._spec = dataclasses.replace(self._spec, action=absolute(self._spec.action))


def absolute(action: Feature) -> Feature:
    return dataclasses.replace(action, mode=("absolute",) * 2 + ("binary",))


class Positions(FunctionPolicy):
    def __init__(self) -> None:
        super().__init__(count)
        self._spec = dataclasses.replace(self._spec, action=absolute(self._spec.action))


def play(
    node: PolicyNode, hand: Hand, latency: str = "fixed:0", meet_s: float = 0.0, arm: bool = False, **loop: object
) -> tuple[EpisodeStats, Views]:
    robot = Absolute() if arm else SyntheticRobot(synthetic())
    clock, views = VirtualClock(robot.spec.fps), Views()
    link = Link(node.endpoint)
    try:
        policy = link.hello(robot.spec, 5, real_time=False)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), 10)
        person = Intervention(hand, robot.spec, meet_s)
        config = LoopConfig(**loop)  # type: ignore[arg-type]
        loop_ = RobotNode(robot, policy, delayed, clock, config, lambda line: None, person)
        return loop_.run_episode(0, 1, [views]), views
    finally:
        link.close()


@pytest.mark.parametrize("aggregate", ["latest_only", "weighted_average", "temporal_ensemble", "rtc"])
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_person_takes_over_and_hands_back_at_once_and_nobody_starves(
    serve: Serve, delay: int, aggregate: str
) -> None:
    policy = Continuing() if aggregate == "rtc" else FunctionPolicy(count)
    hand = Hand({10: True, 20: False})
    stats, seen = play(serve(policy), hand, f"fixed:{delay}", aggregate=aggregate)
    back = 20 + delay
    drivers = [view.driver for view in seen.views]
    assert drivers == [POLICY] * 10 + [PERSON] * (back - 10) + [POLICY] * (40 - back)
    assert stats.by_person is not None and spans(stats.by_person) == [[10, back]]
    assert stats.starved_ticks == 0 and stats.ticks == 40
    assert all((action == HELD).all() for action in stats.actions[10:back])
    assert not any((action == HELD).any() for action in stats.actions[:10] + stats.actions[back:])
    assert 20 in stats.asked and not [tick for tick in stats.asked if 10 <= tick < 20], "asked anew, with what is seen"
    assert min(tick for tick in stats.sources[back:]) >= 20, "nothing of what was planned before"
    assert seen.lines == ["10 a person takes over", f"{back} the policy drives again"]
    assert episode_row(0, 1, SyntheticRobot(synthetic()).scene(0), stats)["interventions"] == [[10, back]]


class Onwards(Continuing):
    """Keeps the prefixes it is given, by the tick they are for; says what executed actions are in its own form."""

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: dict[int, Prefix | None] = {}

    def as_raw(self, actions: np.ndarray) -> np.ndarray:
        return actions / 2

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        self.prefixes |= {request.observation.tick: request.prefix for request in requests}
        return super().infer(requests)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_policy_that_continues_chunks_goes_on_with_what_the_person_does(serve: Serve, delay: int) -> None:
    policy, hand = Onwards(), Hand({10: True, 20: False})
    policy._spec = dataclasses.replace(policy._spec, action=absolute(policy._spec.action))
    stats, _ = play(serve(policy), hand, f"fixed:{delay}", arm=True, aggregate="rtc")
    assert stats.by_person is not None and spans(stats.by_person) == [[10, 20 + delay]] and stats.starved_ticks == 0
    held = policy.prefixes[20]
    assert held is not None and held.delay == delay
    np.testing.assert_array_equal(held.actions, np.full((delay + 1, 3), HELD / 2, np.float32))
    later = policy.prefixes[min(tick for tick in policy.prefixes if tick > 20)]
    assert later is not None and (later.actions != HELD / 2).all(), "then its own chunks again"


def test_what_a_person_does_repeats_to_the_bit(serve: Serve) -> None:
    found = []
    for _ in range(2):
        stats, _ = play(serve(FunctionPolicy(count)), Hand({7: True, 19: False, 30: True}), "lognormal:2,drop=0.1")
        found.append((np.stack(stats.actions).tobytes(), stats.by_person, stats.asked))
    assert found[0] == found[1]


def test_who_keeps_it_after_all_drops_what_the_policy_answered(serve: Serve) -> None:
    """Handed back at 12, kept at 13, before the answer of tick 12 came; handed back again at 20."""
    stats, _ = play(serve(FunctionPolicy(count)), Hand({5: True, 12: False, 13: True, 20: False}), "fixed:3")
    assert stats.by_person is not None and spans(stats.by_person) == [[5, 23]]
    assert min(stats.sources[23:]) >= 20 and stats.starved_ticks == 0


def test_a_hand_that_is_elsewhere_is_met_within_the_time_and_without_a_jump(serve: Serve) -> None:
    stats, _ = play(serve(Positions()), Hand({10: True}), meet_s=0.4, arm=True)
    driven = np.stack(stats.actions)[10:, 0]
    first, steps = driven[0], np.diff(driven)
    assert first == stats.actions[9][0], "it begins where the robot is"
    np.testing.assert_allclose(steps[:20], (HELD - first) / 20, rtol=1e-4)
    assert (driven[20:] == HELD).all()
    assert stats.actions[10][2] == HELD, "what is open or closed is so at once"


def test_motors_follow_while_the_policy_drives(serve: Serve) -> None:
    hand = Hand({10: True, 20: False})
    stats, _ = play(serve(FunctionPolicy(count)), hand)
    sent = [*stats.actions[:9], *stats.actions[19:39]]
    assert len(hand.followed) == 9 + 20 - 1
    np.testing.assert_array_equal(hand.followed[:9], sent[:9])
    [stood] = hand.stood
    assert stood.shape == (3,)


def test_a_hand_that_is_lost_holds_the_robot(serve: Serve) -> None:
    stats, seen = play(serve(Positions()), Hand({10: True}, lost=True), arm=True)
    assert stats.starved_ticks == 30 and all(view.starved for view in seen.views[10:])
    assert (np.stack(stats.actions[10:]) == stats.actions[9]).all()


def test_a_policy_that_fails_when_it_gets_it_back_leaves_it_to_the_person(serve: Serve) -> None:
    def answer(request):  # type: ignore[no-untyped-def]
        if 15 < request.observation.tick < 30:
            raise ValueError("no idea")
        return count(request)

    stats, seen = play(serve(FunctionPolicy(answer)), Hand({5: True, 20: False}), error_retry_s=0.1)
    assert stats.by_person is not None and spans(stats.by_person) == [[5, 30]] and stats.starved_ticks == 0
    assert any("no idea" in line for line in seen.lines)


@given(st.lists(st.booleans(), max_size=40))
def test_spans_are_what_was_flagged(flags: list[bool]) -> None:
    found = spans(flags)
    assert [tick for first, end in found for tick in range(first, end)] == [t for t, flag in enumerate(flags) if flag]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def test_a_key_from_another_thread_counts_at_the_next_tick(serve: Serve) -> None:
    robot = SyntheticRobot(synthetic())
    person = Intervention(Hand({}), robot.spec, 0)
    drivers = []
    for tick in range(6):
        if tick in (2, 4):
            person.press()
        person.look(lambda tick=tick: Observation({STATE: np.zeros(3, np.float32)}, tick=tick), np.zeros(3, np.float32))
        drivers.append((person.driver, person.returning))
    assert drivers == [(POLICY, False)] * 2 + [(PERSON, False)] * 2 + [(PERSON, True)] * 2
    person.begin()
    assert (person.driver, person.returning) == (POLICY, False)


@pytest.mark.parametrize("hand", [{10: True, 20: False}, {5: True, 12: False, 13: True, 20: False}])
def test_a_flight_record_of_it_plays_again_to_the_bit(serve: Serve, tmp_path: Path, hand: dict[int, bool]) -> None:
    node = serve(FunctionPolicy(count))
    recorder = FlightRecorder(Ring(tmp_path))
    robot = SyntheticRobot(synthetic())
    link = Link(node.endpoint)
    link.tap = recorder.tap
    policy = link.hello(robot.spec, 5, real_time=False)
    about = {"run": "1", "robot": robot.spec.to_dict(), "policy": policy.to_dict(), "loop": {"aggregate": "average"}}
    recorder.start({**about, "virtual": True}, waits=True)
    clock = VirtualClock(robot.spec.fps)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:3"), 10)
    with recorder:
        loop = LoopConfig(aggregate="average")
        node_ = RobotNode(
            robot, policy, delayed, clock, loop, lambda line: None, Intervention(Hand(hand), robot.spec, 0)
        )
        node_.run_episode(0, 1, [recorder])
    recorder.close()
    link.close()
    [flight] = read_flights(tmp_path)
    found = replay_queue(flight)
    assert found.difference is None and found.ticks == 40 and found.unknown == 0
    drivers = [record.data["driver"] for record in flight.records if record.topic == "/tick"]
    assert drivers.count(PERSON) == 23 - min(hand) and drivers.count(POLICY) == 17 + min(hand)


def test_interventions_are_counted_and_the_minutes_between_them(tmp_path: Path, serve: Serve) -> None:
    results = Results(tmp_path / "results", {}, resume=False)
    for episode, hand in enumerate(({10: True, 20: False, 30: True}, {})):
        stats, _ = play(serve(FunctionPolicy(count)), Hand(hand))
        row = episode_row(episode, 1, SyntheticRobot(synthetic()).scene(0), stats)
        results.add(row, {"episode": episode, "wall_s": 0.0, "overruns": 0, "inference_ms": [], "round_trip_ms": []})
    summary = results.summary({"robot": {"fps": 50.0}})
    assert (summary["interventions"], summary["interventions_per_episode"], summary["person_ticks"]) == (2, 1.0, 20)
    assert summary["policy_minutes_per_intervention"] == round(60 / 50 / 60 / 2, 3)


@pytest.mark.parametrize(
    ("policy", "words"),
    [(ExpertConfig(), "teleop.policy: expert cannot drive"), (TickerConfig(width=3), "needs the poses of object")],
)
def test_a_script_that_cannot_drive_this_robot_says_so(policy: object, words: str) -> None:
    person = ScriptedPersonConfig(policy=policy).make()  # type: ignore[arg-type]
    with pytest.raises(RobotError, match=words):
        person.connect(SyntheticRobot(synthetic()).spec)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.realtime
def test_a_leader_that_follows_is_taken_by_holding_it_back() -> None:
    """One joint does not go where the robot goes, for long enough: it is in a hand. Lagging for a moment is not."""
    hardware = RecordingHardware()
    leader = FollowingLeader(Governor(hardware, GovernorConfig(guardian=False, gate=None)), takes_over_at=10.0)
    leader.connect(dataclasses.replace(hardware.spec, name="follower"))
    try:
        for _ in range(2):
            leader.follow(np.zeros(3, np.float32))
            eventually(lambda: hardware.torque)
            leader.follow(np.zeros(3, np.float32))
            assert leader.wants() is None
            hardware.stuck = (0,)
            wants = []
            for tick in range(60):
                time.sleep(0.01)
                leader.follow(np.array([min(30, tick * 2), 0, 0], np.float32))
                wants.append(leader.wants())
            taken = wants.index(True)
            assert set(wants[:taken]) == {None} and hardware.position[0] == 0 and taken >= 10
            hardware.stuck = ()
            leader.reset(np.zeros(3, np.float32))
            eventually(lambda: not hardware.torque)
            hardware.position[:] = 0
            action = leader.decide()
            assert action is not None and action.dtype == np.float32
    finally:
        leader.close()
    assert not hardware.torque and not hardware.open
