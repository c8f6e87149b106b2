"""Other people's robots at our policy node: openpi's real client, and GR00T's, over real sockets, bridges in processes.

GR00T's client is on no registry: its REQ socket and messages are written from its source (peer_servers.py says which).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import websockets.sync.client
import zmq
from conftest import Serve
from openpi_client import msgpack_numpy as openpi_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from peer_servers import gr00t_bytes, gr00t_message
from test_remote import BAD, Pusher, pushed, queued

from tactus.hal.config import ConfigError
from tactus.hal.push.config import PushConfig
from tactus.hal.spec import Chunk, Feature, PolicySpec, SpecError, image
from tactus.policies.policy import Policy, PolicyError, Request, Session
from tactus.policies.remote.config import OpenpiConfig
from tactus.policies.scripted.config import PusherConfig
from tactus.runtime.bridges.bridge_process import Bridge, Order, reachable
from tactus.runtime.bridges.config import Bridges, listening
from tactus.runtime.policy_node.inference import make
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.wire.keys import AllowList, ServerKeys, make_keys, read_secret

pytestmark = [pytest.mark.filterwarnings("ignore:connect.. must be used"), pytest.mark.slow]
"""openpi's client calls websockets as it did before version 17."""

WIDTH, HORIZON = 7, 10
INPUTS = {"observation.state": Feature((WIDTH,), "float32"), "observation.images.top": image(8, 8)}
OPENPI = {"observation/state": "observation.state", "observation/image": "observation.images.top", "prompt": "task"}
GR00T = {
    "video": {"top": "observation.images.top"},
    "state": {"arm": "observation.state[0:6]", "gripper": "observation.state[6:7]"},
    "language": {"annotation.human.task_description": "task"},
}
FLAT = {
    "video.top": "observation.images.top",
    "state.arm": "observation.state[0:6]",
    "state.gripper": "observation.state[6:7]",
    "annotation.human.task_description": "task",
}


class Counting(Policy):
    """actions[i] is what the state says, plus 100 for each request of the session's episode so far, plus i."""

    max_batch = 4

    def __init__(self) -> None:
        action = Feature((WIDTH,), "float32")
        self.spec_ = PolicySpec("counting", INPUTS, action, HORIZON, robot="arm")
        self.seen: dict[str, list[Request]] = {}
        self.opened: list[Session] = []

    @property
    def spec(self) -> PolicySpec:
        return self.spec_

    def reset(self, session: Session) -> None:
        self.seen[session.id] = []
        self.opened.append(session)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        chunks = []
        for request in requests:
            if request.observation.task == "fail":
                raise PolicyError("no such task")
            self.seen[request.session].append(request)
            first = request.observation.arrays["observation.state"] + 100 * len(self.seen[request.session])
            chunks.append(Chunk(request.observation.tick, (first + np.arange(HORIZON)[:, None]).astype(np.float32)))
        return chunks


Started = Callable[..., Bridge]


@pytest.fixture
def bridge() -> Iterator[Started]:
    made: list[Bridge] = []

    def start(node: PolicyNode, kind: Any = "openpi", **keys: Any) -> Bridge:
        features = {"openpi": OPENPI, "gr00t": GR00T}[kind]
        settings = {"features": features, "host": "127.0.0.1", "port": 0, "policy": node.spec.to_dict()}
        if kind == "gr00t":
            settings["actions"] = {"arm": 6, "gripper": 1}
        made.append(Bridge(Order(**{"kind": kind, "node": node.endpoint, **settings, **keys})))
        return made[-1]

    yield start
    for each in made:
        each.close()


def seen(seed: int = 0, task: str = "pick it up") -> dict[str, Any]:
    """What an openpi robot sends; its state is float64, as that of openpi's LIBERO example."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (8, 8, 3), np.uint8)
    return {"observation/state": rng.normal(size=WIDTH), "observation/image": picture, "prompt": task}


def expected(observation: dict[str, Any], nth: int = 1) -> np.ndarray:
    state = observation["observation/state"].astype(np.float32) + 100 * nth
    return (state + np.arange(HORIZON)[:, None]).astype(np.float32)


def openpi_client(bridge: Bridge, key: str | None = None) -> WebsocketClientPolicy:
    host, _, port = bridge.endpoint.removeprefix("ws://").rpartition(":")
    return WebsocketClientPolicy(host, int(port), key)


def test_openpis_client_gets_the_nodes_chunks(serve: Serve, bridge: Started) -> None:
    policy = Counting()
    client = openpi_client(bridge(serve(policy)))
    assert client.get_server_metadata() == {"policy": "counting", "action_horizon": HORIZON, "action_dim": WIDTH}
    for nth in (1, 2, 3):
        answer = client.infer(seen(nth))
        np.testing.assert_array_equal(answer["actions"], expected(seen(nth), nth))
        assert answer["actions"].dtype == np.float32 and answer["policy_timing"]["infer_ms"] >= 0
    [requests] = policy.seen.values()
    assert [request.observation.tick for request in requests] == [0, 1, 2]
    np.testing.assert_array_equal(
        requests[0].observation.arrays["observation.images.top"], seen(1)["observation/image"]
    )
    client.infer(seen(4, "another task"))
    assert [(session.seed, session.task) for session in policy.opened] == [(0, "pick it up"), (1, "another task")]


def test_each_robot_has_a_session_of_its_own(serve: Serve, bridge: Started) -> None:
    policy = Counting()
    started = bridge(serve(policy))
    clients = [openpi_client(started) for _ in range(3)]
    for nth in (1, 2):
        for seed, client in enumerate(clients):
            np.testing.assert_array_equal(client.infer(seen(seed))["actions"], expected(seen(seed), nth))
    assert len(policy.seen) == 3


def test_our_own_policy_of_openpi_through_the_bridge_is_the_policy_to_the_bit(serve: Serve, bridge: Started) -> None:
    """Robot, node, openpi's wire, bridge, node: at no latency what the policy does by itself."""
    inner = serve(PusherConfig(noise=0.2).make())
    features = {
        "state": "observation.state",
        "places": "observation.environment_state",
        "prompt": "task",
        "tick": "tick",
    }
    started = bridge(inner, features=features)
    config = OpenpiConfig(
        url=started.endpoint,
        inputs={"observation.state": 2, "observation.environment_state": 6},
        features=features,
        horizon=8,
        action_width=2,
    )
    stats = queued(PushConfig().make(), make(config), serve)
    assert stats.policy_errors == 0
    reference = Pusher()
    reference.policy.reset(Session("s", 0, ""))  # a bridge's first episode
    np.testing.assert_array_equal(stats.actions, pushed(reference))


BAD_OBSERVATIONS: dict[str, tuple[Any, str]] = {
    "no key": ({"prompt": "x"}, "observation/image is missing; found prompt"),
    "another shape": (seen() | {"observation/state": np.zeros(3)}, r"observation.state: found float32\[3\], expected"),
    "a small picture": (
        seen() | {"observation/image": np.zeros((4, 4, 3), np.uint8)},
        r"observation.images.top: found uint8\[4, 4, 3\], expected uint8\[8, 8, 3\]",
    ),
    "floats for a picture": (seen() | {"observation/image": np.zeros((8, 8, 3))}, "found float64"),
    "texts": (seen() | {"observation/state": ["a"] * 7}, "accepted: numbers"),
    "a number for a task": (seen() | {"prompt": 7}, "prompt: found int; accepted: a text"),
    "no map": ([1, 2], "is missing; found list"),
    "what the policy cannot do": (seen(task="fail"), "PolicyError: no such task"),
}


@pytest.mark.parametrize("what", BAD_OBSERVATIONS)
def test_a_bad_observation_is_a_sentence_for_its_robot_alone(what: str, serve: Serve, bridge: Started) -> None:
    observation, says = BAD_OBSERVATIONS[what]
    started = bridge(serve(Counting()))
    good, bad = openpi_client(started), openpi_client(started)
    good.infer(seen())
    with pytest.raises(RuntimeError, match=says) as raised:
        bad.infer(observation)
    assert "Traceback" not in str(raised.value)
    np.testing.assert_array_equal(good.infer(seen())["actions"], expected(seen(), 2))
    openpi_client(started).infer(seen())  # it may come again


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"",
        "a text",
        b"\x91" * 100_000,
        openpi_numpy.packb([[]] * 60_000),
        msgpack.packb({"observation/state": BAD["an object array of openpi's"]}),
        msgpack.packb(
            seen() | {"observation/state": BAD["a pickle of msgpack-numpy's"]}, default=openpi_numpy.pack_array
        ),
        b"\0" * 3_000_000,
    ],
)
def test_garbage_hurts_nobody_else(data: bytes | str, serve: Serve, bridge: Started) -> None:
    started = bridge(serve(Counting()), max_bytes=2_000_000)
    good = openpi_client(started)
    with websockets.sync.client.connect(started.endpoint, compression=None, max_size=None) as stranger:
        stranger.recv()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            stranger.send(data)
            assert isinstance(stranger.recv(timeout=10), str)
            stranger.recv(timeout=10)
    np.testing.assert_array_equal(good.infer(seen())["actions"], expected(seen()))


def test_a_key_is_wanted_where_there_is_one(serve: Serve, bridge: Started, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    node = serve(Counting())
    started = bridge(node, robots_key_file=str(tmp_path / "key"), robots=1)
    for key in (None, "wrong"):
        with pytest.raises(websockets.exceptions.InvalidStatus, match="401"):
            openpi_client(started, key)
    client = openpi_client(started, "s3cret")
    client.infer(seen())
    with pytest.raises(websockets.exceptions.InvalidStatus, match="503"):
        openpi_client(started, "s3cret")
    gr00t = Gr00tRobot(bridge(node, "gr00t", robots_key_file=str(tmp_path / "key")))
    assert gr00t.call("ping") == {"error": "Unauthorized: Invalid API token"}
    assert gr00t.call("ping", api_token="s3cret")["status"] == "ok"


def test_a_stop_ends_the_robots_of_others_too(serve: Serve, bridge: Started) -> None:
    node = serve(Counting())
    client = openpi_client(bridge(node))
    client.infer(seen())
    from tactus.runtime.commands.stop import stop

    stop(node.endpoint, "a hand in the cell", 5)
    with pytest.raises(RuntimeError, match="stopped: a hand in the cell"):
        client.infer(seen())


def test_a_bridge_that_was_killed_is_started_again(serve: Serve, bridge: Started) -> None:
    started = bridge(serve(Counting()))
    openpi_client(started).infer(seen())
    killed = started.pid
    os.kill(killed, signal.SIGKILL)
    until_s = time.monotonic() + 30
    while started.pid == killed and time.monotonic() < until_s:
        time.sleep(0.05)
    np.testing.assert_array_equal(openpi_client(started).infer(seen())["actions"], expected(seen()))


def test_a_node_with_keys_lets_its_own_bridge_in_and_no_stranger(serve: Serve, bridge: Started, tmp_path: Path) -> None:
    (tmp_path / "robots").mkdir()
    own = make_keys(tmp_path, "policy")[1]
    node = serve(Counting(), keys=ServerKeys(read_secret(own, ""), AllowList(tmp_path / "robots")))
    client = openpi_client(bridge(node, key=str(own)))
    np.testing.assert_array_equal(client.infer(seen())["actions"], expected(seen()))


# GR00T


class Gr00tRobot:
    """PolicyClient's socket and messages, by their source; lists where it has tuples."""

    def __init__(self, bridge: Bridge, version: str = "n1.7") -> None:
        self._version = version
        self._socket = zmq.Context.instance().socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self._socket.connect(bridge.endpoint)

    def call(self, endpoint: str, data: Any = None, **keys: Any) -> Any:
        request = {"endpoint": endpoint, **keys} | ({} if data is None else {"data": data})
        return self.send(gr00t_bytes(request, self._version))

    def send(self, data: bytes) -> Any:
        self._socket.send(data)
        return gr00t_message(self._socket.recv(), self._version)


def nested(seed: int = 0) -> dict[str, Any]:
    state = seen(seed)["observation/state"].astype(np.float32)[None, None]
    return {
        "video": {"top": seen(seed)["observation/image"][None, None]},
        "state": {"arm": state[..., :6], "gripper": state[..., 6:]},
        "language": {"annotation.human.task_description": [["pick it up"]]},
    }


@pytest.mark.parametrize("version", ["n1.7", "n1.6"])
def test_gr00ts_client_gets_the_nodes_chunks(version: str, serve: Serve, bridge: Started) -> None:
    policy = Counting()
    started = bridge(serve(policy), "gr00t")
    robots = [Gr00tRobot(started, version) for _ in range(2)]
    assert robots[0].call("ping") == {"status": "ok", "message": "Server is running"}
    config = robots[0].call("get_modality_config")
    assert config["video"].keys == {"delta_indices": [0], "modality_keys": ["top"]}
    assert config["state"].keys["modality_keys"] == ["arm", "gripper"]
    assert config["language"].keys["modality_keys"] == ["annotation.human.task_description"]
    assert config["action"].keys == {"delta_indices": [*range(HORIZON)], "modality_keys": ["arm", "gripper"]}
    for nth in (1, 2):
        for robot in robots:
            action, info = robot.call("get_action", {"observation": nested(), "options": None})
            assert info == {} and action["arm"].shape == (1, HORIZON, 6) and action["gripper"].shape == (1, HORIZON, 1)
            chunk = np.concatenate([action["arm"], action["gripper"]], axis=2)[0]
            np.testing.assert_array_equal(chunk, expected(seen(), nth))
    assert len(policy.seen) == 2
    assert robots[0].call("reset", {"options": None}) == {}
    action, _ = robots[0].call("get_action", {"observation": nested(), "options": None})
    np.testing.assert_array_equal(action["arm"][0], expected(seen(), 1)[:, :6])


def test_a_client_of_n1_5_gets_flat_keys(serve: Serve, bridge: Started) -> None:
    robot = Gr00tRobot(bridge(serve(Counting()), "gr00t", features=FLAT), "n1.5")
    state = seen()["observation/state"][None]
    observation = {"video.top": seen()["observation/image"][None], "state.arm": state[:, :6]}
    observation |= {"state.gripper": state[:, 6:], "annotation.human.task_description": ["pick it up"]}
    action = robot.call("get_action", observation)
    np.testing.assert_array_equal(action["action.arm"], expected(seen())[:, :6])
    np.testing.assert_array_equal(action["action.gripper"], expected(seen())[:, 6:])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xc1", "no msgpack"),
        (msgpack.packb([1]), "expected a request"),
        (msgpack.packb({"endpoint": "kill"}), "endpoint 'kill'; accepted: get_action"),
        (msgpack.packb({"endpoint": "get_action"}), "missing; found NoneType"),
        (
            msgpack.packb({"endpoint": "get_action", "data": {"observation": {"video": 3}}}),
            "video.top is missing; found int",
        ),
        (msgpack.packb({"data": BAD["a pickle of msgpack-numpy's"]}), "would have to be unpickled"),
        (msgpack.packb({"data": BAD["a pickle in a .npy file"]}), "would have to be unpickled"),
    ],
)
def test_what_gr00ts_robots_may_not_say_is_a_sentence(data: bytes, says: str, serve: Serve, bridge: Started) -> None:
    robot = Gr00tRobot(bridge(serve(Counting()), "gr00t"))
    assert says in robot.send(data)["error"]
    robot.call("get_action", {"observation": nested(), "options": None})[0]["arm"]


# serve


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"also": ["openpi"]}, "accepted: openpi:PORT, gr00t:PORT, or KIND:HOST:PORT"),
        ({"also": ["pi0:8000"]}, "found 'pi0:8000'"),
        ({"also": ["openpi:99999"]}, "found 'openpi:99999'"),
        ({"also": ["openpi:0.0.0.0:8000"]}, "nothing protects it"),
        ({"also": ["openpi:8000"], "also_features": {"gr00t": {"a": "task"}}}, "nobody of that kind is answered"),
        ({"also": ["openpi:8000"], "also_features": {"openpi": {"a": 3}}}, "also_features.openpi: a: found 3"),
        ({"also": ["openpi:8000"], "also_actions": {"arm": 6}}, "also_actions: is for --also=gr00t"),
    ],
)
def test_bridges_that_cannot_be(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Bridges(**keys)
    assert says in str(raised.value)


def test_where_a_bridge_listens() -> None:
    assert listening("openpi:8000") == ("openpi", "127.0.0.1", 8000)
    assert listening("gr00t:[::1]:5556") == ("gr00t", "::1", 5556)
    assert reachable("tcp://0.0.0.0:5555") == "tcp://127.0.0.1:5555"
    assert reachable("tcp://10.0.0.3:5555") == "tcp://10.0.0.3:5555"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": {"observation/state": "observation.state"}}, "nothing is observation.images.top"),
        ({"robots_key_file": "/no/such/file"}, "also_key_file: /no/such/file cannot be read"),
        ({"kind": "gr00t", "features": GR00T, "actions": {"arm": 6}}, "6 in all; an action has 7 elements"),
    ],
)
def test_a_bridge_that_cannot_serve_says_why(changes: dict[str, Any], says: str, serve: Serve, bridge: Started) -> None:
    with pytest.raises(SpecError, match=says):
        bridge(serve(Counting()), **changes)


def test_a_taken_port_is_a_sentence(serve: Serve, bridge: Started) -> None:
    node = serve(Counting())
    port = int(bridge(node).endpoint.rpartition(":")[2])
    with pytest.raises(SpecError, match="already in use"):
        bridge(node, port=port)
    with pytest.raises(SpecError, match="already in use"):
        bridge(node, "gr00t", port=port)


def test_serve_also_answers_others_and_ends_with_its_bridges(tmp_path: Path) -> None:
    words = "serve --policy.type=ticker --policy.width=7 --policy.horizon=4 --connect=tcp://127.0.0.1:0"
    features = "--also_features={openpi: {s: observation.state, prompt: task, t: tick}}"
    command = [sys.executable, "-m", "tactus", *words.split(), "--also=[openpi:0,gr00t:0]", features]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert "also answers robots of openpi at ws://127.0.0.1:" in lines[1], lines
        client = WebsocketClientPolicy(lines[1].split()[-1])
        answer = client.infer({"s": np.zeros(7), "prompt": "go", "t": 12})
        np.testing.assert_array_equal(answer["actions"][:, 0], [12, 13, 14, 15])
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert "stopped after 1 chunks" in out
    with pytest.raises(OSError):
        WebsocketClientPolicy(lines[1].split()[-1])
