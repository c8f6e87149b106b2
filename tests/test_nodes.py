"""Link and policy node over real sockets: handshake, bad input, failures, restarts, company."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq
from conftest import Serve
from doubles import HORIZON, FunctionPolicy, count, slow_count, state_at, synthetic, vector

from tactus.hal.spec import IMAGES, STATE, Feature, PolicySpec, RobotSpec, image
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.policy_node.node import BindError, PolicyNode
from tactus.runtime.robot_node.clock import RealClock, VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.handshake import mismatches
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link, LinkError, Refused, Reply

pytestmark = pytest.mark.realtime

ROOT = Path(__file__).parents[1]
ROBOT = synthetic().make().spec.to_dict()


@pytest.fixture
def links() -> Iterator[list[Link]]:
    opened: list[Link] = []
    yield opened
    for link in opened:
        link.close()


def greet(node: PolicyNode, links: list[Link], spec: RobotSpec | None = None) -> Link:
    link = Link(node.endpoint)
    links.append(link)
    link.hello(spec or synthetic().make().spec, timeout_s=5)
    return link


def answer(link: Link, timeout_s: float = 5.0) -> Reply:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        link.wait(0.05)
        if replies := link.poll():
            return replies[0]
    raise AssertionError("no reply")


def raw(node: PolicyNode) -> zmq.Socket:
    peer = zmq.Context.instance().socket(zmq.DEALER)
    peer.setsockopt(zmq.LINGER, 0)
    peer.connect(node.endpoint)
    return peer


def run_episode(
    node: PolicyNode, latency: str = "fixed:0", said: list[str] | None = None, **config: object
) -> EpisodeStats:
    """One virtual-time episode of the synthetic robot."""
    robot, link, clock = synthetic().make(), Link(node.endpoint), VirtualClock(50.0)
    try:
        policy = link.hello(robot.spec, timeout_s=5)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=5)
        loop = RobotNode(
            robot, policy, delayed, clock, LoopConfig(**config), say=(said if said is not None else []).append
        )
        return loop.run_episode(0, seed=1)
    finally:
        link.close()


# handshake


def test_every_mismatch_is_listed_before_the_first_action(serve: Serve, links: list[Link]) -> None:
    inputs = {
        STATE: vector(6, unit="rad", names=tuple("abcdef")),
        f"{IMAGES}top": image(480, 640),
        f"{IMAGES}wrist": image(240, 320),
    }
    action = vector(6, unit="rad", names=tuple("abcdef"), mode=("absolute",) * 5 + ("binary",))
    node = serve(TickerPolicy(inputs, action, 10))
    robot = RobotSpec(
        "arm",
        30.0,
        {STATE: vector(6, unit="degree", names=tuple("abcdfe")), f"{IMAGES}top": image(240, 320)},
        Feature((7,), "float64", mode=("absolute",) * 7),
    )
    link = Link(node.endpoint)
    links.append(link)
    with pytest.raises(Refused) as caught:
        link.hello(robot, timeout_s=5)
    text = str(caught.value)
    for expected in (
        "observation.state: unit: robot degree, policy rad",
        "observation.state: names: robot / policy differ at [4] f / e, [5] e / f",
        "observation.images.top: shape: robot 240x320x3, policy 480x640x3",
        "observation.images.wrist: the policy needs it, the robot observes observation.images.top, observation.state",
        "action: shape: robot 7, policy 6",
        "action: dtype: robot float64, policy float32",
    ):
        assert expected in text
    assert len(caught.value.reasons) == 6


def test_modes_and_rate_are_compared() -> None:
    robot = synthetic().make().spec
    policy = PolicySpec("p", {}, robot.action, 8, fps=50.0)
    assert mismatches(robot, policy) == []
    flipped = replace(robot.action, mode=("absolute", "delta", "binary"))
    assert mismatches(robot, replace(policy, action=flipped, fps=20.0)) == [
        "action: mode: robot / policy differ at [0] delta / absolute",
        "fps: robot 50, policy 20",
    ]


def test_what_a_checkpoint_does_not_say_is_not_compared() -> None:
    """No units, a dtype that it casts; but image sizes and the robot it knows count, unless they are allowed."""
    top = f"{IMAGES}top"
    observations = {STATE: vector(3, unit="rad"), top: image(48, 64)}
    robot = RobotSpec("arm", 30.0, observations, vector(3, unit="rad"))
    inputs = {STATE: Feature((3,), "float64", unit=""), top: image(96, 128)}
    policy = PolicySpec("p", inputs, vector(3, unit=""), 8, casts=True, robot="leg")
    size, known = mismatches(robot, policy)[::-1]
    assert size.startswith("observation.images.top: shape: robot 48x64x3, policy 96x128x3; give the robot the size")
    assert known.startswith("robot: the policy was trained on leg, this is arm; ") and "--allow robot" in known
    assert mismatches(robot, policy, ["image_size"]) == [known]
    assert mismatches(robot, replace(policy, robot="leg, arm"), ["image_size"]) == [], "it may know several"
    assert mismatches(robot, policy, ["image_size", "robot"]) == []
    assert len(mismatches(robot, replace(policy, casts=False), ["image_size", "robot"])) == 1
    grey = replace(robot, observations={**observations, top: Feature((48, 64, 1), "uint8")})
    assert mismatches(grey, policy, ["image_size", "robot"]), "colours are no matter of size"


@pytest.mark.slow
def test_nobody_there_is_said_with_the_address() -> None:
    link = Link("tcp://127.0.0.1:9")
    with pytest.raises(LinkError, match=r"tcp://127.0.0.1:9 within 0.5 s; is `tactus serve` running"):
        link.hello(synthetic().make().spec, timeout_s=0.5)
    link.close()


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5555", "tcp://", "carrier-pigeon://x"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(LinkError, match="expected e.g. tcp://127.0.0.1:5555"):
        Link(endpoint)


def test_a_port_in_use_is_said_so() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BindError, match="something else is listening there; choose another port"):
            PolicyNode(FunctionPolicy(count), f"tcp://127.0.0.1:{other.getsockname()[1]}")


@pytest.mark.parametrize(
    "bind", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.0.2.1:5555", "tcp://[::]:5555", "tcp://127.example:5555"]
)
def test_a_public_address_is_refused_without_insecure(bind: str) -> None:
    with pytest.raises(BindError, match="reached from other machines"):
        PolicyNode(FunctionPolicy(count), bind)


# bad input


def test_bad_messages_get_a_named_error_and_the_node_lives(serve: Serve, links: list[Link]) -> None:
    node = serve(FunctionPolicy(count))
    link = greet(node, links)
    good = [bytes(frame) for frame in codec.encode(Message(codec.OBSERVE, arrays={STATE: np.zeros(3, np.float32)}))]
    peer = raw(node)
    cases = {
        "wire_header": [[b"junk"], [b""], [b"\xc1", b"x"]],
        "wire_frames": [good[:-1], [*good, b"more"]],
        "wire_shape": [[good[0], good[1][:-1]], [good[0], good[1] + b"x"]],
        "wire_kind": [[bytes(codec.encode(Message(codec.CHUNK))[0])]],
        "wire_spec": [
            [bytes(codec.encode(Message(codec.HELLO, meta={"robot": 3}))[0])],
            [bytes(codec.encode(Message(codec.HELLO, meta={"robot": {**ROBOT, "action": {"dtype": "O"}}}))[0])],
            [bytes(codec.encode(Message(codec.HELLO, meta={"robot": {**ROBOT, "observations": {"a": []}}}))[0])],
        ],
        "wire_session": [[bytes(codec.encode(Message(codec.HELLO, link.session, meta={"robot": ROBOT}))[0])]],
        "unknown_session": [good, [bytes(codec.encode(Message(codec.PING))[0])]],
    }
    for code, messages in cases.items():
        for frames in messages:
            peer.send_multipart(frames)
            assert peer.poll(2000), code
            reply = codec.decode(peer.recv_multipart())
            assert (reply.kind, reply.meta["code"]) == (codec.ERROR, code), reply.meta
    peer.close()
    link.reset(0, 1, "")
    link.request(state_at(3), 0, 0)
    assert answer(link).chunk is not None
    assert node.counters.rejected >= 8


def test_an_observation_of_the_wrong_shape_is_an_error_to_that_robot_only(serve: Serve, links: list[Link]) -> None:
    node = serve(FunctionPolicy(count))
    wrong, right = greet(node, links), greet(node, links)
    for link in (wrong, right):
        link.reset(0, 1, "")
    for array, found in ((np.zeros(4, np.float32), "float32[4]"), (np.zeros(3), "float64[3]")):
        wrong.request(replace(state_at(0), arrays={STATE: array}), 0, 0)
        reply = answer(wrong)
        assert reply.chunk is None and f"found {found}, expected float32[3]" in reply.error
    right.request(state_at(0), 0, 0)
    assert answer(right).chunk is not None


def broken(request: object) -> np.ndarray:
    raise RuntimeError("the camera of my mind is dark")


@pytest.mark.parametrize(
    "fault, words",
    [
        (broken, "RuntimeError: the camera of my mind is dark"),
        (lambda request: np.full((HORIZON, 3), np.nan, np.float32), "chunk has nan at action 0, dimension [0]"),
        (lambda request: np.full((HORIZON, 3), np.inf, np.float32), "chunk has inf at action 0"),
        (lambda request: np.zeros((HORIZON - 1, 3), np.float32), f"chunk is float32[{HORIZON - 1}, 3], expected"),
        (lambda request: [[0.0] * 3] * HORIZON, "AttributeError: 'list' object has no attribute 'shape'"),
        (lambda request: np.zeros((HORIZON, 3)), f"chunk is float64[{HORIZON}, 3], expected float32"),
    ],
    ids=["raises", "nan", "inf", "shape", "list", "dtype"],
)
def test_a_faulty_policy_is_shown_and_the_robot_holds(serve: Serve, fault, words: str) -> None:
    calls = []

    def sometimes(request):
        calls.append(request)
        return fault(request) if len(calls) == 2 else count(request)

    said: list[str] = []
    stats = run_episode(serve(FunctionPolicy(sometimes)), said=said, chunk_size_threshold=0.0, error_retry_s=0.1)
    assert any(words in line for line in said), said
    assert stats.policy_errors == 1
    assert stats.starved_ticks == 5  # 0.1 s at 50 Hz, then it asks again
    assert stats.ticks == 40
    held = [action.tolist() for action in stats.actions[HORIZON : HORIZON + 5]]
    assert held == [[0, 0, HORIZON - 1]] * 5  # increments zero, the binary one keeps its value


@pytest.mark.slow
def test_a_policy_that_never_works_fails_with_its_own_words(serve: Serve) -> None:
    with pytest.raises(LinkError, match="no first chunk within 0.5 s; the policy's last error: .*dark"):
        run_episode(serve(FunctionPolicy(broken)), start_timeout_s=0.5, error_retry_s=0.05)


def test_a_reset_that_fails_is_told_and_tried_again(serve: Serve, links: list[Link]) -> None:
    class Fussy(FunctionPolicy):
        def reset(self, session) -> None:
            super().reset(session)
            if len(self.opened) == 1:
                raise KeyError("instruction")

    policy = Fussy(count)
    link = greet(serve(policy), links)
    link.reset(0, 9, "pick")
    link.request(state_at(0), 0, 0)
    assert "KeyError: 'instruction'" in answer(link).error
    link.request(state_at(1), 0, 0)
    assert answer(link).chunk is not None
    assert [session.seed for session in policy.opened] == [9, 9]


# time


def test_no_action_is_skipped_or_repeated_at_zero_latency(serve: Serve) -> None:
    """LeRobot's async client executes 0…9, 11, 12…: it labels observations with the last action's tick."""
    for threshold in (0.0, 0.5):
        stats = run_episode(serve(FunctionPolicy(count)), chunk_size_threshold=threshold)
        assert [action[0] for action in stats.actions] == list(range(40))
        assert (stats.starved_ticks, stats.stale_actions_dropped) == (0, 0)


@pytest.mark.parametrize("delay", [1, 2, 3, 4])
def test_at_any_covered_latency_every_tick_gets_its_own_action(serve: Serve, delay: int) -> None:
    stats = run_episode(serve(FunctionPolicy(count)), latency=f"fixed:{delay}", chunk_size_threshold=0.5)
    assert [action[0] for action in stats.actions] == list(range(40))
    assert stats.stale_actions_dropped == delay * (stats.chunks - 1)  # the first one waits at the gate
    assert stats.starved_ticks == 0


@pytest.mark.parametrize(
    "starvation, onward, asked, starved",  # pause: what comes after the last one executed; skip: tick 11's own
    [("pause", [8, 9, 10], [0, 8, 19], 9), ("skip", [11, 12, 13], [0, 8, 16], 12)],
)
def test_an_uncovered_latency_starves_for_exactly_its_excess(
    serve: Serve, starvation: str, onward: list[int], asked: list[int], starved: int
) -> None:
    node = serve(FunctionPolicy(count))
    stats = run_episode(node, latency="fixed:3", chunk_size_threshold=0.0, starvation=starvation)
    executed = [action[2] for action in stats.actions]
    assert executed[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, *onward]
    assert stats.starved_ticks == starved
    assert stats.asked[:3] == asked and stats.latency_ticks[1:3] == [3, 3]
    assert stats.stale_actions_dropped == (0 if starvation == "pause" else 12)


def test_what_was_executed_while_waiting_is_not_done_twice(serve: Serve) -> None:
    """Asked with two actions left, answered five ticks later: two are past, three ticks were starved."""
    node = serve(FunctionPolicy(count))
    stats = run_episode(node, latency="fixed:5", chunk_size_threshold=0.25)
    executed = [action[2] for action in stats.actions]
    assert executed[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 8, 9, 10]
    assert stats.stale[1:3] == [2, 2] and stats.sources[6:12] == [0, 0, -1, -1, -1, 6]


@pytest.mark.slow
def test_measured_latency_is_the_policys_own(serve: Serve) -> None:
    stats = run_episode(serve(FunctionPolicy(slow_count(0.05))), latency="measured")
    assert min(stats.latency_ticks[1:]) >= 3  # 50 ms and a little at 50 Hz
    assert min(stats.inference_ms) >= 50


def test_lost_and_overtaken_replies_repeat_exactly(serve: Serve) -> None:
    node = serve(FunctionPolicy(count))
    runs = [run_episode(node, latency="lognormal:2,drop=0.2,reorder=0.2", request_timeout_s=0.2) for _ in range(2)]
    assert runs[0].resends > 0
    assert runs[0].latency_ticks == runs[1].latency_ticks
    assert [a.tolist() for a in runs[0].actions] == [a.tolist() for a in runs[1].actions]
    binary = [action[2] for action in runs[0].actions]
    assert binary == sorted(binary)  # a late old chunk never turns time back


def test_a_history_is_exactly_the_ticks_asked_for(serve: Serve) -> None:
    seen = []

    def look(request) -> np.ndarray:
        seen.append((request.observation.tick, request.observation.arrays[STATE].copy()))
        return np.full((HORIZON, 3), 1.0, np.float32)

    robot = synthetic().make()
    robot.reset(0, 1)
    start = robot.observe().arrays[STATE]
    run_episode(serve(FunctionPolicy(look, offsets=(-3, -1, 0))), chunk_size_threshold=0.5)
    for tick, stacked in seen:
        expected = [start + max(0, tick + offset) for offset in (-3, -1, 0)]
        np.testing.assert_allclose(stacked, expected, rtol=0, atol=1e-5)
    assert len(seen) > 3


@pytest.mark.slow
def test_real_time_keeps_the_beat_while_the_policy_thinks(serve: Serve, links: list[Link]) -> None:
    robot = synthetic(steps=50).make()
    node = serve(FunctionPolicy(slow_count(0.03)))
    link = greet(node, links)
    clock = RealClock(50.0)
    stats = RobotNode(robot, FunctionPolicy(count).spec, link, clock, LoopConfig()).run_episode(0, 1)
    assert [action[0] for action in stats.actions][:4] == [0, 1, 2, 3]
    assert stats.ticks + stats.skipped_ticks >= 49
    fresh = [action[2] for action in stats.actions]
    assert fresh == sorted(fresh)


# failures


SERVER = """
import sys; sys.path.insert(0, "tests")
from doubles import FunctionPolicy, count
from tactus.runtime.policy_node.node import PolicyNode
node = PolicyNode(FunctionPolicy(count), sys.argv[1])
print("ready", flush=True)
node.run()
"""


def start_server(endpoint: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, endpoint], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_policy_node_killed_mid_episode(tmp_path: Path, comes_back: bool) -> None:
    endpoint = f"ipc://{tmp_path}/node"
    first = start_server(endpoint)
    servers, said = [first], []
    robot, link = synthetic(steps=400).make(), Link(endpoint)

    def accident() -> None:
        time.sleep(0.8)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        if comes_back:
            time.sleep(0.5)  # longer than a request waits, which a start may not be
            servers.append(start_server(endpoint))

    try:
        policy = link.hello(robot.spec, timeout_s=5)
        config = LoopConfig(request_timeout_s=0.3, lost_after_s=30 if comes_back else 1.0)
        node = RobotNode(robot, policy, link, RealClock(50.0), config, say=said.append)
        trouble = threading.Thread(target=accident)
        trouble.start()
        if comes_back:
            stats = node.run_episode(0, 1)
            trouble.join()
            assert stats.starved_ticks > 0 and stats.resends > 0
            tail = [action[2] for action in stats.actions][-20:]
            assert tail == sorted(set(tail)), "after the restart every tick has its own action again"
        else:
            with pytest.raises(LinkError, match=r"silent for 1\.\d s; the robot holds"):
                node.run_episode(0, 1)
        assert any("has been silent" in line for line in said)
    finally:
        link.close()
        for server in servers:
            server.kill()
            server.wait()


@pytest.mark.slow
def test_virtual_time_also_survives_a_restart(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/node"
    server = start_server(endpoint)
    robot, link, clock = synthetic(steps=30).make(), Link(endpoint), VirtualClock(50.0)
    try:
        policy = link.hello(robot.spec, timeout_s=5)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:1"), lost_after_s=20)
        node = RobotNode(robot, policy, delayed, clock, LoopConfig())
        before = node.run_episode(0, 1)
        server.kill()
        server.wait()
        server = start_server(endpoint)
        after = node.run_episode(0, 1)
        assert [a.tolist() for a in before.actions] == [a.tolist() for a in after.actions]
    finally:
        link.close()
        server.kill()
        server.wait()


def test_another_policy_behind_the_same_address_is_not_obeyed(tmp_path: Path, serve: Serve, links: list[Link]) -> None:
    bind = f"ipc://{tmp_path}/node"
    first = PolicyNode(FunctionPolicy(count), bind)
    thread = threading.Thread(target=first.run)
    thread.start()
    link = greet(first, links)
    link.reset(0, 1, "")
    first.stop()
    thread.join()
    serve(FunctionPolicy(count, offsets=(-1, 0)), bind)
    with pytest.raises(Refused, match="another policy"):
        for _ in range(50):
            link.ping()
            link.wait(0.1)
            link.poll()


# company


def test_two_robots_at_once_do_not_disturb_each_other(serve: Serve) -> None:
    node = serve(FunctionPolicy(count, max_batch=4))
    results: dict[int, EpisodeStats] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: run_episode(node, "fixed:2")})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for stats in results.values():
        assert [action[0] for action in stats.actions] == list(range(40))


@pytest.mark.slow
def test_only_the_newest_observation_waits(serve: Serve, links: list[Link]) -> None:
    policy = FunctionPolicy(slow_count(0.3))
    node = serve(policy)
    link = greet(node, links)
    link.reset(0, 1, "")
    link.request(state_at(0), 0, 0)
    time.sleep(0.1)
    for tick in (1, 2, 3):
        link.request(state_at(tick), 0, 0)
    assert [answer(link).chunk.start, answer(link).chunk.start] == [0, 3]
    assert node.counters.superseded == 2


def test_answers_to_an_earlier_episode_do_not_reach_the_next(serve: Serve, links: list[Link]) -> None:
    link = greet(serve(FunctionPolicy(slow_count(0.2))), links)
    link.reset(0, 1, "")
    link.request(state_at(50), 0, 0)
    time.sleep(0.05)
    link.reset(1, 1, "")
    link.request(state_at(0), 0, 0)
    assert answer(link).chunk.start == 0


@pytest.mark.slow
def test_pings_are_answered_while_the_policy_thinks(serve: Serve, links: list[Link]) -> None:
    link = greet(serve(FunctionPolicy(slow_count(1.0))), links)
    link.reset(0, 1, "")
    link.request(state_at(0), 0, 0)
    time.sleep(0.2)
    link.poll()
    before_s = link.silent_s
    link.ping()
    assert link.wait(0.5), "no answer while thinking"
    assert link.poll() == [] and link.silent_s < before_s
    assert answer(link).chunk is not None


@pytest.mark.slow
def test_waiting_robots_share_a_batch(serve: Serve, links: list[Link]) -> None:
    policy = FunctionPolicy(slow_count(0.2), max_batch=4)
    node = serve(policy)
    robots = [greet(node, links) for _ in range(4)]
    for link in robots:
        link.reset(0, 1, "")
    for tick, link in enumerate(robots):
        link.request(state_at(tick), 0, 0)
    assert [answer(link).chunk.start for link in robots] == [0, 1, 2, 3]
    assert max(len(batch) for batch in policy.batches) >= 3


@pytest.mark.slow
def test_one_robots_fault_does_not_cost_the_others_their_answer(serve: Serve, links: list[Link]) -> None:
    def picky(request) -> np.ndarray:
        time.sleep(0.05)
        if request.observation.tick == 2:
            raise ValueError("not that one")
        return count(request)

    node = serve(FunctionPolicy(picky, max_batch=4))
    robots = [greet(node, links) for _ in range(4)]
    for link in robots:
        link.reset(0, 1, "")
    for tick, link in enumerate(robots):
        link.request(state_at(tick), 0, 0)
    replies = [answer(link) for link in robots]
    assert ["not that one" in reply.error for reply in replies] == [False, False, True, False]
    assert [reply.chunk.start for reply in replies if reply.chunk] == [0, 1, 3]


def test_a_robot_that_leaves_is_forgotten(serve: Serve, links: list[Link]) -> None:
    policy = FunctionPolicy(count)
    node = serve(policy)
    link = greet(node, links)
    link.reset(0, 1, "")
    link.request(state_at(0), 0, 0)
    answer(link)
    link.close()
    deadline_s = time.monotonic() + 3
    while not policy.ended and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert policy.ended == [link.session]


def test_one_way_times_are_honest_and_the_offset_is_small_on_one_machine(serve: Serve, links: list[Link]) -> None:
    link = greet(serve(FunctionPolicy(slow_count(0.05))), links)
    link.reset(0, 1, "")
    link.request(state_at(0), 0, 0)
    reply = answer(link)
    assert reply.round_trip_ms >= 50
    assert -1 < reply.uplink_ms < 20 and -1 < reply.downlink_ms < 30
    assert reply.chunk.timings_ms["infer"] >= 50
    assert link.offset_error_ms < 20
