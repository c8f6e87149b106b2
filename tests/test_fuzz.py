"""Hostile peers: what was found stays found, and a short run of the mutator finds nothing new."""

from __future__ import annotations

import logging
import time

import numpy as np
import psutil
import pytest
import zmq
from conftest import Serve
from fuzz import seeds
from fuzz.crowd import Crowd
from fuzz.found import SESSION, Case, cases
from fuzz.host import Host, Robot, attack
from fuzz.mutator import Mutator
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.hal.spec import Feature, PolicySpec, RobotSpec, SpecError
from tactus.policies.policy import Session
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.handshake import mismatches
from tactus.runtime.wire.link import LinkError

pytestmark = [pytest.mark.slow, pytest.mark.realtime]


class Thoughtful(TickerPolicy):
    """A ticker that draws its episode's noise as real policies do."""

    def reset(self, session: Session) -> None:
        np.random.default_rng(session.seed)


def thoughtful() -> Thoughtful:
    robot = seeds.robot()
    return Thoughtful(dict(robot.observations), robot.action, seeds.HORIZON)


# decoder


@pytest.mark.parametrize("case", cases("decoder"), ids=lambda case: case.name)
def test_what_once_surprised_the_decoder_is_refused(case: Case) -> None:
    me = psutil.Process()
    before = me.memory_info().rss
    for frames in case.messages:
        with pytest.raises(WireError) as caught:
            codec.decode(frames)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    assert me.memory_info().rss - before < 20e6


def test_twenty_thousand_mutated_messages_decode_or_are_refused() -> None:
    mutator = Mutator(20261126, seeds.to_node("robot") + seeds.to_robot("robot"))
    decoded = 0
    for _ in range(20_000):
        try:
            codec.decode(mutator.message())
            decoded += 1
        except WireError:
            continue
    assert 2_000 < decoded < 10_000, "the mutations are either too mild or too wild"


def test_the_same_seed_gives_the_same_messages() -> None:
    one, two, other = (Mutator(seed, seeds.to_node("robot")) for seed in (1, 1, 2))
    assert [one.message() for _ in range(200)] == [two.message() for _ in range(200)]
    assert [one.message() for _ in range(20)] != [other.message() for _ in range(20)]


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.lists(st.binary(max_size=40), max_size=5))
def test_whatever_follows_a_header_is_refused_or_read(seed: int, extra: list[bytes]) -> None:
    frames = [*Mutator(seed, seeds.to_node("robot")).message(), *extra]
    try:
        message = codec.decode(frames)
    except WireError:
        return
    assert sum(array.nbytes for array in message.arrays.values()) == sum(len(frame) for frame in frames[1:])
    assert codec.decode(codec.encode(message)).arrays.keys() == message.arrays.keys()


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400)
@given(st.data())
def test_a_spec_is_read_or_refused_whatever_stands_in_it(data: st.DataObject) -> None:
    """Any value in any place of a robot's, a policy's or a feature's dictionary."""
    robot, policy = seeds.robot(), seeds.policy()
    kinds = (RobotSpec, robot.to_dict()), (PolicySpec, policy.to_dict()), (Feature, robot.action.to_dict())
    kind, whole = data.draw(st.sampled_from(kinds))
    place = whole
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(plain)
            break
        place = place[key]
    try:
        spec = kind.from_dict(whole)
    except SpecError as error:
        assert len(str(error)) < 400
        return
    if isinstance(spec, RobotSpec):
        assert all(reason.isprintable() and len(reason) < 2000 for reason in mismatches(spec, seeds.policy()))


# node


@pytest.mark.parametrize("case", cases("node"), ids=lambda case: case.name)
def test_what_once_surprised_a_node_is_answered_and_no_more(
    case: Case, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = serve(thoughtful())
    stranger, robot = dealer(node, SESSION), dealer(node, "robot")
    robot.send_multipart(seeds.hello("robot"))
    assert heard(robot).kind == codec.WELCOME
    for frames in case.messages:
        stranger.send_multipart(frames)
    time.sleep(0.1)
    robot.send_multipart(seeds.ping("robot"))
    assert heard(robot).kind == codec.PONG
    robot.send_multipart(seeds.reset("robot"))
    robot.send_multipart(seeds.observe("robot"))
    assert heard(robot).kind == codec.CHUNK
    time.sleep(0.2)
    answers = drained(stranger)
    stranger.close(0)
    robot.close(0)
    assert not [record for record in caplog.records if record.exc_info], "a traceback in the log"
    for record in caplog.records:
        assert record.getMessage().isprintable() and len(record.getMessage()) < 6000
    assert max((sum(map(len, frames)) for frames in answers), default=0) < 20_000, "a peer decides how long answers are"
    for frames in answers:
        codec.decode(frames)


def test_a_crowd_of_hostile_peers_costs_a_robot_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    node = serve(thoughtful())
    robot = dealer(node, "robot")
    for frames in (seeds.hello("robot"), seeds.reset("robot")):
        robot.send_multipart(frames)
    assert heard(robot).kind == codec.WELCOME
    crowd = Crowd(node.endpoint, seed=20261126)
    slowest_s = 0.0
    for seq in range(2, 32):
        crowd.send(100)
        began_s = time.monotonic()
        robot.send_multipart(seeds.observe("robot", seq, tick=seq))
        message = heard(robot)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert (message.kind, message.seq, message.tick) == (codec.CHUNK, seq, seq)
    crowd.close()
    robot.close(0)
    assert slowest_s < 5 and crowd.sent.left == 0
    assert not [record for record in caplog.records if record.exc_info], "a traceback in the log"


def test_a_flood_does_not_keep_the_policy_from_thinking() -> None:
    """However much waits to be read, only so much of it is read before those who can be answered are."""
    node = PolicyNode(thoughtful(), "tcp://127.0.0.1:*")
    robots = [dealer(node, f"robot{index}") for index in range(20)]
    try:
        for index, robot in enumerate(robots):
            for frames in (seeds.hello(f"robot{index}"), seeds.reset(f"robot{index}")):
                robot.send_multipart(frames)
            for seq in range(40):
                robot.send_multipart(seeds.observe(f"robot{index}", seq + 2))
        time.sleep(0.3)
        node._receive(wait=True)
        assert node.counters.requests < 400
    finally:
        for robot in robots:
            robot.close(0)
        node.stop()
        node.run()  # which closes it


def dealer(node: PolicyNode, session: str) -> zmq.Socket[bytes]:
    peer = zmq.Context.instance().socket(zmq.DEALER)
    peer.setsockopt(zmq.ROUTING_ID, session.encode())
    peer.connect(node.endpoint)
    return peer


def heard(peer: zmq.Socket[bytes], timeout_s: float = 5) -> Message:
    """The next message that is no STOP: a stranger's may be for all robots."""
    while peer.poll(int(timeout_s * 1000)):
        message = codec.decode(peer.recv_multipart())
        if message.kind != codec.STOP:
            return message
    raise AssertionError("no answer")


def drained(peer: zmq.Socket[bytes]) -> list[list[bytes]]:
    answers = []
    while peer.poll(0):
        answers.append(peer.recv_multipart())
    return answers


# link


@pytest.mark.parametrize("case", cases("link"), ids=lambda case: case.name)
def test_what_once_surprised_a_link_is_an_error_and_no_more(case: Case) -> None:
    """A policy node that goes mad, or is another's, cannot end a robot node but by the errors it knows."""
    for frames in case.messages:
        with Host(lambda session, seq, tick, frames=frames: [frames]) as host:
            robot = Robot(host.endpoint, SESSION)
            try:
                assert robot.play(requests=1) == ""
                if b"STOP" in frames[0] and b"reason" in frames[0]:
                    with pytest.raises(LinkError, match="stopped"):
                        robot.link.poll()
            finally:
                robot.link.close()


def test_mutated_answers_are_errors_or_fit_for_a_robot() -> None:
    outcome = attack(3_000, seed=20261126)
    assert outcome.surprises == []
    assert outcome.kinds["chunk"] > 3, "hardly an answer came through"
