"""What one robot can cost the others: a flood, a session too many, one that never reads, one that just went."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import zmq
from conftest import Serve
from doubles import FunctionPolicy, count, eventually, slow_count, state_at, synthetic
from hypothesis import given
from hypothesis import strategies as st

from tactus.hal.spec import STATE, image
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.commands import main
from tactus.runtime.policy_node.limits import SEND_HWM, STRANGER_HZ, STRANGERS, LimitsConfig
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.policy_node.session_table import EVERY_S, QUIET_S, SessionTable
from tactus.runtime.rate import Rate
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.link import Link, Refused, Reply

pytestmark = pytest.mark.realtime

SPEC = synthetic().make().spec


@pytest.fixture
def greet() -> Iterator[Callable[[PolicyNode], Link]]:
    made: list[Link] = []

    def hello(node: PolicyNode) -> Link:
        made.append(Link(node.endpoint))
        made[-1].hello(SPEC, 10)
        return made[-1]

    yield hello
    for link in made:
        link.close()


@pytest.fixture
def raw() -> Iterator[Callable[..., zmq.Socket[bytes]]]:
    """Sockets that say what they like."""
    made: list[zmq.Socket[bytes]] = []

    def connect(node: PolicyNode, name: str = "") -> zmq.Socket[bytes]:
        peer = zmq.Context.instance().socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        if name:
            peer.setsockopt(zmq.ROUTING_ID, name.encode())
        peer.connect(node.endpoint)
        made.append(peer)
        return peer

    yield connect
    for peer in made:
        peer.close()


def hello(name: str) -> list[bytes]:
    return codec.encode(Message(codec.HELLO, name, meta={"robot": SPEC.to_dict(), "real_time": True}))


def observe(name: str, seq: int) -> list[bytes]:
    about = {"task": "", "ticks_left": 0, "stamps_ns": [0], "merged": 0, "reset": 1}
    return codec.encode(Message(codec.OBSERVE, name, seq, 0, {STATE: np.zeros(3, np.float32)}, about))


def reset(name: str) -> list[bytes]:
    return codec.encode(Message(codec.RESET, name, 1, meta={"episode": 0, "seed": 0, "task": ""}))


def ask(link: Link, tick: int = 0) -> Reply:
    link.request(state_at(tick), 0, 0)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        link.wait(0.02)
        if replies := link.poll():
            return replies[0]
    raise TimeoutError


@given(st.floats(1, 1000), st.lists(st.floats(0, 1), max_size=300))
def test_a_rate_lets_through_its_share_and_one_seconds_worth(per_s: float, pauses_s: list[float]) -> None:
    rate, now_s, passed = Rate(per_s), 0.0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        passed += rate.allows(now_s)
    assert passed <= per_s * (1 + now_s) + 1e-6
    if all(pause_s > 1 / per_s * (1 + 1e-9) for pause_s in pauses_s):
        assert passed == len(pauses_s), "who keeps to the rate loses nothing"


def test_a_flood_costs_the_others_nothing(serve: Serve, greet, raw) -> None:
    """Tens of thousands of messages a second from one robot: another is answered as it was before."""
    node = serve(FunctionPolicy(count), limits=LimitsConfig(rate_hz=500))
    good, flooder = greet(node), raw(node, "flooder")
    good.reset(0, 0, "")
    flooder.send_multipart(hello("flooder"))
    flooder.send_multipart(reset("flooder"))
    over = threading.Event()

    def flood() -> None:
        seq = 1
        while not over.is_set():
            seq += 1
            if flooder.poll(10, zmq.POLLOUT):
                flooder.send_multipart(observe("flooder", seq))
            while flooder.poll(0):
                flooder.recv_multipart()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        eventually(lambda: node.counters.limited > 500)
        for tick in range(50):
            reply = ask(good, tick)
            assert reply.chunk is not None and reply.chunk.start == tick and not good.repeated
    finally:
        over.set()
        thread.join()


def test_strangers_share_one_rate_and_robots_are_served_beside_them(serve: Serve, greet, raw) -> None:
    node = serve(FunctionPolicy(count), limits=LimitsConfig(rate_hz=200))
    good = greet(node)
    good.reset(0, 0, "")
    for index in range(20):
        stranger = raw(node, f"stranger{index}")
        for seq in range(50):
            stranger.send_multipart(observe("x", seq))
    eventually(lambda: node.counters.limited > 500)
    assert ask(good).chunk is not None
    assert node.counters.messages <= 200 + 200 * 10 + 10


def test_a_stranger_who_floods_keeps_nobody_from_introducing_themselves(serve: Serve, greet, raw) -> None:
    """What a node that was started again meets: a robot that floods on as before, and others that it does not know."""
    node = serve(FunctionPolicy(count))
    flooder, over = raw(node, "flooder"), threading.Event()

    def flood() -> None:
        while not over.is_set():
            if flooder.poll(10, zmq.POLLOUT):
                flooder.send_multipart(observe("flooder", 2))
            while flooder.poll(0):
                flooder.recv_multipart()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        eventually(lambda: node.counters.limited > 5000)
        began_s = time.monotonic()
        for _ in range(20):
            good = greet(node)
            good.reset(0, 0, "")
            assert ask(good).chunk is not None and not good.repeated
        assert time.monotonic() - began_s < 20, "a HELLO in fifty was heard: minutes"
    finally:
        over.set()
        thread.join()


@given(st.integers(1, 2 * STRANGERS), st.integers(1, 1000))
def test_strangers_have_each_a_part_of_one_rate(others: int, rate_hz: int) -> None:
    table = SessionTable(LimitsConfig(rate_hz=rate_hz), lambda peer_id: True)
    loud = sum(table.allows(b"loud", 0.0) for _ in range(2000))
    assert loud == min(rate_hz, STRANGER_HZ)
    assert sum(table.allows(f"{index}".encode(), 0.0) for index in range(others)) == min(others, rate_hz - loud)


def test_a_message_over_the_limit_ends_its_connection_unread(serve: Serve, greet, raw) -> None:
    node = serve(FunctionPolicy(count), limits=LimitsConfig(message_mb=1))
    good, big = greet(node), raw(node, "big")
    good.reset(0, 0, "")
    big.send_multipart(hello("big"))
    assert big.poll(5000) and codec.decode(big.recv_multipart()).kind == codec.WELCOME
    messages = node.counters.messages
    big.send_multipart([b"\x00" * 2_000_000])
    parts = [bytes(observe("", 1)[0]), *[b"\x00" * 400_000] * 4]  # each is within the limit, together they are not
    second = raw(node)
    second.send_multipart(parts)
    assert second.poll(5000)
    assert "at most 1000000" in codec.decode(second.recv_multipart()).meta["message"]
    assert ask(good).chunk is not None
    assert node.counters.messages == messages + 2, "good's own and the one in parts; the big one never arrived"


def test_a_robot_whose_observations_are_too_large_is_told_before_it_starts(serve: Serve) -> None:
    top = {"observation.images.top": image(1000, 1000)}
    robot = replace(SPEC, observations={**SPEC.observations, **top})
    node = serve(TickerPolicy(robot.observations, robot.action, 5), limits=LimitsConfig(message_mb=1))
    link = Link(node.endpoint)
    with pytest.raises(Refused, match=r"one takes 3\.0 MB and limits\.message_mb is 1; raise it"):
        link.hello(robot, 10)
    link.close()
    assert node.counters.refused == 1 and node.sessions == 0


@pytest.mark.slow
def test_there_are_so_many_sessions_and_a_goodbye_makes_room(serve: Serve, greet) -> None:
    node = serve(FunctionPolicy(count), limits=LimitsConfig(sessions=2))
    first, _ = greet(node), greet(node)
    with pytest.raises(Refused, match=r"2 sessions are open, which is limits\.sessions"):
        greet(node)
    first.close()
    eventually(lambda: node.sessions == 1)
    greet(node)


@pytest.mark.slow
def test_robots_that_died_make_room_at_once(serve: Serve, greet, raw) -> None:
    node = serve(FunctionPolicy(count), limits=LimitsConfig(sessions=2))
    for name in ("one", "two"):
        peer = raw(node, name)
        peer.send_multipart(hello(name))
        assert peer.poll(5000)
        peer.close()  # without a goodbye, as after kill -9
    time.sleep(0.3)
    greet(node)
    assert node.sessions == 1 and node.counters.ended == 2


@pytest.mark.slow
def test_a_session_whose_connection_is_gone_is_ended_and_the_policy_forgets_it(serve: Serve, raw) -> None:
    policy = FunctionPolicy(count)
    node = serve(policy, limits=LimitsConfig(gone_s=0.5))
    peer = raw(node, "one")
    peer.send_multipart(hello("one"))
    assert peer.poll(5000)
    peer.close()
    eventually(lambda: node.sessions == 0, QUIET_S + 0.5 + 2 * EVERY_S + 3)
    assert node.counters.ended == 1
    eventually(lambda: policy.ended == ["one"])


@pytest.mark.slow
def test_a_robot_that_pauses_for_longer_than_it_may_goes_on_where_it_was(serve: Serve, greet) -> None:
    """A person sets the scene up again for ten minutes: the session is closed meanwhile, and nobody notices."""
    policy = FunctionPolicy(count)
    node = serve(policy, limits=LimitsConfig(idle_s=0.5))
    link = greet(node)
    link.reset(4, 1000, "wave")
    assert ask(link, 0).chunk is not None
    eventually(lambda: node.sessions == 0)
    reply = ask(link, 7)
    assert reply.chunk is not None and reply.chunk.start == 7
    assert link.resumed == 1 and [(s.seed, s.task) for s in policy.opened] == [(1004, "wave")] * 2


@pytest.mark.slow
def test_a_quiet_robot_that_is_there_keeps_its_session(serve: Serve, greet) -> None:
    node = serve(FunctionPolicy(count), limits=LimitsConfig(gone_s=0.1))
    link = greet(node)
    time.sleep(QUIET_S + 2 * EVERY_S + 0.2)
    assert node.sessions == 1 and link.poll() == [] and link.silent_s < 0.1, "signs of life came"


def test_answers_that_nobody_reads_are_dropped_at_a_mark(serve: Serve, raw) -> None:
    """A robot that asks and never reads: its answers fill its queue of SEND_HWM and the kernel's, not the node."""
    spec = replace(SPEC, observations={STATE: SPEC.observations[STATE]})
    node = serve(TickerPolicy(spec.observations, spec.action, 60_000), limits=LimitsConfig(rate_hz=1e6))
    peer = raw(node, "deaf")
    peer.setsockopt(zmq.RCVHWM, 1)
    peer.setsockopt(zmq.RCVBUF, 65536)
    peer.send_multipart(hello("deaf"))
    assert peer.poll(5000)
    peer.send_multipart(reset("deaf"))
    for seq in range(2, 200):
        peer.send_multipart(observe("deaf", seq))
        eventually(lambda seq=seq: node.counters.requests >= seq - 1)
        eventually(lambda: node.counters.chunks + node.counters.superseded >= node.counters.requests)
        if node.counters.undelivered:
            break
    chunk_mb = 60_000 * 3 * 4 / 1e6
    assert node.counters.undelivered
    assert (node.counters.chunks - node.counters.undelivered) < SEND_HWM + 8 / chunk_mb + 40


@pytest.mark.slow
def test_of_one_robots_observations_one_waits_and_one_is_answered(serve: Serve, raw) -> None:
    policy = FunctionPolicy(slow_count(0.3))
    node = serve(policy)
    peer = raw(node, "eager")
    peer.send_multipart(hello("eager"))
    assert peer.poll(5000)
    peer.send_multipart(reset("eager"))
    for seq in range(2, 42):
        peer.send_multipart(observe("eager", seq))
        time.sleep(0.01)
    eventually(lambda: node.counters.requests == 40)
    eventually(lambda: node.counters.chunks + node.counters.superseded == 40)
    assert len(policy.batches) <= 4


@pytest.mark.slow
def test_connections_that_never_shake_hands_are_closed(serve: Serve, greet) -> None:
    node = serve(FunctionPolicy(count))
    port = int(node.endpoint.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    good = greet(node)
    good.reset(0, 0, "")
    assert ask(good).chunk is not None
    for one in silent:
        one.settimeout(10)
        while one.recv(4096):  # the node's greeting, and then the end
            pass
        one.close()
    eventually(lambda: node.refusals.handshakes >= 1)


@pytest.mark.parametrize("key", ["message_mb", "rate_hz", "sessions", "sessions_per_key", "idle_s", "gone_s"])
def test_limits_are_positive(key: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "--policy.type=ticker", f"--limits.{key}=0"]) == 2
    assert f"limits.{key}: found 0; must be positive" in capsys.readouterr().err
