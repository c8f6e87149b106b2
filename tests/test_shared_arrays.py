"""Arrays through shared memory: to the bit, from nobody else's memory, and nothing is left of it."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from doubles import eventually
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import FEATURES, HEIGHT, TOP, WIDTH, WRIST, Glancing, Looking, answer, ask, greet, observed, scene
from processes import end, endpoint_of, episodes, serving, start

from tactus.hal.config import ConfigError
from tactus.hal.spec import STATE, Observation
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.scripted.config import TickerConfig
from tactus.runtime.commands import main
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.config import WireConfig
from tactus.runtime.wire.keys import AllowList, ClientKeys, ServerKeys, make_keys, read_public, read_secret
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link
from tactus.runtime.wire.shared_arrays import (
    HEADER_BYTES,
    LARGE_BYTES,
    NAME,
    SLOTS,
    Overwritten,
    SharedArrays,
    SharedReader,
    Unavailable,
)

pytestmark = pytest.mark.realtime

LARGE = [FEATURES[TOP].nbytes, FEATURES[WRIST].nbytes]


def memories(pid: int | str = "self") -> int:
    """How many of ours a process has open, each counted once."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(fd).startswith(f"/memfd:{NAME} "):
                found.add(fd.stat().st_ino)
    return len(found)


@pytest.fixture
def ends() -> Iterator[tuple[SharedArrays, SharedReader]]:
    here = SharedArrays()
    there = SharedReader(here.announcement)
    here.agree(there.answer, LARGE)
    yield here, there
    there.close()
    here.close()


def observe(seq: int, tick: int) -> Message:
    return Message(codec.OBSERVE, "s", seq, tick, observed(tick).arrays, {"task": ""})


def travelled(message: Message) -> Message:
    return codec.decode([bytes(frame) for frame in codec.encode(message)])


# there and back


def test_arrays_come_through_to_the_bit_and_small_ones_in_frames(ends: tuple[SharedArrays, SharedReader]) -> None:
    here, there = ends
    for seq in range(1, 3 * SLOTS):
        packed = here.packed(observe(seq, seq))
        assert {name: array.size for name, array in packed.arrays.items()} == {TOP: 0, STATE: 3, WRIST: 0}
        received = travelled(packed)
        for name, view in there.views(received).items():
            assert (view.shape, view.dtype) == (FEATURES[name].shape, np.uint8) and not view.flags.writeable
        back = there.unpacked(received)
        assert list(back.arrays) == list(FEATURES)
        for name, array in observed(seq).arrays.items():
            np.testing.assert_array_equal(back.arrays[name], array)
        here.answered(seq, kept=())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(codec.DTYPES)), st.lists(st.integers(1, 200), min_size=1, max_size=3), st.booleans())
def test_any_array_comes_through(dtype: str, shape: list[int], backwards: bool) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)[:: -1 if backwards else 1]
    here = SharedArrays()
    there = SharedReader(here.announcement)
    here.agree(there.answer, [array.nbytes])
    packed = here.packed(Message(codec.OBSERVE, seq=1, arrays={"a": array}))
    assert ("memory" in packed.meta) == (array.nbytes >= LARGE_BYTES)
    received = travelled(packed)
    back = there.unpacked(received) if "memory" in received.meta else received
    assert back.arrays["a"].dtype == array.dtype and back.arrays["a"].shape == array.shape
    assert back.arrays["a"].tobytes() == array.tobytes()
    there.close()
    here.close()


def test_a_place_is_taken_until_its_request_or_a_later_one_is_answered(ends: tuple[SharedArrays, SharedReader]) -> None:
    here, there = ends
    first = here.packed(observe(1, 1))
    assert here.packed(observe(1, 1)) is first, "one that is repeated"
    for seq in range(2, SLOTS + 1):
        assert "memory" in here.packed(observe(seq, seq)).meta
    beyond = observe(SLOTS + 1, 0)
    assert here.packed(beyond) is beyond, "it travels in frames"
    np.testing.assert_array_equal(there.unpacked(travelled(first)).arrays[TOP], scene(1))
    here.answered(2, kept=())
    slots = {here.packed(observe(seq, seq)).meta["memory"]["slot"] for seq in range(10, 12)}
    assert len(slots) == 2 and here.packed(beyond) is beyond
    here.answered(11, kept=slots)
    slots |= {here.packed(observe(seq, seq)).meta["memory"]["slot"] for seq in range(12, 14)}
    assert len(slots) == SLOTS and here.packed(beyond) is beyond, "what is kept is never written to again"
    here.forget()
    assert all("memory" in here.packed(observe(seq, seq)).meta for seq in range(20, 20 + SLOTS))


def test_the_place_of_an_answered_request_is_the_next_ones(ends: tuple[SharedArrays, SharedReader]) -> None:
    here, _ = ends
    slots = set()
    for seq in range(1, 10):
        slots.add(here.packed(observe(seq, seq)).meta["memory"]["slot"])
        here.answered(seq, kept=())
    assert len(slots) == 1


def test_arrays_that_a_robot_writes_over_all_the_same_are_known(ends: tuple[SharedArrays, SharedReader]) -> None:
    here, there = ends
    first = travelled(here.packed(observe(1, 1)))
    arrays = there.unpacked(first).arrays
    assert not arrays[TOP].flags.writeable and not arrays[TOP].flags.owndata
    here.forget()
    for seq in range(2, 2 + SLOTS):
        here.packed(observe(seq, seq))
    for look in (there.release, there.unpacked):
        with pytest.raises(Overwritten):
            look(first)


def keepers() -> dict[str, Callable[[Observation], object]]:
    return {
        "the array": lambda seen: seen.arrays[TOP],
        "a part of it": lambda seen: seen.arrays[TOP][3:, :, ::-1],
        "a part, as a buffer": lambda seen: memoryview(seen.arrays[WRIST])[1:],
        "all of them": lambda seen: seen.arrays,
        "the observation": lambda seen: seen,
        "a tensor": lambda seen: pytest.importorskip("torch").as_tensor(seen.arrays[TOP]),
        "a generator": lambda seen: (row for row in seen.arrays[TOP]),
        "an iterator half way": lambda seen: _begun(iter(seen.arrays[TOP])),
        "something that holds itself": lambda seen: _circle(seen.arrays[TOP]),
    }


def _begun[T: Iterator[Any]](rows: T) -> T:
    next(rows)
    return rows


def _circle(array: np.ndarray) -> None:
    circle: list[object] = [array]
    circle.append(circle)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", keepers())
def test_what_a_policy_keeps_is_never_written_to(name: str, ends: tuple[SharedArrays, SharedReader]) -> None:
    here, there = ends
    gc.disable()  # a circle is found at once otherwise, or later
    try:
        message = travelled(here.packed(observe(1, 1)))
        kept = keepers()[name](Observation(there.unpacked(message).arrays))
        there.release(message)
        assert there.kept == [message.meta["memory"]["slot"]]
        here.answered(1, there.kept)
        for seq in range(2, 3 * SLOTS):
            message = travelled(here.packed(observe(seq, seq)))
            seen = there.unpacked(message).arrays
            assert seen[TOP].flags.owndata, "from then on it is given copies"
            there.release(message)
            here.answered(seq, there.kept)
        assert len(there.kept) == 1
        del kept
    finally:
        gc.enable()


def test_what_a_policy_lets_go_of_is_written_to_again(ends: tuple[SharedArrays, SharedReader]) -> None:
    here, there = ends
    for seq in range(1, 3 * SLOTS):
        message = travelled(here.packed(observe(seq, seq)))
        arrays = there.unpacked(message).arrays
        total = arrays[TOP].astype(np.float32).sum() + np.stack([arrays[TOP], arrays[TOP]]).max()
        del arrays
        there.release(message)
        here.answered(seq, there.kept)
        assert there.kept == [] and total > 0


def test_what_does_not_fit_stays_in_frames(ends: tuple[SharedArrays, SharedReader]) -> None:
    here, _ = ends
    larger = Message(codec.OBSERVE, seq=1, arrays={TOP: scene(0, 500, 500)})
    assert here.packed(larger) is larger


def test_a_robot_cannot_take_memory_away_while_it_is_read(ends: tuple[SharedArrays, SharedReader]) -> None:
    """Reading what is not there any more would end the policy node's process."""
    here, _ = ends
    with pytest.raises(PermissionError):
        os.ftruncate(here.announcement["fd"], 0)


# announcements


def memory(content: bytes, seals: int = fcntl.F_SEAL_SHRINK, name: str = NAME) -> int:
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


KEY = "ab" * 16


@pytest.mark.parametrize(
    ("announcement", "kind"),
    [
        (None, WireError),
        ("tactus", WireError),
        ({}, WireError),
        ({"pid": "../../etc", "fd": "passwd", "key": KEY}, WireError),
        ({"pid": "self", "fd": 0, "key": KEY}, WireError),
        ({"pid": True, "fd": 0, "key": KEY}, WireError),
        ({"pid": -1, "fd": 0, "key": KEY}, WireError),
        ({"pid": 0, "fd": 0, "key": KEY}, WireError),
        ({"pid": 2**40, "fd": 0, "key": KEY}, WireError),
        ({"pid": 1, "fd": -1, "key": KEY}, WireError),
        ({"pid": 1, "fd": 0, "key": ""}, WireError),
        ({"pid": 1, "fd": 0, "key": b"a" * 32}, WireError),
        ({"pid": 1, "fd": 0, "key": "/dev/shm/../../etc/passwd".ljust(64)}, WireError),
        ({"pid": 2**31 - 1, "fd": 0, "key": KEY}, Unavailable),
        ({"pid": os.getpid(), "fd": 2**31 - 1, "key": KEY}, Unavailable),
        ({"pid": os.getpid(), "fd": 0, "key": KEY}, Unavailable),
        ({"pid": os.getpid(), "fd": 1, "key": KEY}, Unavailable),
    ],
)
def test_what_announces_no_memory_is_not_opened(announcement: Any, kind: type[Exception]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as caught:
        SharedReader(announcement)
    assert str(caught.value).isprintable() and len(os.listdir("/proc/self/fd")) == before


def others() -> dict[str, Callable[[Path], int]]:
    return {
        "a file": lambda folder: os.open(_written(folder / "secret"), os.O_RDWR),
        "a file called as ours": lambda folder: os.open(_written(folder / f"memfd:{NAME} "), os.O_RDWR),
        "a pipe": lambda folder: os.pipe()[0],
        "a device": lambda folder: os.open("/dev/zero", os.O_RDWR),
        "a socket": lambda folder: __import__("socket").socket().detach(),
        "memory of another program": lambda folder: memory(bytes.fromhex(KEY) * 2, name="other"),
        "memory of a program with a longer name": lambda folder: memory(bytes.fromhex(KEY) * 2, name=f"{NAME}-2"),
        "another robot's": lambda folder: memory(b"x" * 4096),
        "too short": lambda folder: memory(b"x"),
        "empty": lambda folder: memory(b""),
        "not sealed": lambda folder: memory(bytes.fromhex(KEY) * 2, seals=0),
        "sealed against growing alone": lambda folder: memory(bytes.fromhex(KEY) * 2, seals=fcntl.F_SEAL_GROW),
    }


def _written(path: Path) -> Path:
    path.write_bytes(bytes.fromhex(KEY) * 2)
    return path


@pytest.mark.parametrize("name", others())
def test_what_is_not_that_robots_memory_is_not_read(name: str, tmp_path: Path) -> None:
    fd = others()[name](tmp_path)
    try:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Unavailable) as caught:
            SharedReader({"pid": os.getpid(), "fd": fd, "key": KEY})
        assert str(tmp_path) not in str(caught.value) and len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(fd)


# places


def place(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """A message's `memory`, with something else in it. places: of TOP, by index."""

    def changed(found: dict[str, Any]) -> Any:
        slot = changes.get("slot", found["slot"])
        top = list(found["arrays"][TOP])
        for index, key in enumerate(("dtype", "shape", "offset")):
            top[index] = changes.get(key, top[index])
        return {"slot": slot, "arrays": {**found["arrays"], changes.get("name", TOP): tuple(top)}}

    return changed


END = HEADER_BYTES + SLOTS * (64 + sum(-(-size // 64) * 64 for size in LARGE))
SHAPE = FEATURES[TOP].shape
HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda found: {},
    "a text": lambda found: "/dev/shm/tactus",
    "no slot": lambda found: {"arrays": found["arrays"]},
    "no arrays": lambda found: {"slot": found["slot"]},
    "arrays as a list": lambda found: {"slot": found["slot"], "arrays": (1, 2)},
    "a name for a slot": place(slot="../tactus"),
    "the header for a slot": place(slot=0),
    "a slot before it": place(slot=-64),
    "a slot beyond it": place(slot=END),
    "a slot far beyond it": place(slot=2**62),
    "an offset before it": place(offset=-1),
    "the key as pixels": place(offset=0),
    "another slot's": place(offset=HEADER_BYTES),
    "an offset beyond it": place(offset=END - LARGE[0] + 1),
    "an offset far beyond it": place(offset=2**62),
    "an offset that is a name": place(offset="/etc/passwd"),
    "an offset that is true": place(offset=True),
    "an object's dtype": place(dtype="object"),
    "a dtype that is a number": place(dtype=8),
    "more than there is": place(shape=(END,)),
    "more than any": place(shape=(2**62, 4)),
    "as much by overflow": place(shape=(2**32, 2**32)),
    "two negatives": place(shape=(-HEIGHT, -WIDTH, 3)),
    "a size of nothing": place(shape=(0, WIDTH, 3)),
    "a shape that is a text": place(shape="120"),
    "a shape of texts": place(shape=("120", "200", "3")),
    "nine dimensions": place(shape=(*SHAPE, *[1] * 6)),
    "a wider dtype": place(dtype="float64", shape=(HEIGHT, WIDTH, 3 * SLOTS)),
    "a name that is no array": place(name="nobody"),
    "a name with slashes": place(name="../../etc/passwd"),
    "an array that is in a frame": place(name=STATE),
    "a place of two": lambda found: {**found, "arrays": {**found["arrays"], TOP: ("uint8", SHAPE)}},
    "a place that is a text": lambda found: {**found, "arrays": {**found["arrays"], TOP: "abc"}},
    "another shape than the policy's": place(shape=(WIDTH, HEIGHT, 3)),
    "another dtype than the policy's": place(dtype="int8"),
}


@pytest.fixture(scope="module")
def victim() -> Iterator[tuple[PolicyNode, Link]]:
    node = PolicyNode(Looking(), "tcp://127.0.0.1:*")
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    link = greet(node, memory="shared")
    yield node, link
    link.close()
    node.stop()
    thread.join(10)


def deceive(link: Link, change: Callable[[dict[str, Any]], Any]) -> str:
    """Send an observation whose `memory` says something else; the error that comes, empty for a chunk."""
    memory = link._transport.memory
    assert memory is not None
    packed = memory.packed

    def lying(message: Message) -> Message:
        found = packed(message)
        return found._replace(meta={**found.meta, "memory": change(dict(found.meta["memory"]))})

    memory.packed = lying  # type: ignore[method-assign]
    try:
        return ask(link, observed(5)).error
    finally:
        memory.packed = packed  # type: ignore[method-assign]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_place_that_is_none_is_an_error_of_its_session(name: str, victim: tuple[PolicyNode, Link]) -> None:
    _, link = victim
    error = deceive(link, HOSTILE[name])
    assert error.startswith("observation: ") and error.isprintable() and len(error) < 300
    assert ask(link, observed(6)).chunk is not None, "the node lives on"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {"slot": st.integers(-10, END + 10) | json_like},
        optional={
            "arrays": json_like
            | st.dictionaries(
                st.sampled_from([TOP, WRIST, STATE, "a"]),
                st.tuples(
                    st.sampled_from(sorted(codec.DTYPES)) | json_like,
                    st.lists(st.integers(-1, 500), max_size=4).map(tuple) | json_like,
                    st.integers(-1, END + 1) | json_like,
                ),
            )
        },
    )
)
def test_whatever_stands_in_place_of_places_is_read_within_the_memory_or_refused(found: Any) -> None:
    here = SharedArrays()
    there = SharedReader(here.announcement)
    here.agree(there.answer, LARGE)
    message = here.packed(observe(1, 1))
    try:
        views = there.views(travelled(message._replace(meta={"memory": found})))
    except WireError as error:
        assert str(error).isprintable()
    else:
        assert all(view.nbytes <= END for view in views.values())
    views = {}
    there.close()
    here.close()


def test_memory_that_was_not_announced_is_not_read(serve: Serve) -> None:
    link = greet(serve(Looking()), memory="off")
    here = SharedArrays()
    there = SharedReader(here.announcement)
    here.agree(there.answer, LARGE)
    packed = here.packed(observe(7, 1))
    about = {"stamps_ns": [0] * 3, "ticks_left": 0, "merged": 0, "reset": 1}
    link._send(packed._replace(session=link.session, meta={**packed.meta, **about}))
    link._open[7] = 1
    assert "shared memory was not agreed upon: announce it in HELLO" in answer(link).error
    link.close()
    there.close()
    here.close()


# through both nodes

POLICIES = pytest.mark.parametrize("kind", [Looking, Glancing])
"""One keeps what it is given, one does not."""


@POLICIES
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
def test_the_policy_sees_what_the_robot_saw(serve: Serve, encrypted: bool, kind: type[Looking], tmp_path: Path) -> None:
    keys = own = None
    if encrypted:
        for name in ("policy", "robot"):
            make_keys(tmp_path, name)
        (tmp_path / "robots").mkdir()
        (tmp_path / "robot.key").rename(tmp_path / "robots" / "robot.key")
        keys = ServerKeys(read_secret(tmp_path / "policy.key_secret", ""), AllowList(tmp_path / "robots"))
        own = ClientKeys(read_secret(tmp_path / "robot.key_secret", ""), read_public(tmp_path / "policy.key", ""))
    policy = kind()
    node = serve(policy, keys=keys)
    link = greet(node, own, memory="shared")
    tapped: list[Message] = []
    link.tap = lambda outgoing, frames: tapped.append(codec.decode([bytes(f) for f in frames])) if outgoing else None
    for tick in range(3 * SLOTS):
        reply = ask(link, observed(tick))
        assert reply.chunk is not None, reply.error
        assert reply.chunk.timings_ms["unpack"] > 0
    assert link._transport.memory is not None and link.said == []  # type: ignore[attr-defined]
    sent = [message for message in tapped if message.kind == codec.OBSERVE]
    assert len(sent) == len(policy.seen) == 3 * SLOTS
    for tick, (seen, told) in enumerate(zip(policy.seen, sent, strict=True)):
        for name, array in observed(tick).arrays.items():  # all of them at the end: a policy may keep what it is given
            np.testing.assert_array_equal(seen[name], array)
            np.testing.assert_array_equal(told.arrays[name], array)
    [peer] = [peer for _, peer in node._handler.peers.items()]
    assert peer.memory is not None and (len(peer.memory.kept) == 1) == (kind is Looking), (
        "it looks at them where they lie, unless it keeps them"
    )
    link.close()


def sent_sizes(link: Link, observation: Observation) -> list[list[int]]:
    """Bytes of each frame of every message that is sent until it is answered."""
    sizes: list[list[int]] = []
    original = codec.send

    def send(socket: Any, frames: Any, flags: int = 0) -> None:
        sizes.append([len(frame) for frame in frames])
        original(socket, frames, flags)

    codec.send = send
    try:
        assert ask(link, observation).chunk is not None
    finally:
        codec.send = original
    return sizes


def test_what_is_on_the_wire_is_small_and_what_is_not_agreed_upon_is_as_it_was(serve: Serve) -> None:
    for memory, large in (("shared", False), ("off", True)):
        link = greet(serve(Looking()), memory=memory)
        sizes = sent_sizes(link, observed(1))
        [own] = [each for each in sizes if len(each) == 4]  # header and three arrays
        assert (own[1:] == [LARGE[0], 12, LARGE[1]]) == large and (sum(own) < 2000) != large
        link.close()


def test_a_request_that_is_lost_or_comes_twice(serve: Serve) -> None:
    policy = Looking()
    node = serve(policy)
    link = greet(node, memory="shared")
    send, lost = link._send, []
    link._send = lambda message: bool(lost.append(message.seq)) if not lost else send(message)  # type: ignore
    assert ask(link, observed(1)).chunk is not None and lost and link.repeated
    link._send = lambda message: send(message) and send(message)  # type: ignore[method-assign]
    for tick in range(2, 8):
        assert ask(link, observed(tick)).chunk is not None
    link._send = send  # type: ignore[method-assign]
    chunk = link._chunk
    dropped: list[int] = []
    link._chunk = lambda message: dropped.append(message.seq) if not dropped else chunk(message)  # type: ignore
    assert ask(link, observed(8)).chunk is not None and dropped
    assert [seen[STATE][0] for seen in policy.seen] == [1, 2, 3, 4, 5, 6, 7, 8]
    for seen in policy.seen:
        np.testing.assert_array_equal(seen[TOP], scene(int(seen[STATE][0])))
    link.close()


@POLICIES
@pytest.mark.parametrize("slow_s", [0.0, 0.02])
def test_requests_that_overtake_each_other_are_never_mixed(serve: Serve, kind: type[Looking], slow_s: float) -> None:
    """A robot that does not wait for answers: what the policy gets is always one whole observation, and stays so."""
    policy = kind()
    policy.slow_s = slow_s
    node = serve(policy)
    link = greet(node, memory="shared")
    for tick in range(200):
        link.request(observed(tick), 0, 0)
        if tick % 7 == 0:
            link.wait(0.002)
            link.poll()
    eventually(lambda: bool(policy.seen) and policy.seen[-1][STATE][0] == 199)
    for seen in policy.seen:
        tick = int(seen[STATE][0])
        np.testing.assert_array_equal(seen[TOP], scene(tick))
        np.testing.assert_array_equal(seen[WRIST], scene(tick + 100)[::-1])
    assert node.counters.rejected == 0
    link.close()


def test_memory_is_given_back_by_both(serve: Serve) -> None:
    gc.collect()  # what the tests before have kept and let go of
    before = memories()
    node = serve(Glancing())
    link = greet(node, memory="shared")
    ask(link, observed(0))
    assert memories() == before + 1
    link.close()
    eventually(lambda: memories() == before)
    assert not [name for name in os.listdir("/dev/shm") if NAME in name]


def test_a_policy_that_reads_nothing_large_shares_nothing(serve: Serve) -> None:
    gc.collect()
    before = memories()
    for memory, said in (("auto", []), ("shared", ["wire.memory: the policy reads no array of 65536 bytes or more"])):
        link = greet(serve(Looking({STATE: FEATURES[STATE]})), memory=memory)
        assert link.said == said and link._transport.memory is None  # type: ignore[attr-defined]
        assert ask(link, observed(0)).chunk is not None
        link.close()
    eventually(lambda: memories() == before)


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:5555", "tcp://0.0.0.0:5555", "tcp://[2001:db8::1]:5555"])
def test_memory_of_another_machine_is_a_mistake(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"wire.memory: found shared, and tcp://.* is not an address of this machine"):
        Link(endpoint, insecure=True, wire=WireConfig(memory="shared"))
    with pytest.raises(ConfigError, match="memory: shared is for pictures as they are"):
        WireConfig(images="jpeg", memory="shared")


class Robot:
    """The synthetic robot with two cameras that see another thing each tick."""

    def __new__(cls):  # type: ignore[no-untyped-def]
        return SyntheticConfig(width=3, steps=40, fps=50.0, cameras=2, image_size=(HEIGHT, WIDTH)).make()


@pytest.mark.parametrize("offsets", [(0,), (-3, -1, 0)], ids=["now", "history"])
@pytest.mark.parametrize("latency", ["fixed:0", "lognormal:3,drop=0.1,reorder=0.2"])
def test_an_episode_through_memory_is_the_one_in_frames_to_the_bit(
    serve: Serve, offsets: tuple[int, ...], latency: str
) -> None:
    found = {}
    for memory in ("off", "shared", "auto"):
        robot, clock = Robot(), VirtualClock(50.0)
        policy = Looking(dict(robot.spec.observations), offsets)
        link = greet(serve(policy), robot=robot.spec, memory=memory)
        assert link._policy is not None and (link._transport.memory is None) == (memory == "off")
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=10)
        loop = RobotNode(robot, link._policy, delayed, clock, LoopConfig(max_ticks=40))
        found[memory] = np.stack(loop.run_episode(0, 1).actions).tobytes()
        link.close()
    assert found["off"] == found["shared"] == found["auto"]


# processes

ARGUMENTS = ["--policy.type=ticker", "--policy.width=3", "--policy.cameras=2", "--policy.image_size=[240,320]"]
SYNTHETIC = ["--robot.type=synthetic", "--robot.width=3", "--robot.cameras=2", "--robot.image_size=[240,320]"]


@pytest.mark.slow
def test_an_evaluation_through_memory_is_the_one_in_frames_to_the_byte(serve: Serve, tmp_path: Path) -> None:
    node = serve(TickerConfig(width=3, cameras=2, image_size=(240, 320)).make())
    for memory in ("off", "shared"):
        words = ["eval", *SYNTHETIC, "--episodes=3", f"--connect={node.endpoint}", f"--wire.memory={memory}"]
        assert main([*words, "--robot.steps=60", "--latency=fixed:3", f"--output_dir={tmp_path}/{memory}"]) == 0
    one, other = ((tmp_path / memory / "episodes.jsonl").read_bytes() for memory in ("off", "shared"))
    assert one == other and len(one.splitlines()) == 3


@pytest.mark.slow
def test_nothing_is_left_of_processes_that_are_killed(tmp_path: Path) -> None:
    """Of a robot: the policy node lets go when its session ends. Of a policy node: the next one shares as it did."""
    log = tmp_path / "node.log"
    options = [*ARGUMENTS, "--limits.gone_s=0.5"]
    with serving(log, *options) as (node, endpoint):
        robot = start(
            "run", [*SYNTHETIC, f"--connect={endpoint}", "--wire.memory=shared", "--robot.steps=100000", "--episodes=1",
                    f"--output_dir={tmp_path}/a"], tmp_path / "robot.log",
        )  # fmt: skip
        try:
            eventually(lambda: memories(node.pid) == 1 and memories(robot.pid) == 1, 30)
            node.kill()
            node.wait()
        except BaseException:
            end(robot)
            raise
        again = start("serve", [f"--connect={endpoint}", *options], tmp_path / "again.log")
        try:
            eventually(lambda: memories(again.pid) == 1, 30)
            assert robot.poll() is None, (tmp_path / "robot.log").read_text()
            robot.send_signal(signal.SIGKILL)
            robot.wait()
            eventually(lambda: memories(again.pid) == 0, 30)
        finally:
            end(again)
            end(robot)
    assert not [name for name in os.listdir("/dev/shm") if NAME in name]


def can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


@pytest.mark.long
@pytest.mark.skipif(not can_unshare(), reason="process namespaces need root and unshare")
def test_a_node_that_cannot_see_the_robot_takes_frames_and_says_why(tmp_path: Path) -> None:
    """A policy node in a container, say, behind an address of this machine."""
    words = [sys.executable, "-m", "tactus", "serve", "--connect=tcp://127.0.0.1:*", *ARGUMENTS]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "node.log"
    with log.open("wb") as out:
        apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        node = subprocess.Popen([*apart, *words], stdout=out, stderr=out, env=environment, cwd=root)
    try:
        endpoint = endpoint_of(log)
        robot = [*SYNTHETIC, "--robot.steps=20", "--episodes=2", f"--connect={endpoint}"]
        for workers in ([], ["--workers=2"]):
            out = tmp_path / f"eval{len(workers)}"
            told = subprocess.run(
                [sys.executable, "-m", "tactus", "eval", *robot, *workers, f"--output_dir={out}"],
                capture_output=True, text=True, env=environment, cwd=root,
            )  # fmt: skip
            assert told.returncode == 0 and len(episodes(out)) == 2, told.stderr
            line = " ".join(told.stdout.split())
            assert len(re.findall("arrays travel in frames, not through shared memory: ", line)) == 1, told.stdout
        told = subprocess.run(
            [sys.executable, "-m", "tactus", "eval", *robot, "--wire.memory=shared", f"--output_dir={tmp_path}/no"],
            capture_output=True, text=True, env=environment, cwd=root,
        )  # fmt: skip
        assert told.returncode == 3 and "wire.memory: shared cannot be: " in told.stderr, told.stderr
    finally:
        end(node)
