"""Isaac-GR00T's policy server, in front of our policy node: what gr00t.policy.server_client.PolicyClient talks to.

Their server is one REP socket, which takes turns and cannot tell its robots apart; this is a ROUTER, and each REQ
socket that asks has a thread and a session at the node. A robot that gave up on an answer comes back with another
socket: its old session is dropped when nothing has been heard of it for IDLE_S, or others need the room.

An answer is laid out as the request was: N1.5's flat keys, or N1.6's and N1.7's nested ones, with arrays in the form
that the robot writes. `kill` is refused: nobody stops a node that others use.
"""

from __future__ import annotations

import hmac
import logging
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq

from tactus.hal.error_report import describe
from tactus.hal.spec import PolicySpec
from tactus.policies.remote.array_messages import ND, NPY, Form, MessageError, pack, unpack
from tactus.policies.remote.feature_map import FeatureError, FeatureMap
from tactus.runtime.bridges.node_client import Node, NodeClient, NotAnswered
from tactus.runtime.wire.address import needs_ipv6
from tactus.runtime.wire.link import LinkError

log = logging.getLogger("tactus.bridge")
IDLE_S, LOOK_MS = 600.0, 1000


@dataclass
class _Robot:
    """asked: requests for its thread; None ends it. busy: whether its thread has one. form: how it writes arrays."""

    identity: bytes
    asked: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    busy: bool = False
    heard_s: float = 0.0
    form: Form = ND
    client: NodeClient | None = None


class Gr00tServer:
    """actions: widths of the parts of an action, in order. key: what robots have to show, as api_token.

    Raises OSError if it cannot listen there.
    """

    def __init__(
        self, node: Node, host: str, port: int, key: str | None, max_bytes: int, most: int, actions: Mapping[str, int]
    ) -> None:
        self._node, self._key, self._most, self._actions = node, key, most, actions
        self._robots: dict[bytes, _Robot] = {}
        context = zmq.Context.instance()
        self._router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        self._router.setsockopt(zmq.RCVHWM, 4)
        address = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        self._router.setsockopt(zmq.IPV6, needs_ipv6(address))
        try:
            self._router.bind(address)
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"cannot listen at {address}: {error.strerror}") from error
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._answers: zmq.Socket[bytes] = context.socket(zmq.PULL)
        self._inside = f"inproc://gr00t-{uuid.uuid4().hex}"
        self._answers.bind(self._inside)

    def run(self) -> None:
        """Serve until the process ends: this thread has the socket, the robots' threads have their links."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._answers, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(LOOK_MS))
            if self._answers in ready:
                identity, answer = self._answers.recv_multipart()
                if identity in self._robots:
                    self._robots[identity].busy = False
                self._router.send_multipart([identity, b"", answer])
            if self._router in ready:
                self._take(self._router.recv_multipart())
            self._drop_idle()

    def _take(self, frames: list[bytes]) -> None:
        if len(frames) != 3 or frames[1]:  # no REQ socket: nobody waits for an answer
            return
        robot = self._robots.get(frames[0])
        if robot is None:
            if len(self._robots) >= self._most and not self._make_room():
                error = f"{self._most} robots are being answered"
                self._router.send_multipart([frames[0], b"", pack({"error": error}, ND)])
                return
            robot = self._robots[frames[0]] = _Robot(frames[0])
            threading.Thread(target=self._serve, args=(robot,), daemon=True).start()
        if not robot.busy:
            robot.busy, robot.heard_s = True, time.monotonic()
            robot.asked.put(frames[2])

    def _make_room(self) -> bool:
        idle = [robot for robot in self._robots.values() if not robot.busy]
        if idle:
            self._drop(min(idle, key=lambda robot: robot.heard_s))
        return bool(idle)

    def _drop_idle(self) -> None:
        now_s = time.monotonic()
        for robot in [*self._robots.values()]:
            if not robot.busy and now_s - robot.heard_s > IDLE_S:
                self._drop(robot)

    def _drop(self, robot: _Robot) -> None:
        del self._robots[robot.identity]
        robot.asked.put(None)

    def _serve(self, robot: _Robot) -> None:
        """A robot's thread."""
        out: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        out.connect(self._inside)
        while (data := robot.asked.get()) is not None:
            try:
                answer = self._answer(robot, data)
            except (MessageError, FeatureError, NotAnswered, LinkError) as error:
                answer = _refused(str(error))
                if isinstance(error, LinkError) and robot.client is not None:
                    robot.client.close()
                    robot.client = None
            except Exception as error:  # whatever a robot can do to this code, the others are still served
                log.exception("a GR00T robot could not be answered")
                answer = _refused(describe(error))
            out.send_multipart([robot.identity, pack(answer, robot.form)])
        if robot.client is not None:
            robot.client.close()
        out.close()

    def _answer(self, robot: _Robot, data: bytes) -> Any:
        forms: set[str] = set()
        request = unpack(data, forms)
        if forms:
            robot.form = NPY if NPY in forms else ND
        if not isinstance(request, dict):
            raise MessageError(f"found {type(request).__name__}; expected a request, with its endpoint")
        token = request.get("api_token")
        if self._key is not None and not (
            isinstance(token, str) and hmac.compare_digest(token.encode(), self._key.encode())
        ):
            return _refused("Unauthorized: Invalid API token")
        endpoint = request.get("endpoint", "get_action")
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return modality_config(self._node.spec, self._node.features, self._actions)
        if endpoint == "reset":
            if robot.client is not None:
                robot.client.end_episode()
            return {}
        if endpoint != "get_action":
            raise MessageError(f"endpoint {endpoint!r:.40}; accepted: get_action, get_modality_config, ping, reset")
        given = request.get("data")
        observation = given.get("observation") if isinstance(given, dict) else None
        nested = isinstance(observation, dict)
        if robot.client is None:
            robot.client = NodeClient(self._node, "gr00t client")
        chunk = robot.client.ask(observation if nested else given).actions
        parts = split(chunk, self._actions)
        if nested:
            return [{name: part[None] for name, part in parts.items()}, {}]
        return {f"action.{name}": part for name, part in parts.items()}


def split(chunk: np.ndarray, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The parts of a chunk [H, A], float32."""
    ends = np.cumsum([*widths.values()])
    return {
        name: np.ascontiguousarray(chunk[:, end - widths[name] : end], np.float32)
        for name, end in zip(widths, ends, strict=True)
    }


def modality_config(spec: PolicySpec, features: FeatureMap, actions: Mapping[str, int]) -> dict[str, Any]:
    """What each modality is made of; under the markers and keys that N1.6 and N1.7 know."""
    keys: dict[str, list[str]] = {}
    for leaf in features.leaves:
        modality, _, key = ".".join(leaf.path).partition(".")
        keys.setdefault(modality, []).append(key or modality)
    found = {modality: (names, [*spec.observation_offsets]) for modality, names in keys.items()}
    found["action"] = ([*actions], [*range(spec.horizon)])
    both = {"__ModalityConfig__": True, "__ModalityConfig_class__": True}
    configs = {m: {"delta_indices": offsets, "modality_keys": names} for m, (names, offsets) in found.items()}
    return {modality: {**both, "as_json": config, "as_dict": config} for modality, config in configs.items()}


def _refused(reason: str) -> dict[str, str]:
    log.warning("a GR00T robot was not answered: %s", reason)
    return {"error": reason}
