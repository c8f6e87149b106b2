"""The flight recorder: what is recorded reads back, plays back bit for bit, and says why; whatever befalls the file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, state_at, synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.hal.robot import Command
from tactus.hal.spec import IMAGES, STATE, Chunk, Feature
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.policies.policy import Policy, Request
from tactus.policies.scripted.ticker import TickerConfig
from tactus.runtime.commands import main
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import (
    EPISODE,
    KEYFRAME,
    MERGE,
    REPEATED,
    SAID,
    SENT,
    TICK,
    TOPICS,
    numbers,
    to_json,
)
from tactus.runtime.flight.explanation import explain
from tactus.runtime.flight.explanation_text import explanation_lines
from tactus.runtime.flight.mcap_file import Entry
from tactus.runtime.flight.policy_replay import replay_policy
from tactus.runtime.flight.queue_replay import replay_queue, unlike
from tactus.runtime.flight.reader import Flight, read_flights
from tactus.runtime.flight.recorder import FlightRecorder
from tactus.runtime.flight.ring import Ring, segments
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.action_queue import AGGREGATIONS, ENSEMBLE_DECAY, RTC, ActionQueue
from tactus.runtime.robot_node.clock import RealClock, VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.several_links import DrawnLinks
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
HORIZON = 8
LATE = "lognormal:3,drop=0.1,reorder=0.2"


def scribble(request: Request) -> np.ndarray:
    """Actions that follow from the observation alone, and have bits to get wrong."""
    state = request.observation.arrays[STATE]
    rng = np.random.default_rng([request.observation.tick, *np.ascontiguousarray(state).view(np.uint32).tolist()])
    return rng.normal(size=(HORIZON, 3)).astype(np.float32)


class Continuing(FunctionPolicy):
    """Takes a prefix, and lets it show: as real-time chunking does, it begins with what is committed."""

    def __init__(self) -> None:
        super().__init__(scribble)
        self._spec = dataclasses.replace(self._spec, takes_prefix=True)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        chunks = super().infer(requests)
        for chunk, request in zip(chunks, requests, strict=True):
            if request.prefix is not None:
                chunk.actions[: request.prefix.delay] = request.prefix.actions[: request.prefix.delay]
        return [dataclasses.replace(chunk, raw=chunk.actions.copy()) for chunk in chunks]


class Limited(SyntheticRobot):
    """Sends no more than 0.5 of anything, and says so."""

    def __init__(self) -> None:
        super().__init__(synthetic(steps=20))
        low, high = (-0.5,) * 3, (0.5,) * 3
        self._spec = dataclasses.replace(self._spec, action=dataclasses.replace(self._spec.action, low=low, high=high))
        self._lines: list[str] = []

    def follow(self, command: Command) -> np.ndarray:
        sent = np.clip(command.action, -0.5, 0.5)
        if (sent != command.action).any():
            self._lines.append("a bound was reached")
        return super().act(sent)

    def events(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def record(
    node: PolicyNode,
    folder: Path,
    episodes: int = 1,
    latency: str = "fixed:2",
    robot: SyntheticRobot | None = None,
    real_time: bool = False,
    ring: Callable[[Path], Ring] = Ring,
    write_every_s: float = 0.1,
    tap: Callable[..., None] | None = None,
    **config: object,
) -> list[EpisodeStats]:
    """Episodes of a synthetic robot, recorded into `folder`."""
    robot = robot or SyntheticRobot(synthetic())
    loop = LoopConfig(**config)  # type: ignore[arg-type]
    recorder = FlightRecorder(ring(folder), write_every_s=write_every_s)
    link = Link(node.endpoint)

    def both(outgoing: bool, frames: Sequence) -> None:
        recorder.tap(outgoing, frames)
        if tap is not None:
            tap(outgoing, frames)

    link.tap = both
    clock = RealClock(robot.spec.fps) if real_time else VirtualClock(robot.spec.fps)
    try:
        policy = link.hello(robot.spec, 5, real_time=real_time)
        about = {"run": uuid.uuid4().hex, "robot": robot.spec.to_dict(), "policy": policy.to_dict()}
        recorder.start({**about, "loop": dataclasses.asdict(loop), "virtual": not real_time}, waits=not real_time)
        timed = (
            link if isinstance(clock, RealClock) else VirtualDelayedLink(link, clock, LatencyModel.parse(latency), 5)
        )
        loops = RobotNode(robot, policy, timed, clock, loop, say=lambda line: None)
        return [loops.run_episode(episode, 1, [recorder]) for episode in range(episodes)]
    finally:
        link.close()
        recorder.close()


def the_flight(folder: Path) -> Flight:
    (flight,) = read_flights(folder)
    return flight


def rewritten(file: Path, old: bytes, new: bytes, copy: Path) -> Path:
    """A copy with one thing changed, in place."""
    data = file.read_bytes()
    assert len(old) == len(new) and old in data
    copy.write_bytes(data.replace(old, new, 1))
    return copy


# what is recorded


def test_every_frame_is_recorded_as_it_was_on_the_wire(serve: Serve, tmp_path: Path) -> None:
    seen: list[tuple[str, list[bytes]]] = []

    def tap(outgoing: bool, frames: Sequence) -> None:
        seen.append((SENT if outgoing else "/wire/received", [bytes(memoryview(frame)) for frame in frames]))

    stats = record(serve(FunctionPolicy(scribble)), tmp_path, tap=tap)[0]
    flight = the_flight(tmp_path)
    recorded = [(r.topic, [bytes(frame) for frame in r.data]) for r in flight.records if r.topic.startswith("/wire/")]
    assert recorded == seen
    ticks = [r.data for r in flight.records if r.topic == TICK]
    assert [tick["tick"] for tick in ticks] == list(range(40))
    for tick, action in zip(ticks, stats.actions, strict=True):
        assert numbers(tick["sent"], "float32").tobytes() == action.tobytes()
    assert sum(r.topic == MERGE for r in flight.records) == stats.chunks
    assert not flight.cut
    times = [r.log_ns for r in flight.records]
    assert abs(times[0] - time.time_ns()) < 60e9


def test_the_librarys_own_reader_opens_a_closed_file(serve: Serve, tmp_path: Path) -> None:
    from mcap.reader import make_reader
    from mcap.stream_reader import StreamReader

    record(serve(FunctionPolicy(scribble)), tmp_path, episodes=2)
    (file,) = segments(tmp_path)
    ours = [r for r in the_flight(tmp_path).records]
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == len(ours)
        assert {channel.topic for channel in summary.channels.values()} == set(TOPICS)
        by_index = [
            (channel.topic, message.log_time) for _, channel, message in reader.iter_messages(log_time_order=False)
        ]
        ticks = [json.loads(m.data)["tick"] for _, _, m in reader.iter_messages(topics=[TICK])]
        stream.seek(0)
        assert len(list(StreamReader(stream, validate_crcs=True).records)) > len(ours)
    assert by_index == [(r.topic, r.log_ns) for r in ours]
    assert ticks == [*range(40), *range(40)]
    schemas = {schema.name: json.loads(schema.data) for schema in summary.schemas.values()}
    assert schemas["tactus.tick"]["properties"]["sent"]["type"] == "array"


@given(st.lists(st.floats(width=32) | st.sampled_from([-0.0, math.inf, -math.inf, math.nan]), min_size=1))
def test_json_keeps_every_bit_of_a_float(values: list[float]) -> None:
    for dtype in ("float32", "float64"):
        array = np.array(values, dtype)
        back = numbers(json.loads(to_json({"x": array.tolist()}))["x"], dtype)
        assert not unlike(array, back).any()
        assert np.isnan(array).tolist() == np.isnan(back).tolist()


def test_what_a_slow_disk_leaves_out_are_pictures_and_it_is_said(tmp_path: Path) -> None:
    recorder = FlightRecorder(Ring(tmp_path), max_backlog=1_000_000)
    picture = memoryview(np.zeros(400_000, np.uint8))
    for _ in range(5):
        recorder.tap(True, [b"header", picture])
    recorder.tap(False, [b"answer"])
    recorder.start({"run": "r"})
    recorder.close()
    records = the_flight(tmp_path).records
    kept = [[frame is not None for frame in r.data] for r in records if r.topic == SENT]
    assert kept == [[True, True]] * 2 + [[True, False]] * 3
    assert [r.data["line"] for r in records if r.topic == SAID] == [
        "3 messages, 1 MB, were left out: the disk did not keep up"
    ]


def test_what_ends_the_run_is_recorded(tmp_path: Path) -> None:
    recorder = FlightRecorder(Ring(tmp_path))
    recorder.start({"run": "r"})
    with pytest.raises(RuntimeError), recorder:
        raise RuntimeError("the arm is gone")
    recorder.close()
    recorder.close()
    assert [r.data["line"] for r in the_flight(tmp_path).records if r.topic == SAID] == [
        "RuntimeError: the arm is gone"
    ]


# replay


@pytest.mark.slow
@pytest.mark.parametrize("latency", ["fixed:0", LATE])
@pytest.mark.parametrize("starvation", ["pause", "skip"])
@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_the_queue_plays_back_bit_for_bit(
    serve: Serve, tmp_path: Path, aggregate: str, starvation: str, latency: str
) -> None:
    node = serve(Continuing() if aggregate == RTC else FunctionPolicy(scribble))
    stats = record(node, tmp_path, 2, latency, aggregate=aggregate, starvation=starvation, request_timeout_s=0.1)
    found = replay_queue(the_flight(tmp_path))
    assert found.difference is None and not found.notes and not found.unknown
    assert found.ticks == sum(s.ticks for s in stats) == 80
    assert found.starved == sum(s.starved_ticks for s in stats)
    assert found.chunks == sum(s.chunks for s in stats)
    assert (found.starved > 0) == (latency == LATE)


def test_another_blend_does_not_play_back(serve: Serve, tmp_path: Path) -> None:
    """The comparison can fail: the record says it was averaged, and it was not."""
    record(serve(FunctionPolicy(scribble)), tmp_path / "a", aggregate="latest_only")
    (file,) = segments(tmp_path / "a")
    copy = rewritten(file, b'"aggregate": "latest_only"', b'"aggregate": "average"    ', tmp_path / "copy.mcap")
    found = replay_queue(read_flights(copy)[0])
    assert found.difference is not None and found.difference.what == "requested"
    assert main(["replay-flight", str(copy)]) == 1


def test_a_changed_chunk_is_found_at_its_tick(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(serve(FunctionPolicy(scribble)), tmp_path / "a")
    (file,) = segments(tmp_path / "a")
    flight = read_flights(file)[0]
    tick = next(r.data for r in flight.records if r.topic == TICK and r.data["tick"] == 23)
    chunk = next(
        m for r in flight.records if r.topic == "/wire/received" and (m := r.message()) and m.tick == tick["source"]
        and m.kind == "CHUNK"
    )  # fmt: skip
    actions = chunk.arrays["action"].copy()
    old = actions.tobytes()
    row = tick["at"] - tick["source"]
    actions[row, 1] = np.nextafter(actions[row, 1], np.float32(9))
    copy = rewritten(file, old, actions.tobytes(), tmp_path / "copy.mcap")
    found = replay_queue(read_flights(copy)[0])
    assert found.difference == (0, 23, "requested", "joint_1", tick["requested"][1], actions[row, 1].item())
    assert "on the wire with other actions than merged" in found.notes[0]
    assert main(["replay-flight", str(copy)]) == 1
    assert "DIFFERENT: episode 0, tick 23: requested joint_1: recorded" in capsys.readouterr().out
    assert main(["replay-flight", str(file)]) == 0


def test_a_changed_tick_is_found(serve: Serve, tmp_path: Path) -> None:
    record(serve(FunctionPolicy(scribble)), tmp_path / "a")
    (file,) = segments(tmp_path / "a")
    tick = next(r.data for r in read_flights(file)[0].records if r.topic == TICK and r.data["tick"] == 7)
    old = json.dumps(tick["requested"]).encode()
    digit = next(i for i in range(len(old) - 2, 0, -1) if chr(old[i]) in "12345678")
    new = old[:digit] + bytes([old[digit] + 1]) + old[digit + 1 :]
    found = replay_queue(read_flights(rewritten(file, old, new, tmp_path / "copy.mcap"))[0])
    assert found.difference is not None
    assert (found.difference.tick, found.difference.dimension) == (7, "joint_2")


@pytest.mark.parametrize("aggregate", ["average", "temporal_ensemble", RTC])
def test_the_policy_plays_back_bit_for_bit(serve: Serve, tmp_path: Path, aggregate: str) -> None:
    make = Continuing if aggregate == RTC else lambda: FunctionPolicy(scribble)
    stats = record(serve(make()), tmp_path, 2, aggregate=aggregate, latency="lognormal:2,drop=0.1,reorder=0.1")
    found = replay_policy(the_flight(tmp_path), make())
    assert found.equal == found.chunks >= sum(s.chunks for s in stats)
    assert not found.notes and found.first is None and not found.unasked


def test_of_two_policies_that_took_turns_each_plays_back_its_own(serve: Serve, tmp_path: Path) -> None:
    def policy(name: str) -> FunctionPolicy:
        made = FunctionPolicy(scribble if name == "one" else lambda request: -scribble(request))
        made._spec = dataclasses.replace(made.spec, name=name)
        return made

    robot, recorder, numbers = SyntheticRobot(synthetic()), FlightRecorder(Ring(tmp_path)), itertools.count(1)
    links = [Link(serve(policy(name)).endpoint, numbers=numbers) for name in ("one", "two")]
    for link in links:
        link.tap = recorder.tap
    turns, clock = DrawnLinks(links, lambda episode: episode % 2), VirtualClock(robot.spec.fps)
    common = turns.hello(robot.spec, 5, real_time=False)
    about = {"run": "1", "robot": robot.spec.to_dict(), "policy": common.to_dict(), "virtual": True}
    recorder.start({**about, "loop": dataclasses.asdict(LoopConfig())}, waits=True)
    timed = VirtualDelayedLink(turns, clock, LatencyModel.parse("fixed:2"), 5)
    node = RobotNode(robot, common, timed, clock, LoopConfig(), say=lambda line: None)
    stats = [node.run_episode(episode, 1, [recorder]) for episode in range(3)]
    turns.close()
    recorder.close()
    assert [{name.partition("@")[0] for name in one.chunk_policies} for one in stats] == [{"one"}, {"two"}, {"one"}]
    for name, share in (("one", stats[0].chunks + stats[2].chunks), ("two", stats[1].chunks)):
        found = replay_policy(the_flight(tmp_path), policy(name))
        assert found.equal == found.chunks >= share and "were not asked for" in found.notes[0]


def test_another_policy_is_told_apart(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(serve(TickerConfig(width=3, horizon=HORIZON).make()), tmp_path)
    ticker = ["--policy.type=ticker", "--policy.width=3"]
    assert main(["replay-flight", str(tmp_path), *ticker, f"--policy.horizon={HORIZON}"]) == 0
    assert "policy: equal, bit for bit: 10 chunks" in capsys.readouterr().out
    assert main(["replay-flight", str(tmp_path), *ticker, "--policy.horizon=9"]) == 1
    assert "10 cannot be compared" in capsys.readouterr().out
    assert main(["replay-flight", str(tmp_path), "--policy.type=ticker", "--policy.width=4"]) == 2
    assert "action: shape: robot 3, policy 4" in capsys.readouterr().err

    def shifted(request: Request) -> np.ndarray:
        actions = np.repeat(np.arange(HORIZON, dtype=np.float32)[:, None] + request.observation.tick, 3, axis=1)
        actions[5, 2] += request.observation.tick >= 8
        return actions

    found = replay_policy(the_flight(tmp_path), FunctionPolicy(shifted))
    assert (found.chunks, found.equal, found.largest) == (10, 2, 1.0)
    assert found.first is not None and found.first[1:] == (8 + 5, 2, 13.0, 14.0)


# the ring


def filled(ring: Ring, size: int) -> None:
    assert ring.segment is not None
    entry = Entry(SAID, time.time_ns(), (bytes(size),), size)
    ring.trim(size)
    ring.segment.write([entry])


def sizes(folder: Path) -> int:
    return sum(file.stat().st_size for file in segments(folder))


def test_the_ring_never_holds_more_than_its_bytes_and_says_so_once(tmp_path: Path) -> None:
    said: list[str] = []
    ring = Ring(tmp_path, max_bytes=1_000_000, say=said.append)
    for number in range(30):
        filled(ring, 90_000)
        assert sizes(tmp_path) <= 1_000_000
        assert ring.due == (ring.segment is not None and ring.segment.size >= 100_000)
        if number % 2:
            ring.next()
    ring.close()
    assert len(segments(tmp_path)) >= 4
    assert len(said) == 1 and "hold only the last 0.0 of 10 minutes" in said[0]
    names = [file.name[-9:-5] for file in segments(tmp_path)]
    assert names == [f"{n:04d}" for n in range(16 - len(names) + 1, 17)]


def test_earlier_runs_count_and_go_first(tmp_path: Path) -> None:
    for _ in range(2):
        ring = Ring(tmp_path, max_bytes=1_000_000)
        filled(ring, 300_000)
        ring.close()
    ring = Ring(tmp_path, max_bytes=1_000_000)
    filled(ring, 300_000)
    assert len(segments(tmp_path)) == 3
    filled(ring, 300_000)
    assert [file.name[-9:-5] for file in segments(tmp_path)] == ["0002", "0003"]
    with pytest.raises(FlightError, match="another run is recording into"):
        Ring(tmp_path)
    ring.close()


@pytest.mark.slow
def test_the_ring_keeps_its_minutes_and_not_much_more(serve: Serve, tmp_path: Path) -> None:
    """Any file that is left plays back by itself, from its keyframe on; and all of them together."""
    ring = lambda folder: Ring(folder, minutes=0.02, segment_s=0.3)  # noqa: E731
    robot = SyntheticRobot(synthetic(steps=150))
    node = serve(FunctionPolicy(scribble))
    record(node, tmp_path, 1, robot=robot, real_time=True, ring=ring, write_every_s=0.02, aggregate="temporal_ensemble")
    flight = the_flight(tmp_path)
    assert len(flight.files) >= 4 and flight.files[0].name[-9:-5] != "0001"
    assert flight.records[-1].log_ns - flight.records[0].log_ns > 1.2e9
    assert all(r.topic != EPISODE or r.data["event"] == "end" for r in flight.records)
    together = replay_queue(flight)
    assert together.difference is None and not together.unknown and not together.notes
    assert together.ticks == sum(r.topic == TICK for r in flight.records)
    ticks = asked = 0
    for file in flight.files:
        alone = read_flights(file)[0]
        found = replay_queue(alone)
        assert found.difference is None and not found.unknown and not found.notes and found.episodes == 1
        ticks += found.ticks
        assert sum(r.topic == KEYFRAME for r in alone.records) == 1
        assert {m.kind for r in alone.records if r.topic == REPEATED and (m := r.message())} == {
            "HELLO", "WELCOME", "RESET"
        }  # fmt: skip
        policy = replay_policy(alone, FunctionPolicy(scribble))
        asked += policy.chunks
        assert policy.equal == policy.chunks and "began before this file" in policy.notes[0]
    assert ticks == together.ticks and asked > 0
    first = next(r.data["tick"] for r in flight.records if r.topic == TICK)
    text = "\n".join(explanation_lines(explain(read_flights(flight.files[1])[0], first_tick(flight.files[1]) + 1)))
    assert first > 0 and "the blend is equal to the recorded action, bit for bit" in text


def first_tick(file: Path) -> int:
    return next(r.data["tick"] for r in read_flights(file)[0].records if r.topic == TICK)


scripts = st.lists(st.tuples(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), max_size=3), st.integers(1, 4)),
                   min_size=2, max_size=12)  # fmt: skip


@given(st.sampled_from(AGGREGATIONS), scripts, st.integers(0, 2**32 - 1), st.data())
def test_a_restored_queue_goes_on_to_the_bit(aggregate: str, script, seed: int, data: st.DataObject) -> None:
    action = Feature((3,), "float32", mode=("absolute", "delta", "binary"))
    rng = np.random.default_rng(seed)
    queue, now = ActionQueue(action, aggregate), 0
    other: ActionQueue | None = None
    cut = data.draw(st.integers(0, len(script) - 1))
    for turn, (arrivals, step) in enumerate(script):
        if turn == cut:
            other = ActionQueue(action, aggregate)
            other.restore(queue.state())
        for age, length in arrivals:
            actions, start = rng.normal(size=(length, 3)).astype(np.float32), max(0, now - age)
            merge = queue.merge(actions, start, now)
            assert other is None or other.merge(actions, start, now) == merge
        for tick in range(now, now + step):
            popped = queue.pop(tick)
            if other is not None:
                again = other.pop(tick)
                assert (popped is None) == (again is None)
                assert popped is None or again is None or popped.tobytes() == again.tobytes()
                assert (queue.remaining(tick), queue.source(tick)) == (other.remaining(tick), other.source(tick))
        now += step


# what befalls a file


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short flight's file."""
    import threading

    node = PolicyNode(FunctionPolicy(scribble), "tcp://127.0.0.1:*")
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    folder = tmp_path_factory.mktemp("flight")
    record(node, folder, aggregate="average", write_every_s=0.002)
    node.stop()
    thread.join()
    (file,) = segments(folder)
    return file


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_a_file_cut_anywhere_reads_up_to_there(recorded: Path, data: st.DataObject) -> None:
    whole = recorded.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    copy = recorded.parent / "cut.mcap"
    copy.write_bytes(whole[:cut])
    try:
        flight = read_flights(copy)[0]
    except FlightError as error:
        assert "no flight record, or was cut off before its first one" in str(error) and cut < 20_000
        return
    assert flight.cut == (cut < len(whole))
    full = read_flights(recorded)[0].records
    assert [(r.topic, r.log_ns) for r in flight.records] == [(r.topic, r.log_ns) for r in full[: len(flight.records)]]
    found = replay_queue(flight)
    assert found.difference is None and not found.unknown
    lost = len(full) - len(flight.records)
    assert lost == 0 or cut < len(whole)


@pytest.mark.slow
def test_a_spoilt_file_gives_a_clear_error_or_is_read(recorded: Path) -> None:
    whole, copy = recorded.read_bytes(), recorded.parent / "spoilt.mcap"
    policy = FunctionPolicy(scribble)
    found = Counter()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        spoilt = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            spoilt[place] = rng.integers(256) if rng.random() < 0.5 else rng.choice(list(b"0123456789"))
        copy.write_bytes(bytes(spoilt))
        try:
            (flight,) = read_flights(copy)
            found["different"] += replay_queue(flight).difference is not None
            explanation_lines(explain(flight, 11))
            replay_policy(flight, policy)
            found["read"] += 1
        except FlightError:
            found["error"] += 1
    assert found["different"] and found["read"] and found["error"]


def test_what_is_no_record_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("hello, this is no record")
    for path, expected in (
        (tmp_path / "text", "is no MCAP file"),
        (tmp_path / "nothing", "does not exist; a file that --record_flight wrote"),
        (tmp_path, "holds no flight record"),
    ):
        assert main(["replay-flight", str(path)]) == 2
        assert expected in capsys.readouterr().err
        assert main(["why", str(path), "--tick=1"]) == 2
        assert expected in capsys.readouterr().err
    assert main(["replay-flight"]) == 2


# why


def test_why_names_chunks_and_their_weights(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {
        "latest_only": lambda n: [0.0] * (n - 1) + [1.0],
        "weighted_average": lambda n: [0.3 ** (n - 1)] + [0.7 * 0.3 ** (n - 1 - i) for i in range(1, n)],
        "conservative": lambda n: [0.7 ** (n - 1)] + [0.3 * 0.7 ** (n - 1 - i) for i in range(1, n)],
        "temporal_ensemble": lambda n: (e := np.exp(-ENSEMBLE_DECAY * np.arange(n))) / e.sum(),
    }
    node = serve(FunctionPolicy(scribble))
    for aggregate, expected in weights.items():
        record(node, tmp_path / aggregate, latency="fixed:1", aggregate=aggregate, chunk_size_threshold=0.9)
        found = explain(the_flight(tmp_path / aggregate), 21)
        count = len(found.shares)
        assert count >= 3 and found.blend_is_equal
        np.testing.assert_allclose([share.weight for share in found.shares], expected(count), rtol=1e-12)
        mixed = sum(share.weight * share.prediction[:2].astype(float) for share in found.shares)
        np.testing.assert_allclose(mixed, found.requested[:2], rtol=1e-5)
        for share in found.shares:
            state = np.asarray(found.requests[share.merge["seq"]].observation.arrays[STATE])  # type: ignore[union-attr]
            asked = state_at(share.start)
            request = Request("", dataclasses.replace(asked, arrays={STATE: state}))
            assert np.array_equal(scribble(request)[21 - share.start], share.prediction)
    assert main(["why", str(tmp_path / "weighted_average"), "--tick=21", "--episode=0"]) == 0
    out = capsys.readouterr().out
    assert "blended by weighted_average" in out and "weight 0.7;" in out
    assert "the blend is equal to the recorded action, bit for bit" in out and "no limit changed it" in out
    assert "joint_1" in out and "(binary)" in out and "observation.state, taken " in out
    assert main(["why", str(tmp_path / "weighted_average"), "--tick=40"]) == 2
    assert "it has episode 0: ticks 0 to 39" in capsys.readouterr().err


def test_why_names_limits_and_what_was_said(serve: Serve, tmp_path: Path) -> None:
    robot = Limited()
    record(serve(FunctionPolicy(scribble)), tmp_path, robot=robot)
    flight = the_flight(tmp_path)
    tick = next(r.data for r in flight.records if r.topic == TICK and abs(r.data["requested"][0]) > 0.5)
    text = "\n".join(explanation_lines(explain(flight, tick["tick"])))
    side = "upper bound, 0.5" if tick["requested"][0] > 0 else "lower bound, -0.5"
    assert f"changed: at its {side}" in text
    assert f"said, tick {tick['tick']}: a bound was reached" in text
    assert replay_queue(flight).difference is None


def test_why_says_what_a_starved_tick_waited_for(serve: Serve, tmp_path: Path) -> None:
    record(serve(FunctionPolicy(scribble)), tmp_path, latency="fixed:7", chunk_size_threshold=0.25)
    flight = the_flight(tmp_path)
    starved = next(r.data["tick"] for r in flight.records if r.topic == TICK and r.data["starved"])
    found = explain(flight, starved)
    text = "\n".join(explanation_lines(found))
    assert found.blend_is_equal and not found.shares
    (request,) = found.under_way
    assert request.merged is not None and request.merged["tick"] == request.tick + 7 > starved
    assert "starved: no chunk covered this tick" in text
    assert f"request {request.seq}, of tick {request.tick}, had no chunk in the queue yet: its chunk was merged" in text


def test_why_writes_what_the_policy_saw(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = (24, 32)
    policy = TickerConfig(width=3, horizon=HORIZON, cameras=2, image_size=size).make()
    robot = SyntheticRobot(synthetic(cameras=2, image_size=size))
    record(serve(policy), tmp_path / "a", robot=robot, latency="fixed:0")
    assert main(["why", str(tmp_path / "a"), "--tick=30", f"--images={tmp_path / 'seen'}"]) == 0
    assert f"{IMAGES}camera_1, taken " in capsys.readouterr().out
    found = explain(the_flight(tmp_path / "a"), 30)
    files = sorted((tmp_path / "seen").iterdir())
    assert len(files) == 2 * len(found.requests)
    asked = max(request.tick for request in found.requests.values())
    (newest,) = [file for file in files if f"tick_{asked}_camera_0" in file.name]
    picture = cv2.imread(str(newest))
    assert picture is not None and picture.shape == (*size, 3) and (picture == asked).all()


# the commands


@pytest.fixture
def ticker(serve: Serve) -> str:
    policy: Policy = TickerConfig(width=3, horizon=HORIZON).make()
    return serve(policy).endpoint


def arguments(endpoint: str, tmp_path: Path, **keys: object) -> list[str]:
    given = {"record_flight": tmp_path / "flight", "output_dir": tmp_path / "out", "episodes": 2} | keys
    robot = ["--robot.type=synthetic", "--robot.width=3"]
    return [f"--connect={endpoint}", *robot, *(f"--{key}={value}" for key, value in given.items())]


def tactus(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TACTUS, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_killed_run_is_readable_up_to_its_last_second(ticker: str, tmp_path: Path) -> None:
    keys = {"robot.steps": 100_000, "episodes": 1}
    process = subprocess.Popen(
        [*TACTUS, "run", *arguments(ticker, tmp_path, **keys)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + 60
    while not any(file.stat().st_size > 60_000 for file in (tmp_path / "flight").glob("*.mcap")):
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.02)
    killed_ns = time.time_ns()
    process.send_signal(signal.SIGKILL)
    process.wait()
    flight = the_flight(tmp_path / "flight")
    assert flight.cut and "its run was killed" in flight.notes[0]
    last = [r for r in flight.records if r.topic == TICK][-1]
    assert killed_ns - last.log_ns < 1e9
    found = replay_queue(flight)
    assert (
        found.difference is None and not found.unknown and found.ticks == sum(r.topic == TICK for r in flight.records)
    )


@pytest.mark.slow
def test_eval_records_and_is_replayed_and_asked_why(ticker: str, tmp_path: Path) -> None:
    keys = {"robot.steps": 60, "latency": LATE, "record_actions": "true", "aggregate": "average"}
    assert tactus("eval", *arguments(ticker, tmp_path, **keys)).returncode == 0
    flight = str(tmp_path / "flight")
    found = tactus("replay-flight", flight, "--policy.type=ticker", "--policy.width=3", f"--policy.horizon={HORIZON}")
    assert found.returncode == 0, found.stderr
    assert "queue: equal, bit for bit: 120 ticks" in found.stdout and "policy: equal, bit for bit:" in found.stdout
    assert "synthetic with ticker: episode 1, tick 40" in tactus("why", flight, "--tick=40").stdout
    actions = tmp_path / "out" / "actions" / "episode_00000.npz"
    again = arguments(ticker, tmp_path, record_flight=tmp_path / "by hand", actions=actions, output_dir=tmp_path / "o2",
                      episodes=1)  # fmt: skip
    played = tactus("replay", *again[1:])  # it needs no policy node
    assert played.returncode == 0, played.stderr
    by_hand = tactus("replay-flight", str(tmp_path / "by hand"))
    assert by_hand.returncode == 0 and "no policy drove the robot" in by_hand.stdout
    assert "nobody queues here" in tactus("why", str(tmp_path / "by hand"), "--tick=3").stdout


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_told_before_anything_moves(ticker: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = tactus("run", *arguments(ticker, tmp_path, record_flight=tmp_path / "file" / "x"))
    assert found.returncode == 2 and not (tmp_path / "out").exists()
    assert "record_flight: " in found.stderr and "x cannot be written: " in found.stderr and "is a file" in found.stderr


@pytest.mark.slow
def test_a_refused_robot_leaves_the_refusal(ticker: str, tmp_path: Path) -> None:
    found = tactus("run", *arguments(ticker, tmp_path, **{"robot.cameras": 1, "robot.width": 4}))
    assert found.returncode == 3
    messages = [r.message() for r in the_flight(tmp_path / "flight").records if r.topic.startswith("/wire/")]
    kinds = [message.kind for message in messages if message]
    assert kinds[0] == "HELLO" and "REFUSE" in kinds
    again = tactus("replay-flight", str(tmp_path / "flight"))
    assert again.returncode == 0 and "no action was sent" in again.stdout


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_record_and_not_the_run(ticker: str, tmp_path: Path) -> None:
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # noqa: E731
    found = tactus("eval", *arguments(ticker, tmp_path, **{"robot.steps": 300, "episodes": 3}), preexec_fn=limit)
    assert found.returncode == 0, found.stderr
    assert (found.stdout + found.stderr).count("the flight recorder has stopped: File too large") == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["ticks"] == 900
    flight = the_flight(tmp_path / "flight")
    assert flight.cut and os.path.getsize(flight.files[0]) <= 50_000
    assert replay_queue(flight).difference is None


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"workers": 2}, "record_flight: records one robot node"),
        ({"sweep.default": "true"}, "record_flight: records one robot node"),
        ({"flight_minutes": 0}, "flight_minutes: found 0; must be at least 0.1"),
        ({"flight_gb": "nan"}, "flight_gb: found 'nan'; expected a finite number"),
    ],
)
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, keys: dict[str, object], words: str) -> None:
    found = tactus("eval", *arguments("tcp://127.0.0.1:1", tmp_path, **keys))
    assert found.returncode == 2 and words in found.stderr and not (tmp_path / "flight").exists()
