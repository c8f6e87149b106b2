"""A bridge, in a process of its own: what its robots send is decoded there, and takes no time or memory of the node.

As a command, `python -m tactus.runtime.bridges.bridge_process`: its order is the first line of standard input, where it
listens, or why it cannot, the first line of standard output, and it ends when standard input does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from tactus.hal.config import Config, Count, FilePath, encode, received
from tactus.hal.spec import PolicySpec, SpecError
from tactus.policies.remote.feature_map import FeatureError, FeatureMap, equal_names
from tactus.runtime.bridges.kinds import Kind
from tactus.runtime.child_process import end

log = logging.getLogger("tactus.policy_node")
AGAIN_S = 1.0


class Order(Config):
    """node: the policy node's address, as this machine reaches it. policy: its spec, as a dictionary. key: the node's
    own, where it has one. features, actions: as Bridges has them; empty where equal, or one part."""

    kind: Kind
    host: str
    port: int
    node: str
    policy: dict[str, Any]
    insecure: bool = False
    key: FilePath | None = None
    features: dict[str, Any] = field(default_factory=dict)
    actions: dict[str, Count] = field(default_factory=dict)
    robots_key_file: FilePath | None = None
    max_bytes: Count = 32_000_000
    robots: Count = 64
    log_format: Literal["text", "json"] = "text"


class Bridge:
    """A running bridge; one that ends by itself is started again. Raises SpecError if it cannot serve."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._closed = False
        self._process, self.endpoint = self._start()
        self._order.port = int(self.endpoint.rpartition(":")[2])
        self._watch = threading.Thread(target=self._restart, name=f"bridge {order.kind}", daemon=True)
        self._watch.start()

    def _start(self) -> tuple[subprocess.Popen[str], str]:
        words = [sys.executable, "-m", "tactus.runtime.bridges.bridge_process"]
        try:
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise SpecError(f"also: the process of {self._order.kind} cannot be started: {error.strerror}") from error
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(encode(self._order)) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the status says that it ended
        line = process.stdout.readline()
        process.stdout.close()
        if not line:
            raise SpecError(f"also: the process of {self._order.kind} ended at its start, status {process.wait()}")
        said = json.loads(line)
        if "reason" in said:
            process.wait()
            raise SpecError(f"also: {self._order.kind}: {said['reason']}")
        return process, said["endpoint"]

    def _restart(self) -> None:
        """The watching thread's."""
        while True:
            status = self._process.wait()
            if self._closed:
                return
            log.error("the bridge for robots of %s has ended, status %d; starting it again", self._order.kind, status)
            time.sleep(AGAIN_S)
            if self._closed:
                return
            try:
                self._process, self.endpoint = self._start()
            except SpecError as error:
                log.error("%s", error)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._closed = True
        end(self._process)


def reachable(endpoint: str) -> str:
    """A policy node's address as this machine reaches it, where it listens at all of its addresses."""
    for everywhere, here in (("//0.0.0.0:", "//127.0.0.1:"), ("//*:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        endpoint = endpoint.replace(everywhere, here)
    return endpoint


def server(order: Order) -> Any:
    """What listens. Raises ValueError, RuntimeError, OSError with the reason if it cannot."""
    from tactus.runtime.bridges.node_client import Node
    from tactus.runtime.wire.keys import ClientKeys, read_secret

    spec = PolicySpec.from_dict(order.policy)
    features = FeatureMap(order.features or equal_names(spec.inputs))
    try:
        features.check(spec.inputs, whole=True)
    except FeatureError as error:
        raise ValueError(f"also_features.{order.kind}: {error}") from error
    if order.kind == "openpi" and len(spec.observation_offsets) > 1:
        raise ValueError(
            f"{spec.name} wants observations of ticks {spec.observation_offsets}; openpi's robots send one"
        )
    keys = None
    if order.key is not None:
        own = read_secret(Path(order.key), "curve.key")
        keys = ClientKeys(own, own.public)
    robots_key = None if order.robots_key_file is None else _read_key(Path(order.robots_key_file))
    node = Node(order.node, spec, features, keys, order.insecure)
    if order.kind == "openpi":
        from tactus.runtime.bridges.openpi_server import OpenpiServer

        return OpenpiServer(node, order.host, order.port, robots_key, order.max_bytes, order.robots)
    from tactus.runtime.bridges.gr00t_server import Gr00tServer

    width = spec.action.shape[0]
    actions = order.actions or {"action": width}
    if sum(actions.values()) != width:
        raise ValueError(
            f"also_actions: found {actions}, {sum(actions.values())} in all; an action has {width} elements"
        )
    return Gr00tServer(node, order.host, order.port, robots_key, order.max_bytes, order.robots, actions)


def _read_key(file: Path) -> str:
    try:
        key = file.read_text()[:4096].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"also_key_file: {file} cannot be read: {getattr(error, 'strerror', 'no text')}") from error
    if not key or not key.isascii() or not key.isprintable():
        raise ValueError(f"also_key_file: {file} holds no key: one line of printable ASCII is expected")
    return key


def main() -> int:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the node, which ends this one
    from tactus.runtime.logs import log_to

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        order = received(Order, json.loads(sys.stdin.readline()))
        log_to(sys.stderr, order.log_format, f"{order.kind} bridge: %(message)s")
        listens = server(order)
    except ModuleNotFoundError as error:
        out.write(json.dumps({"reason": f"needs {error.name}: pip install 'tactus[remote]'"}) + "\n")
        return 2
    except (ValueError, RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        out.write(json.dumps({"reason": reason}) + "\n")
        return 2

    def until_input_ends() -> None:
        sys.stdin.read()
        os._exit(0)  # its threads wait for robots, and the node knows that their sessions are over

    threading.Thread(target=until_input_ends, daemon=True).start()
    out.write(json.dumps({"endpoint": listens.endpoint}) + "\n")
    out.close()
    listens.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
