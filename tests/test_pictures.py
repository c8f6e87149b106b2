"""Pictures as JPEG on the wire: agreed upon, decoded as encoded, and nothing else gets to the decoder."""

from __future__ import annotations

import re
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq
from conftest import Serve
from doubles import FunctionPolicy, count
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from looking import ACTION, FEATURES, HEIGHT, ROBOT, TOP, WIDTH, WRIST, Looking, answer, ask, greet, observed, scene

from tactus.hal.config import ConfigError
from tactus.hal.spec import IMAGES, STATE, Observation, RobotSpec, image
from tactus.hal.synthetic import SyntheticConfig
from tactus.runtime.commands import main
from tactus.runtime.flight.policy_replay import replay_policy
from tactus.runtime.flight.reader import read_flights
from tactus.runtime.flight.recorder import FlightRecorder
from tactus.runtime.flight.ring import Ring
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire import codec, pictures
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.config import WireConfig
from tactus.runtime.wire.keys import AllowList, ClientKeys, ServerKeys, make_keys, read_public, read_secret
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Refused

pytestmark = pytest.mark.realtime


def by_cv2(picture: np.ndarray, quality: int = 90) -> np.ndarray:
    """What is left of a picture, by OpenCV alone."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    file = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), options)[1]
    return cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]


def message(files: list[bytes], **meta: object) -> Message:
    data = np.frombuffer(b"".join(files), np.uint8)
    return Message(codec.OBSERVE, "s", 2, 0, {TOP: data}, {"jpeg": {TOP: tuple(map(len, files))}, **meta})


# config


@pytest.mark.parametrize(
    ("given", "quality"),
    [("raw", None), ("jpeg", 90), ("jpeg:1", 1), ("jpeg:090", 90), ("jpeg:100", 100)],
)
def test_how_pictures_travel_is_said_in_a_word(given: str, quality: int | None) -> None:
    assert WireConfig(images=given).quality == quality


NONE = [
    "",
    "jpeg:",
    "jpeg:0",
    "jpeg:101",
    "jpeg:-1",
    "jpeg:9.5",
    "JPEG",
    "png",
    "raw:9",
    "jpeg:9 ",
    "jpeg:" + "9" * 9000,
]


@pytest.mark.parametrize("given", NONE)
def test_what_is_no_way_for_pictures_is_refused(given: str) -> None:
    with pytest.raises(
        ConfigError, match=r"images: found '.*'; accepted: raw, jpeg, or jpeg:QUALITY, which is 1 to 100"
    ):
        WireConfig(images=given)


# there and back


@pytest.mark.parametrize("quality", [1, 50, 90, 100])
@pytest.mark.parametrize("history", [0, 1, 3])
def test_a_picture_comes_back_as_opencv_decodes_it(quality: int, history: int) -> None:
    several = [scene(tick, 37, 53) for tick in range(max(1, history))]
    array = np.stack(several)[:, ::-1] if history > 1 else several[0][:, ::-1]
    packed = pictures.packed(Message(codec.OBSERVE, arrays={TOP: array}), quality)
    assert packed.arrays[TOP].ndim == 1 and pictures.shapes(packed)[TOP] == array.shape
    received = codec.decode([bytes(frame) for frame in codec.encode(packed)])
    back = pictures.unpacked(received)
    expected = np.stack([by_cv2(picture, quality) for picture in (array if history > 1 else [array])])
    np.testing.assert_array_equal(back.arrays[TOP], expected if history > 1 else expected[0])
    assert back.arrays[TOP].dtype == np.uint8 and "jpeg" not in back.meta


def test_red_stays_red() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    back = pictures.unpacked(pictures.packed(Message(codec.OBSERVE, arrays={TOP: red}), 95)).arrays[TOP]
    assert np.abs(back.astype(int) - red).max() < 8


@given(
    st.sampled_from(sorted(codec.DTYPES)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    )
)
def test_only_colours_of_eight_bits_are_packed(array: np.ndarray) -> None:
    """Depth, masks, grey pictures and numbers arrive to the bit."""
    packed = pictures.packed(Message(codec.OBSERVE, arrays={"a": array}), 90)
    colours = array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3 and array.size
    assert bool(packed.meta["jpeg"]) == bool(colours)
    back = pictures.unpacked(packed).arrays["a"]
    if colours:  # a history of one is a picture
        assert back.shape == (array.shape[1:] if array.ndim == 4 and len(array) == 1 else array.shape)
    else:
        assert back.tobytes() == array.tobytes() and (back.shape, back.dtype) == (array.shape, array.dtype)


# what may come instead

GOOD = cv2.imencode(".jpg", scene(3)[..., ::-1])[1].tobytes()
FRAME = GOOD.index(b"\xff\xc0")
SCAN = GOOD.index(b"\xff\xda")
GREY = cv2.imencode(".jpg", scene(3)[..., 0])[1].tobytes()
PROGRESSIVE = cv2.imencode(".jpg", scene(3)[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


def sized(height: int, width: int) -> bytes:
    """A whole JPEG that announces another size than it has."""
    return GOOD[: FRAME + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + GOOD[FRAME + 9 :]


ROTATED = (
    GOOD[:2] + b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0" + GOOD[2:]
)
"""Says that whoever shows it should turn it by a quarter."""
HOSTILE: dict[str, tuple[Message, str]] = {
    "a bomb": (message([sized(65500, 65500)]), r"found uint8\[65500, 65500, 3\], expected uint8\[120, 200, 3\]"),
    "another size": (message([sized(HEIGHT, WIDTH + 1)]), r"found uint8\[120, 201, 3\]"),
    "no height": (message([sized(0, WIDTH)]), r"found uint8\[0, 200, 3\]"),
    "a history nobody asked for": (message([GOOD, GOOD]), r"found uint8\[2, 120, 200, 3\]"),
    "two sizes": (message([GOOD, sized(HEIGHT, 7)]), "a history of pictures of 2 sizes"),
    "grey": (message([GREY]), "a JPEG of 1 channels of 8 bits; expected 3 of 8"),
    "twelve bits": (message([GOOD[: FRAME + 4] + b"\x0c" + GOOD[FRAME + 5 :]]), "of 3 channels of 12 bits"),
    "progressive": (message([PROGRESSIVE]), "not baseline"),
    "arithmetic": (message([GOOD[: FRAME + 1] + b"\xc9" + GOOD[FRAME + 2 :]]), "not baseline"),
    "lossless": (message([GOOD[: FRAME + 1] + b"\xc3" + GOOD[FRAME + 2 :]]), "not baseline"),
    "two frames": (message([GOOD[:SCAN] + GOOD[FRAME:SCAN] + GOOD[SCAN:]]), "not baseline"),
    "scan after scan": (message([GOOD[:-2] + GOOD[SCAN:]]), "cut off, or has more than one scan"),
    "a scan of one channel": (message([GOOD[: SCAN + 4] + b"\x01" + GOOD[SCAN + 5 :]]), "not all three channels"),
    "no frame": (message([GOOD[:FRAME] + GOOD[SCAN:]]), "not all three channels"),
    "more bytes than pixels": (
        message([GOOD[:-2] + b"\xff\x00" * (HEIGHT * WIDTH * 4) + b"\xff\xd9"]),
        "more than the picture itself",
    ),
    "something behind it": (message([GOOD + b"PK\x03\x04"]), "cut off, or has more than one scan"),
    "a PNG": (message([cv2.imencode(".png", scene(3))[1].tobytes()]), "not a JPEG: it begins with 89504e47"),
    "a raw picture": (message([scene(3).tobytes()]), "not a JPEG"),
    "a header without an end": (message([GOOD[:2] + b"\xff\xfe\xff\xff" * 60_000]), "damaged or cut off"),
    "a segment of no length": (message([GOOD[:2] + b"\xff\xfe\x00\x00" + GOOD[2:]]), "damaged or cut off"),
    "one byte": (message([b"\xff"]), "not a JPEG"),
    "no tables": (message([GOOD[:2] + GOOD[FRAME:]]), "cannot be decoded"),
    "lengths that lie": (message([GOOD])._replace(meta={"jpeg": {TOP: (len(GOOD) - 1,)}}), "bytes of JPEG in a frame"),
    "no lengths": (message([GOOD])._replace(meta={"jpeg": {TOP: ()}}), "must be the lengths"),
    "negative lengths": (message([GOOD])._replace(meta={"jpeg": {TOP: (-1, len(GOOD) + 1)}}), "must be the lengths"),
    "lengths of truth": (message([GOOD])._replace(meta={"jpeg": {TOP: (True,) * len(GOOD)}}), "must be the lengths"),
    "text for lengths": (message([GOOD])._replace(meta={"jpeg": {TOP: "9"}}), "must be the lengths"),
    "a list for a table": (message([GOOD])._replace(meta={"jpeg": (TOP,)}), "must be the lengths"),
    "a name without an array": (message([GOOD])._replace(meta={"jpeg": {"nobody": (9,)}}), "no array of bytes"),
    "a picture as it is, called JPEG": (
        message([GOOD])._replace(arrays={TOP: scene(0)}, meta={"jpeg": {TOP: (scene(0).size,)}}),
        "no array of bytes",
    ),
}  # fmt: skip
CUTS = [*range(2, SCAN + 14, 7), *range(SCAN + 14, len(GOOD), max(1, (len(GOOD) - SCAN) // 12)), len(GOOD) - 1]


@pytest.fixture
def peer(serve: Serve) -> Callable[[Message], Message]:
    """A robot with pictures as JPEG, in pyzmq: takes an OBSERVE and gives the node's answer."""
    node = serve(Looking({TOP: FEATURES[TOP]}))
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.setsockopt(zmq.ROUTING_ID, b"s")
    socket.connect(node.endpoint)

    def say(what: Message) -> Message:
        codec.send(socket, codec.encode(what))
        return codec.decode(codec.receive(socket))

    meta = {"robot": RobotSpec("r", 50.0, {TOP: FEATURES[TOP]}, ACTION).to_dict(), "images": "jpeg"}
    welcome = say(Message(codec.HELLO, "s", meta=meta))
    assert welcome.kind == codec.WELCOME and welcome.meta["images"] == ("raw", "jpeg")
    codec.send(socket, codec.encode(Message(codec.RESET, "s", 1, meta={"episode": 0, "seed": 1, "task": ""})))
    seqs = iter(range(2, 10**6))

    def observe(what: Message) -> Message:
        about = {"task": "", "stamps_ns": [1] * len(what.arrays), "ticks_left": 0, "merged": 0, "reset": 1}
        return say(what._replace(seq=next(seqs), meta={**about, **what.meta}))

    yield observe
    assert observe(message([GOOD])).kind == codec.CHUNK, "the node lives on"
    socket.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_such_picture_is_an_error_of_its_session(name: str, peer: Callable[[Message], Message]) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    what, words = HOSTILE[name]
    found = peer(what)
    assert found.kind == codec.ERROR and found.meta["code"] == "observation" and found.seq, found
    assert str(found.meta["message"]).isprintable() and re.search(words, found.meta["message"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000, "a bomb of 13 GB went off"


def test_a_picture_that_is_cut_off_anywhere_is_an_error(peer: Callable[[Message], Message]) -> None:
    for cut in CUTS:
        assert peer(message([GOOD[:cut]])).kind == codec.ERROR, cut


def test_nobody_turns_a_picture() -> None:
    """A camera's note of how it was held is no reason to hand over an array of another shape."""
    back = pictures.unpacked(message([ROTATED])).arrays[TOP]
    np.testing.assert_array_equal(back, cv2.imdecode(np.frombuffer(GOOD, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_pictures_have_their_shape_or_are_refused(data: st.DataObject) -> None:
    file = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        action = data.draw(st.sampled_from(["flip", "cut", "grow", "swap"]))
        at = data.draw(st.integers(0, max(0, len(file) - 1)))
        if action == "flip" and file:
            file[at] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del file[at:]
        elif action == "grow":
            file[at:at] = data.draw(st.binary(max_size=8))
        else:
            file = file[at:] + file[:at]
    if not file:
        return
    what = message([bytes(file)])
    try:
        shape = pictures.shapes(what)[TOP]
    except WireError:
        return
    if np.prod([float(length) for length in shape]) > 1e7:
        return  # no policy's: it goes no further
    try:
        array = pictures.unpacked(what).arrays[TOP]
    except WireError:
        return
    assert array.shape == shape and array.dtype == np.uint8


# the handshake


def test_what_was_not_agreed_upon_is_an_error(serve: Serve) -> None:
    link = greet(serve(Looking()), memory="off")
    packed = pictures.packed(Message(codec.OBSERVE, arrays={TOP: scene(0)}), 90)
    about = {"task": "", "stamps_ns": [0], "ticks_left": 0, "merged": 0, "reset": 1}
    link._send(packed._replace(session=link.session, seq=7, meta={**about, **packed.meta}))
    link._open[7] = 0
    assert "pictures as JPEG were not agreed upon: say so in HELLO" in answer(link).error
    link.close()


@pytest.mark.parametrize("images", ["webp", "", 3, ["jpeg"], "jpeg\n"])
def test_a_way_for_pictures_that_the_node_does_not_know_is_refused(serve: Serve, images: object) -> None:
    node = serve(Looking())
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, b"r")
    socket.connect(node.endpoint)
    codec.send(socket, codec.encode(Message(codec.HELLO, "r", meta={"robot": ROBOT.to_dict(), "images": images})))
    assert socket.poll(5000)
    found = codec.decode(codec.receive(socket))
    [reason] = found.meta["reasons"]
    assert found.kind == codec.REFUSE and "this policy node takes raw, jpeg" in reason and reason.isprintable()
    socket.close(0)


class OldNode:
    """What a policy node before JPEG and shared memory says to a HELLO."""

    def __init__(self, policy: Looking, **agreed: object) -> None:
        self._agreed = agreed
        self._router = zmq.Context.instance().socket(zmq.ROUTER)
        self.endpoint = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self.heard: list[Message] = []
        self._policy = policy.spec

    def answer(self, within_s: float = 0.5) -> None:
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            if self._router.poll(20):
                peer, *frames = codec.receive(self._router)
                self.heard.append(codec.decode(frames))
                if self.heard[-1].kind == codec.HELLO:
                    meta = {"policy": self._policy.to_dict(), "node": "old", "known": False, **self._agreed}
                    codec.send(self._router, [peer.bytes, *codec.encode(Message(codec.WELCOME, meta=meta))])

    def close(self) -> None:
        self._router.close(0)


@pytest.mark.parametrize(
    ("wire", "refusal", "line"),
    [
        ({"images": "jpeg"}, "wire.images: the policy node does not take jpeg:90", ""),
        ({"memory": "shared"}, "wire.memory: shared cannot be: this policy node does not know of it", ""),
        ({"memory": "auto"}, "", "arrays travel in frames, not through shared memory: this policy node does not know"),
        ({"memory": "off"}, "", ""),
    ],
    ids=["jpeg", "shared", "auto", "off"],
)
def test_an_older_node_is_told_from_one_that_agrees(wire: dict[str, str], refusal: str, line: str) -> None:
    """Before anything moves; and where it need not agree, it is sent what it always was."""
    node = OldNode(Looking())
    thread = threading.Thread(target=node.answer, args=(1.0,))
    thread.start()
    if refusal:
        with pytest.raises(Refused, match=refusal):
            greet(node.endpoint, **wire)
        thread.join()
    else:
        link = greet(node.endpoint, **wire)
        assert len(link.said) == bool(line) and all(line in said for said in link.said)  # type: ignore[attr-defined]
        link.request(observed(3), 0, 0)
        thread.join()
        node.answer(0.3)
        [seen] = [m for m in node.heard if m.kind == codec.OBSERVE and m.seq == 2][:1]
        assert not {"jpeg", "memory"} & {*seen.meta}
        for name, array in observed(3).arrays.items():
            np.testing.assert_array_equal(seen.arrays[name], array)
        if wire["memory"] == "off":
            assert {*node.heard[0].meta} == {"robot", "real_time", "swap"}, "which an older node does not read"
        link.close()
    node.close()


WORDS = "\x1b[2J\rok" + "x" * 5000


@pytest.mark.parametrize("memory", [{"reason": WORDS}, {"proof": WORDS}, {"proof": 3}, {"proof": "ab" * 16}, "yes", {}])
@pytest.mark.parametrize("wanted", ["auto", "shared"])
def test_what_a_node_says_of_memory_is_not_believed_nor_does_it_steer_a_terminal(memory: object, wanted: str) -> None:
    """Only who has opened it knows the proof."""
    node = OldNode(Looking(), memory=memory)
    thread = threading.Thread(target=node.answer, args=(0.6,))
    thread.start()
    if wanted == "shared":
        with pytest.raises(Refused, match=r"wire\.memory: shared cannot be: ") as caught:
            greet(node.endpoint, memory=wanted)
        [line] = caught.value.reasons
    else:
        link = greet(node.endpoint, memory=wanted)
        [line] = link.said  # type: ignore[attr-defined]
        assert link._transport.memory is None
        link.close()
    thread.join()
    node.close()
    assert line.isprintable() and len(line) < 3000


# through both nodes


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
def test_the_policy_sees_what_opencv_decodes(serve: Serve, encrypted: bool, tmp_path: Path) -> None:
    keys = None
    if encrypted:
        for name in ("policy", "robot"):
            make_keys(tmp_path, name)
        (tmp_path / "robots").mkdir()
        (tmp_path / "robot.key").rename(tmp_path / "robots" / "robot.key")
        keys = ServerKeys(read_secret(tmp_path / "policy.key_secret", ""), AllowList(tmp_path / "robots"))
    policy = Looking()
    node = serve(policy, keys=keys)
    own = (
        ClientKeys(read_secret(tmp_path / "robot.key_secret", ""), read_public(tmp_path / "policy.key", ""))
        if keys
        else None
    )
    link = greet(node, own, images="jpeg:70")
    [said] = link.said  # type: ignore[attr-defined]
    assert said == f"pictures travel as JPEG of quality 70: what the policy sees has lost detail: {TOP}, {WRIST}"
    for tick in range(3):
        reply = ask(link, observed(tick))
        assert reply.chunk is not None, reply.error
        assert reply.chunk.timings_ms["unpack"] > 0 and 0 <= reply.chunk.timings_ms["queued"] < 1000
        for name, array in observed(tick).arrays.items():
            expected = array if name == STATE else by_cv2(array, 70)
            np.testing.assert_array_equal(policy.seen[-1][name], expected)
    link.close()


def test_a_policy_without_pictures_is_told_to_the_user(serve: Serve) -> None:
    link = greet(serve(Looking({STATE: FEATURES[STATE]})), images="jpeg")
    assert link.said == ["wire.images: the policy reads no pictures"]  # type: ignore[attr-defined]
    assert ask(link, observed(0)).chunk is not None
    link.close()


def test_the_control_thread_does_not_encode(serve: Serve) -> None:
    """It spends a small part of what encoding takes, and none of it in `request`."""
    size = (1080, 1920)
    features = {f"{IMAGES}{i}": image(*size) for i in range(4)}
    robot = RobotSpec("large", 50.0, features, ACTION)
    pictures_ = {name: scene(i, *size) for i, name in enumerate(features)}
    seen = Observation(pictures_, dict.fromkeys(pictures_, 0))
    began_s = time.thread_time()
    pictures.packed(Message(codec.OBSERVE, arrays=pictures_), 90)
    encoding_s = time.thread_time() - began_s
    link = greet(serve(Looking(features)), robot=robot, images="jpeg")
    ask(link, seen)
    spent = []
    for _ in range(3):
        began_s = time.thread_time()
        link.request(seen, 0, 0)
        requested_s = time.thread_time() - began_s
        answer(link)
        spent.append((requested_s, time.thread_time() - began_s))
    assert min(requested for requested, _ in spent) < encoding_s / 20
    assert min(whole for _, whole in spent) < encoding_s / 4
    link.close()


def test_an_observation_of_an_episode_that_is_over_is_not_sent(serve: Serve) -> None:
    """It was still being packed when the next one began."""
    policy = Looking()
    link = greet(serve(policy), images="jpeg")
    sent: list[str] = []
    link.tap = lambda outgoing, frames: sent.append(codec.decode([bytes(f) for f in frames]).kind) if outgoing else None
    for episode in range(5):
        link.request(observed(episode), 0, 0)
        link.reset(episode + 1, 1, "")
    reply = ask(link, observed(50))
    assert reply.chunk is not None and reply.chunk.start == 50
    assert all(seen[STATE][0] == 50 for seen in policy.seen) and sent.count(codec.OBSERVE) == 1
    link.close()


class Robot:
    """The synthetic robot with two cameras that see another thing each tick."""

    def __new__(cls, steps: int = 40):  # type: ignore[no-untyped-def]
        return SyntheticConfig(width=3, steps=steps, fps=50.0, cameras=2, image_size=(HEIGHT, WIDTH)).make()


def play(node: PolicyNode, tap: FlightRecorder | None = None, latency: str = "fixed:2", **wire: str) -> np.ndarray:
    robot, clock = Robot(), VirtualClock(50.0)
    link = greet(node, robot=robot.spec, **wire)
    if tap is not None:
        link.tap = tap.tap
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=10)
    try:
        assert link._policy is not None
        loop = RobotNode(robot, link._policy, delayed, clock, LoopConfig(max_ticks=40))
        if tap is not None:
            about = {"run": "1", "virtual": True, "robot": robot.spec.to_dict(), "policy": link._policy.to_dict()}
            tap.start(about, waits=True)
            return np.stack(loop.run_episode(0, 1, [tap]).actions)
        return np.stack(loop.run_episode(0, 1).actions)
    finally:
        link.close()


@pytest.mark.parametrize("offsets", [(0,), (-3, -1, 0)], ids=["now", "history"])
@pytest.mark.parametrize("latency", ["fixed:0", "lognormal:3,drop=0.1,reorder=0.2"])
def test_in_virtual_time_every_run_is_the_same(serve: Serve, offsets: tuple[int, ...], latency: str) -> None:
    features = dict(Robot().spec.observations)
    node = serve(Looking(features, offsets))
    first = play(node, latency=latency, images="jpeg:80")
    np.testing.assert_array_equal(play(node, latency=latency, images="jpeg:80"), first)


def test_a_flight_record_plays_back_what_the_policy_saw(serve: Serve, tmp_path: Path) -> None:
    policy = Looking(dict(Robot().spec.observations))
    recorder = FlightRecorder(Ring(tmp_path / "flight"))
    play(serve(policy), recorder, images="jpeg:80")
    recorder.close()
    [flight] = read_flights(tmp_path / "flight")
    messages = [r.message() for r in flight.records if r.topic == "/wire/sent"]
    observations = [m for m in messages if m is not None and m.kind == codec.OBSERVE]
    assert len(observations) == len(policy.seen) > 2
    for found, seen in zip(observations, policy.seen, strict=True):
        for name in seen:
            np.testing.assert_array_equal(found.arrays[name], seen[name])
    replayed = replay_policy(flight, Looking(dict(Robot().spec.observations)))
    assert replayed.chunks == replayed.equal == len(policy.seen), replayed.notes


@pytest.mark.slow
def test_results_say_what_the_policy_saw_less(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tactus.policies.scripted.config import TickerConfig

    node = serve(TickerConfig(width=3, cameras=2, image_size=(HEIGHT, WIDTH)).make())
    robot = ["--robot.type=synthetic", "--robot.width=3", "--robot.cameras=2", f"--robot.image_size=[{HEIGHT},{WIDTH}]"]
    words = ["eval", *robot, "--robot.steps=20", "--episodes=1", f"--connect={node.endpoint}", "--wire.images=jpeg"]
    assert main([*words, f"--output_dir={tmp_path}/a"]) == 0
    assert "pictures travel as JPEG of quality 90: what the policy sees has lost detail" in capsys.readouterr().out
    assert '"images": "jpeg:90"' in (tmp_path / "a" / "summary.json").read_text()
    assert main([*words[:-1], "--resume", f"--output_dir={tmp_path}/a"]) == 2, "another experiment"
    assert "images" in capsys.readouterr().err


def test_practice_learns_from_what_was_acted_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", "--wire.images=jpeg"]) == 2
    assert "wire.images: found jpeg:90; accepted: raw" in capsys.readouterr().err


def test_a_link_without_pictures_has_no_thread_for_them(serve: Serve) -> None:
    node = serve(FunctionPolicy(count))
    before = threading.active_count()
    link = greet(node, robot=SyntheticConfig(width=3, fps=50.0).make().spec, images="jpeg")
    assert threading.active_count() == before
    link.close()
    link = greet(serve(Looking()), images="jpeg")
    assert [thread for thread in threading.enumerate() if thread.name == "pictures"]
    link.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pictures"]
