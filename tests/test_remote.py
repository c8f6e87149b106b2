"""Policies that openpi's and GR00T's servers answer for: what is sent, what is believed, what becomes of bad servers.

openpi's side is the real openpi_client 0.1.2; GR00T's package is on no registry, so that its side is written from its
source, with numpy's own np.save and the real msgpack-numpy (peer_servers.py).
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from conftest import MakeLibero, Serve
from hypothesis import given
from hypothesis import strategies as st
from openpi_client import image_tools
from openpi_client import msgpack_numpy as openpi_numpy
from peer_servers import Gr00tServer, OpenpiServer, gr00t_bytes

from tactus.hal.config import ConfigError
from tactus.hal.push.config import PushConfig
from tactus.hal.robot import Robot
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, Feature, Observation, SpecError
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.policies.lerobot.config import LearnedConfig
from tactus.policies.policy import Policy, PolicyError, Request, Session
from tactus.policies.remote.array_messages import MAX_OBJECTS, ND, NPY, OPENPI, MessageError, pack, unpack
from tactus.policies.remote.config import Gr00tConfig, OpenpiConfig
from tactus.policies.remote.feature_map import FeatureError, FeatureMap
from tactus.policies.remote.pictures import resize_with_pad
from tactus.policies.remote.policy import Attempts
from tactus.policies.scripted.config import PusherConfig
from tactus.runtime.policy_node.inference import make
from tactus.runtime.robot_node.clock import RealClock, VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

WIDTH, HORIZON = 7, 10
INPUTS = {"observation.state": WIDTH, "observation.images.camera_0": [8, 8]}
FEATURES = {
    "observation/state": "observation.state",
    "observation/image": "observation.images.camera_0",
    "prompt": "task",
    "tick": "tick",
}
GR00T = {
    "video": {"front": "observation.images.camera_0"},
    "state": {"arm": "observation.state[0:6]", "gripper": "observation.state[6:7]"},
    "language": {"task": "task"},
}


def openpi(url: str, **changes: Any) -> OpenpiConfig:
    settings: dict[str, Any] = {"inputs": INPUTS, "features": FEATURES, "horizon": HORIZON}
    return OpenpiConfig(**{"url": url, "connect_timeout_s": 1.0, "timeout_s": 2.0, **settings, **changes})


def gr00t(url: str, **changes: Any) -> Gr00tConfig:
    settings: dict[str, Any] = {"inputs": INPUTS, "features": GR00T, "horizon": HORIZON}
    settings |= {"actions": {"arm": 6, "gripper": 1}, "connect_timeout_s": 1.0, "timeout_s": 2.0}
    return Gr00tConfig(**{"url": url, **settings, **changes})


def seen(tick: int = 0, seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (8, 8, 3), np.uint8)
    state = rng.normal(size=WIDTH).astype(np.float32)
    return Observation({"observation.state": state, "observation.images.camera_0": picture}, {}, tick, "pick it up")


def ask(policy: Policy, observation: Observation | None = None) -> np.ndarray:
    return policy.infer([Request("s", observation or seen())])[0].actions


@pytest.fixture
def openpi_server() -> Iterator[Callable[..., OpenpiServer]]:
    made: list[OpenpiServer] = []

    def start(*args: Any, **keys: Any) -> OpenpiServer:
        made.append(OpenpiServer(*args, **keys))
        return made[-1]

    yield start
    for server in made:
        if not server.loop.is_closed() and server.loop.is_running():
            server.close()


@pytest.fixture
def gr00t_server() -> Iterator[Callable[..., Gr00tServer]]:
    made: list[Gr00tServer] = []

    def start(*args: Any, **keys: Any) -> Gr00tServer:
        made.append(Gr00tServer(*args, **keys))
        return made[-1]

    yield start
    for server in made:
        server.close()


def zeros(observation: dict[str, Any]) -> dict[str, Any]:
    return {"actions": np.zeros((HORIZON, WIDTH))}


# messages


def messages() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "observation/image": rng.integers(0, 255, (4, 5, 3), np.uint8),
        "observation/state": rng.normal(size=8),
        "nested": {"empty": np.zeros((0, 3), np.float16), "scalar": np.array(2.0), "yes": np.array([True])},
        "turned": rng.normal(size=(3, 4)).T,
        "prompt": "pick up the cube",
        "numbers": [1, 2.5, None],
    }


def test_what_is_written_is_theirs_to_the_byte() -> None:
    found = messages()
    assert pack(found, OPENPI) == openpi_numpy.packb(found)
    assert pack(found, ND) == msgpack.packb(found, default=msgpack_numpy.encode)
    found["turned"] = np.ascontiguousarray(found["turned"])
    assert pack(found, NPY) == gr00t_bytes(found, "n1.6")


@pytest.mark.parametrize("form", [OPENPI, ND, NPY])
def test_all_three_forms_are_read(form: Any) -> None:
    forms: set[str] = set()
    found = unpack(pack(messages(), form), forms)
    assert forms == {form}
    for name in ("observation/image", "observation/state", "turned"):
        np.testing.assert_array_equal(found[name], messages()[name])
        assert found[name].dtype == messages()[name].dtype
    assert found["nested"]["empty"].shape == (0, 3)
    assert found["nested"]["scalar"].shape == ()
    assert found["prompt"] == "pick up the cube" and found["numbers"] == [1, 2.5, None]


def test_a_column_major_npy_file_is_read() -> None:
    file = io.BytesIO()
    array = np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4)))
    np.save(file, array)
    np.testing.assert_array_equal(unpack(msgpack.packb({"__ndarray_class__": True, "as_npy": file.getvalue()})), array)


class Evil:
    def __reduce__(self) -> Any:
        return os._exit, (3,)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


EVIL = np.array([Evil()], dtype=object)
BAD: dict[str, Any] = {
    "an object array of openpi's": {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "|O", b"shape": [1]},
    "a pickle of msgpack-numpy's": {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": EVIL.dumps()},
    "a pickle in a .npy file": {"__ndarray_class__": True, "as_npy": saved(EVIL)},
    "a pickle for a .npy file": {"__ndarray_class__": True, "as_npy": pickle.dumps(1)},
    "more elements than bytes": {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f8", b"shape": [2**40]},
    "a negative size": {b"__ndarray__": True, b"data": b"", b"dtype": "<f8", b"shape": [-1]},
    "a size that is none": {b"__ndarray__": True, b"data": b"", b"dtype": "<f8", b"shape": [True]},
    "no shape": {b"__ndarray__": True, b"data": b"", b"dtype": "<f8"},
    "structures": {b"nd": True, b"type": [["a", "<f8"]], b"kind": b"V", b"shape": [1], b"data": b"\0" * 8},
    "text": {b"__ndarray__": True, b"data": b"\0" * 4, b"dtype": "<U1", b"shape": [1]},
    "times": {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<M8[s]", b"shape": [1]},
    "an unhashable dtype": {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": {}, b"shape": [1]},
    "no file": {"__ndarray_class__": True},
    "a config that is none": {"__ModalityConfig__": True, "as_json": "[[["},
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arrays_are_a_sentence(what: str) -> None:
    with pytest.raises(MessageError) as raised:
        unpack(msgpack.packb({"actions": BAD[what]}))
    assert str(raised.value).isprintable() and len(str(raised.value)) < 250


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x01\x02",
        b"\x91" * 5000 + b"\x01",
        b"\xc7\x01\x05a",
    ],
)
def test_bad_msgpack_is_a_sentence(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(data)


def test_a_message_of_very_many_objects_is_none() -> None:
    """A megabyte of empty lists would be fifty in memory."""
    many = msgpack.packb([[]] * (MAX_OBJECTS + 1))
    with pytest.raises(MessageError, match="more than"):
        unpack(many)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_sentence(data: bytes) -> None:
    try:
        unpack(data)
    except MessageError:
        return
    msgpack.unpackb(data, strict_map_key=False)


@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from([OPENPI, ND, NPY]))
def test_a_message_with_another_byte_is_a_message_or_a_sentence(at: int, byte: int, form: Any) -> None:
    data = bytearray(pack(messages(), form))
    data[at % len(data)] = byte
    with contextlib.suppress(MessageError):
        unpack(bytes(data))


# maps


def test_a_map_goes_both_ways() -> None:
    mapped = FeatureMap(GR00T)
    arrays = seen().arrays
    theirs = mapped.theirs(
        lambda leaf: "go" if leaf.name == "task" else arrays[leaf.name][slice(*leaf.part) if leaf.part else slice(None)]
    )
    assert theirs["state"]["arm"].shape == (6,) and theirs["language"] == {"task": "go"}
    back = mapped.ours(theirs, lambda leaf, found: found)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert mapped.task(theirs) == "go" and mapped.tick(theirs) is None


SPECS = {"observation.state": Feature((7,), "float32")}


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ({}, "features: empty"),
        ({"a": {}}, "a: empty"),
        ({"a": 3}, "a: found 3; accepted: NAME, NAME[a:b]"),
        ({"a": "observation.state[5]"}, "accepted: NAME, NAME[a:b]"),
        ({"a": "observation.stat"}, "a: found 'observation.stat'; accepted: observation.state"),
        ({"a": "observation.state[3:9]"}, "of shape (7,)"),
        ({"a": "task"}, "nothing is observation.state"),
        ({"a": "observation.state[0:3]", "b": "observation.state[4:7]"}, "not all of its 7 elements"),
        ({"a": "observation.state", "b": "observation.state"}, "not all of its 7 elements"),
    ],
)
def test_a_map_that_cannot_be(features: dict[str, Any], says: str) -> None:
    with pytest.raises(FeatureError) as raised:
        FeatureMap(features).check(SPECS, whole=True)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": {}}, "inputs: not given"),
        ({"inputs": {"observation.state": "8"}}, "inputs.observation.state: found '8'; accepted: WIDTH"),
        ({"features": {"a": "observation.states"}}, "features: a: found 'observation.states'"),
        ({"url": "http://127.0.0.1:8000"}, "accepted: ws://HOST:PORT"),
        ({"url": "ws://127.0.0.1"}, "expected a scheme, a host and a port"),
        ({"url": "ws://10.0.0.3:8000"}, "another machine"),
        ({"server_width": 3}, "server_width: found 3"),
        ({"n_action_steps": 99}, "n_action_steps: found 99"),
        ({"api_key_env": "A", "api_key_file": "b"}, "give one of them"),
    ],
)
def test_a_config_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OpenpiConfig(**({"inputs": INPUTS, "features": FEATURES, "horizon": HORIZON} | changes))
    assert says in str(raised.value)


def test_another_machine_may_be_accepted_or_encrypted() -> None:
    openpi("ws://10.0.0.3:8000", insecure=True)
    openpi("wss://gpu.example:443")


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (100, 30), (224, 224), (7, 5)])
def test_pictures_are_fitted_as_openpi_does_it_to_the_bit(size: tuple[int, int]) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, *size, 3), np.uint8)
    for each in (pictures, pictures[0]):
        np.testing.assert_array_equal(resize_with_pad(each, 224, 224), image_tools.resize_with_pad(each, 224, 224))


def test_pauses_between_attempts_double() -> None:
    now_s = [0.0]
    attempts = Attempts(lambda: now_s[0])
    waits = []
    for _ in range(8):
        attempts.failed()
        waits.append(attempts.wait_s)
        now_s[0] += attempts.wait_s
    assert waits == pytest.approx([0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    attempts.succeeded()
    assert not attempts.wait_s


# servers


def test_an_openpi_server_gets_what_the_map_says(openpi_server: Callable[..., OpenpiServer], tmp_path: Any) -> None:
    got: list[dict[str, Any]] = []

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        got.append(observation)
        wide = np.arange(HORIZON * 9, dtype=np.float64).reshape(HORIZON, 9)
        return {"actions": wide, "policy_timing": {"infer_ms": 0.25}, "state": observation["observation/state"]}

    server = openpi_server(infer, metadata={"robot": "arm"})
    (tmp_path / "key").write_text("s3cret\n")
    policy = make(openpi(server.url, server_width=9, api_key_file=str(tmp_path / "key"), resize_with_pad=[16, 32]))
    [chunk] = policy.infer([Request("s", seen(4))])
    np.testing.assert_array_equal(chunk.actions, np.arange(HORIZON * 9).reshape(HORIZON, 9)[:, :7].astype(np.float32))
    assert chunk.timings_ms["infer"] == 0.25
    [observation] = got
    assert (observation["prompt"], observation["tick"]) == ("pick it up", 4)
    picture = seen().arrays["observation.images.camera_0"]
    np.testing.assert_array_equal(observation["observation/image"], image_tools.resize_with_pad(picture, 16, 32))
    assert server.headers[0]["Authorization"] == "Api-Key s3cret"
    assert "s3cret" not in repr(policy.spec) and policy.spec.details["metadata"] == "{'robot': 'arm'}"


def test_channels_come_first_where_the_map_says_so(openpi_server: Callable[..., OpenpiServer]) -> None:
    got: list[dict[str, Any]] = []
    server = openpi_server(lambda observation: got.append(observation) or zeros(observation))
    features = {"images": {"cam_high": "observation.images.camera_0:chw"}, "state": "observation.state"}
    ask(openpi(server.url, features=features, rotate_180=True).make())
    picture = seen().arrays["observation.images.camera_0"]
    np.testing.assert_array_equal(got[0]["images"]["cam_high"], picture[::-1, ::-1].transpose(2, 0, 1))


def bad_answers() -> dict[str, tuple[Any, str]]:
    chunk = np.zeros((HORIZON, WIDTH))
    nan = chunk.copy()
    nan[3, 2] = np.nan
    return {
        "another width": ({"actions": chunk[:, :3]}, r"answered float64\[10, 3\], expected \[10, 7\]"),
        "another length": ({"actions": chunk[:3]}, r"answered float64\[3, 7\]"),
        "not finite": ({"actions": nan}, "not finite"),
        "no actions": ({"action": chunk}, "answered without actions: keys action"),
        "not a map": ([1], "answered without actions: list"),
        "ragged": ({"actions": [[1.0], [1.0, 2.0]]}, "no array"),
        "texts": ({"actions": [["a"] * WIDTH] * HORIZON}, r"answered <U1\[10, 7\]"),
        "garbage": (b"\xc1garbage", "no message of openpi's"),
        "objects": (msgpack.packb({"actions": BAD["an object array of openpi's"]}), "dtype '|O'"),
        "a text": ("Traceback (most recent call last):\n  File\nKeyError: 'wrist'\n", r"reports: KeyError: 'wrist'"),
        "too much": (b"\0" * 3_000_000, "is gone"),
    }


@pytest.mark.parametrize("what", bad_answers())
def test_a_bad_answer_of_openpis_is_a_sentence_and_the_next_one_counts(
    what: str, openpi_server: Callable[..., OpenpiServer]
) -> None:
    answer, says = bad_answers()[what]
    answers = [answer, zeros({})]
    server = openpi_server(lambda observation: answers.pop(0))
    policy = make(openpi(server.url))
    with pytest.raises(PolicyError, match=says) as raised:
        ask(policy)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 500
    assert not ask(policy).any()


def test_what_an_openpi_server_raises_is_a_sentence(openpi_server: Callable[..., OpenpiServer]) -> None:
    server = openpi_server(lambda observation: {}["observation/wrist_image"])
    policy = make(openpi(server.url))
    with pytest.raises(PolicyError, match=r"reports: KeyError: 'observation/wrist_image'$"):
        ask(policy)


@pytest.mark.realtime
def test_an_openpi_server_that_hangs_dies_and_is_back(openpi_server: Callable[..., OpenpiServer]) -> None:
    hangs = threading.Event()
    server = openpi_server(lambda observation: (hangs.wait(20) and None) or zeros(observation))
    policy = make(openpi(server.url, timeout_s=0.3))
    began_s = time.monotonic()
    with pytest.raises(PolicyError, match=r"has not sent a chunk for 0.3 s"):
        ask(policy)
    assert time.monotonic() - began_s < 2
    hangs.set()
    port = server.port
    server.close()
    for _ in range(2):
        with pytest.raises(PolicyError, match="no openpi server answers"):
            ask(policy)
    openpi_server(zeros, port=port)
    answered = None
    until_s = time.monotonic() + 15
    while answered is None and time.monotonic() < until_s:
        try:
            answered = ask(policy)
        except PolicyError:
            time.sleep(0.05)
    assert answered is not None


def test_a_server_that_comes_back_as_another_one_is_not_believed(openpi_server: Callable[..., OpenpiServer]) -> None:
    server = openpi_server(zeros, metadata={"policy": "pi0"})
    policy = make(openpi(server.url))
    ask(policy)
    server.close()
    openpi_server(zeros, port=server.port, metadata={"policy": "pi05"})
    with pytest.raises(PolicyError, match="serves another policy"):
        ask(policy)


@pytest.mark.parametrize("metadata", [b"\xc1", b"\0" * 3_000_000])
def test_no_server_of_theirs_is_a_sentence_at_the_start(
    metadata: bytes, openpi_server: Callable[..., OpenpiServer]
) -> None:
    server = openpi_server(zeros, metadata=metadata)
    with pytest.raises(SpecError, match=r"policy\.url: "):
        make(openpi(server.url, connect_timeout_s=0.2))
    with pytest.raises(SpecError, match="no openpi server answers at ws://127.0.0.1:1: Connection refused"):
        make(openpi("ws://127.0.0.1:1", connect_timeout_s=0.2))


def test_gr00t_gets_all_ticks_of_pictures_and_the_newest_state(gr00t_server: Callable[..., Gr00tServer]) -> None:
    got: list[dict[str, Any]] = []

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        got.append(observation)
        return {"arm": np.ones((1, HORIZON, 6), np.float32), "gripper": np.zeros((1, HORIZON, 1), np.float32)}

    server = gr00t_server(infer)
    policy = make(gr00t(server.url, observation_offsets=[-2, 0]))
    assert policy.spec.observation_offsets == (-2, 0)
    past, now = seen(seed=1).arrays, seen(seed=2).arrays
    both = Observation({name: np.stack([past[name], now[name]]) for name in now}, {}, 3, "go")
    np.testing.assert_array_equal(ask(policy, both), [[1, 1, 1, 1, 1, 1, 0]] * HORIZON)
    [observation] = got
    np.testing.assert_array_equal(observation["video"]["front"], both.arrays["observation.images.camera_0"][None])
    np.testing.assert_array_equal(observation["state"]["arm"], now["observation.state"][None, None, :6])
    assert observation["state"]["arm"].dtype == np.float32
    assert observation["language"]["task"] == [["go"]]
    assert server.calls == ["get_modality_config", "get_action"]


ARM, GRIPPER = np.zeros((1, HORIZON, 6), np.float32), np.zeros((1, HORIZON, 1), np.float32)


@pytest.mark.parametrize("version", ["n1.7", "n1.6"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"arm": ARM}, "no part 'gripper'; there is arm"),
        ({"arm": ARM[:, :, :5], "gripper": GRIPPER}, r"part 'arm' is float32\[10, 5\], expected 6 wide"),
        ({"arm": ARM[:, :4], "gripper": GRIPPER}, "answered"),
        ({"arm": ARM[:, :4], "gripper": GRIPPER[:, :4]}, r"answered float32\[4, 7\], expected \[10, 7\]"),
        ({"arm": ARM * np.nan, "gripper": GRIPPER}, "not finite"),
        (b"\xc1", "no message of GR00T's"),
        (msgpack.packb([BAD["a pickle of msgpack-numpy's"]]), "would have to be unpickled: refused"),
        (msgpack.packb([BAD["a pickle in a .npy file"]]), "would have to be unpickled: refused"),
        (msgpack.packb({"error": "Traceback\nAssertionError: Video key"}), "reports: AssertionError: Video key"),
    ],
)
def test_a_bad_answer_of_gr00ts_is_a_sentence_and_the_next_one_counts(
    answer: Any, says: str, version: str, gr00t_server: Callable[..., Gr00tServer]
) -> None:
    answers = [answer, {"arm": ARM, "gripper": GRIPPER}]
    server = gr00t_server(lambda observation: answers.pop(0), version)
    policy = make(gr00t(server.url, version=version))
    with pytest.raises(PolicyError, match=says) as raised:
        ask(policy)
    assert str(raised.value).isprintable()
    assert not ask(policy).any()


@pytest.mark.realtime
def test_a_late_answer_of_gr00ts_is_never_taken_for_another(gr00t_server: Callable[..., Gr00tServer]) -> None:
    pauses_s = [0.6, 0.0, 0.0]

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        time.sleep(pauses_s.pop(0))
        return {"arm": ARM + observation["state"]["arm"], "gripper": GRIPPER}

    policy = make(gr00t(gr00t_server(infer).url, timeout_s=0.2))
    with pytest.raises(PolicyError, match=r"has not answered get_action for 0.2 s"):
        ask(policy, seen(seed=1))
    for seed in (2, 3):
        np.testing.assert_array_equal(
            ask(policy, seen(seed=seed))[0, :6], seen(seed=seed).arrays["observation.state"][:6]
        )


def test_gr00ts_token_is_sent_and_a_wrong_one_is_a_sentence(
    gr00t_server: Callable[..., Gr00tServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = gr00t_server(lambda observation: {"arm": ARM, "gripper": GRIPPER}, token="s3cret")
    monkeypatch.setenv("GR00T_TOKEN", "s3cret")
    assert not ask(make(gr00t(server.url, api_key_env="GR00T_TOKEN"))).any()
    with pytest.raises(SpecError, match="Unauthorized"):
        make(gr00t(server.url, connect_timeout_s=0.2))
    monkeypatch.delenv("GR00T_TOKEN")
    with pytest.raises(ValueError, match="the environment variable GR00T_TOKEN holds no key"):
        make(gr00t(server.url, api_key_env="GR00T_TOKEN"))


# in front of a robot


PUSH_INPUTS = {"observation.state": 2, "observation.environment_state": 6}


class Pusher:
    """What an openpi server and a GR00T server have behind them here: a policy of ours that looks where things are."""

    def __init__(self) -> None:
        self.policy = PusherConfig(noise=0.2).make()
        self.policy.reset(Session("s", 5, ""))

    def chunk(self, state: np.ndarray, environment: np.ndarray, tick: int) -> np.ndarray:
        arrays = {"observation.state": state, "observation.environment_state": environment}
        return self.policy.infer([Request("s", Observation(arrays, {}, tick))])[0].actions

    def openpi(self, seen: dict[str, Any]) -> dict[str, Any]:
        return {"actions": self.chunk(seen["state"], seen["places"], seen["tick"])}

    def gr00t(self, seen: dict[str, Any]) -> dict[str, Any]:
        chunk = self.chunk(seen["state"]["at"][0, 0], seen["state"]["places"][0, 0], seen["tick"])
        return {"x": chunk[None, :, :1], "y": chunk[None, :, 1:]}


class Looker:
    """Likewise, with the policy that ships for LIBERO and looks."""

    def __init__(self) -> None:
        self.policy = LearnedConfig(threads=1).make()
        self.policy.reset(Session("s", 5, ""))

    def chunk(self, arrays: dict[str, np.ndarray], task: str) -> np.ndarray:
        return self.policy.infer([Request("s", Observation(arrays, {}, 0, task))])[0].actions

    def openpi(self, seen: dict[str, Any]) -> dict[str, Any]:
        arrays = {f"{IMAGES}image": seen["observation/image"], f"{IMAGES}image2": seen["observation/wrist_image"]}
        return {"actions": self.chunk(arrays | {STATE: seen["observation/state"]}, seen["prompt"])}

    def gr00t(self, seen: dict[str, Any]) -> dict[str, Any]:
        arrays = {f"{IMAGES}{name}": video[0, 0] for name, video in seen["video"].items()}
        chunk = self.chunk(arrays | {STATE: seen["state"]["arm"][0, 0]}, seen["language"]["task"][0][0])
        return {"arm": chunk[None, :, :6], "gripper": chunk[None, :, 6:]}


def synchronous(robot: Robot, chunk: Callable[[Observation, int], np.ndarray], ticks: int) -> list[np.ndarray]:
    """Observe, infer, act eight of the chunk: what an openpi or GR00T robot does, and nothing of the runtime."""
    robot.connect()
    robot.reset(0, 3)
    actions: list[np.ndarray] = []
    planned = np.empty(0)
    while len(actions) < ticks and not (actions and robot.outcome().done):  # pyright: ignore[reportOptionalMemberAccess]
        if not len(actions) % 8:
            planned = chunk(robot.observe(), len(actions))
        actions.append(robot.act(planned[len(actions) % 8]))
    robot.close()
    return actions


def queued(robot: Robot, policy: Policy, serve: Serve, **loop: Any) -> EpisodeStats:
    """The same episode in virtual time, at no latency, by way of node, wire and queue."""
    clock, link = VirtualClock(20.0), Link(serve(policy).endpoint)
    try:
        robot.connect()
        spec = link.hello(robot.spec, 10, real_time=False)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:0"), lost_after_s=60)
        return RobotNode(robot, spec, delayed, clock, LoopConfig(chunk_size_threshold=0.0, **loop)).run_episode(0, 3)
    finally:
        link.close()
        robot.close()


def pushed(pusher: Pusher) -> list[np.ndarray]:
    return synchronous(
        PushConfig().make(),
        lambda seen, tick: pusher.chunk(seen.arrays[STATE], seen.arrays[ENVIRONMENT_STATE], tick),
        ticks=1000,
    )


@pytest.mark.slow
def test_an_openpi_server_in_virtual_time_is_synchronous_evaluation_to_the_bit(
    serve: Serve, openpi_server: Callable[..., OpenpiServer]
) -> None:
    server = openpi_server(Pusher().openpi)
    features = {"state": "observation.state", "places": "observation.environment_state", "tick": "tick"}
    config = OpenpiConfig(url=server.url, inputs=PUSH_INPUTS, features=features, horizon=8, action_width=2)
    stats = queued(PushConfig().make(), make(config), serve)
    assert stats.starved_ticks == 0 and stats.policy_errors == 0
    np.testing.assert_array_equal(stats.actions, pushed(Pusher()))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["n1.7", "n1.6"])
def test_a_gr00t_server_in_virtual_time_is_synchronous_evaluation_to_the_bit(
    version: str, serve: Serve, gr00t_server: Callable[..., Gr00tServer]
) -> None:
    server = gr00t_server(Pusher().gr00t, version)
    config = Gr00tConfig(
        url=server.url,
        version=version,
        inputs=PUSH_INPUTS,
        features={"state": {"at": "observation.state", "places": "observation.environment_state"}, "tick": "tick"},
        actions={"x": 1, "y": 1},
        horizon=8,
    )
    stats = queued(PushConfig().make(), make(config), serve)
    assert stats.starved_ticks == 0 and stats.policy_errors == 0
    np.testing.assert_array_equal(stats.actions, pushed(Pusher()))


@pytest.mark.slow
def test_in_libero_both_are_synchronous_evaluation_to_the_bit(
    libero: MakeLibero,
    serve: Serve,
    openpi_server: Callable[..., OpenpiServer],
    gr00t_server: Callable[..., Gr00tServer],
) -> None:
    """The policy that looks, behind openpi's server and behind GR00T's, and asked directly."""
    ticks, looker = 40, Looker()
    expected = synchronous(
        robot := libero(image_size=(96, 96)),
        lambda seen, _: looker.chunk(dict(seen.arrays), robot.scene(0).task),
        ticks,
    )
    inputs = {STATE: 8, f"{IMAGES}image": (96, 96), f"{IMAGES}image2": (96, 96)}
    theirs = {"observation/image": f"{IMAGES}image", "observation/wrist_image": f"{IMAGES}image2"}
    theirs |= {"observation/state": STATE, "prompt": "task"}
    nested = {"video": {name: f"{IMAGES}{name}" for name in ("image", "image2")}}
    nested |= {"state": {"arm": STATE}, "language": {"task": "task"}}
    for config in (
        OpenpiConfig(
            url=openpi_server(Looker().openpi).url, inputs=inputs, features=theirs, horizon=16, action_width=7
        ),
        Gr00tConfig(
            url=gr00t_server(Looker().gr00t, "n1.7").url,
            inputs=inputs,
            features=nested,
            actions={"arm": 6, "gripper": 1},
            horizon=16,
        ),
    ):
        robot = libero(image_size=(96, 96))
        stats = queued(robot, make(config), serve, execution_horizon=8, max_ticks=ticks)
        assert stats.starved_ticks == 0 and stats.policy_errors == 0 and stats.ticks == ticks
        np.testing.assert_array_equal(stats.actions, expected)
    assert np.ptp(np.stack(expected)[:, :3], axis=0).min() > 0.1, "it moves"


@pytest.mark.realtime
@pytest.mark.slow
def test_the_robot_holds_while_a_server_is_away_and_goes_on_when_it_is_back(
    serve: Serve, openpi_server: Callable[..., OpenpiServer]
) -> None:
    """Two seconds at 50 Hz; the server dies in the first and is back half a second later."""

    def infer(seen: dict[str, Any]) -> dict[str, Any]:
        return {"actions": np.repeat(seen["tick"] + np.arange(HORIZON, dtype=np.float32), WIDTH).reshape(-1, WIDTH)}

    server = openpi_server(infer)
    node = serve(make(openpi(server.url)))
    robot = SyntheticConfig(fps=50, cameras=1, image_size=(8, 8), steps=100).make()
    link, said = Link(node.endpoint), []

    def away() -> None:
        time.sleep(0.5)
        server.close()
        time.sleep(0.5)
        openpi_server(infer, port=server.port)

    absence = threading.Thread(target=away)
    try:
        robot.connect()
        spec = link.hello(robot.spec, 10)
        absence.start()
        loop = RobotNode(robot, spec, link, RealClock(50.0), LoopConfig(error_retry_s=0.05), said.append)
        stats = loop.run_episode(0, 1)
    finally:
        absence.join()
        link.close()
        robot.close()
    assert stats.ticks == 100
    assert stats.policy_errors and stats.starved_ticks >= 5
    assert any("PolicyError: no openpi server answers" in line or "is gone" in line for line in said), said
    actions = np.stack(stats.actions)[:, -1]  # binary, so that holding repeats it
    moves = np.diff(actions)
    assert set(np.unique(moves)) <= {0.0, 1.0} and moves[-20:].all(), "it holds, and goes on where it was"
