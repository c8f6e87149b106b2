"""A policy that an openpi policy server answers for, over a websocket.

    server → metadata                                       as soon as somebody is connected
    client → observation                                    their keys, arrays in openpi's form
    server → {actions [H, A], policy_timing, server_timing …}
    server → text, and closes                               it failed; the text is its traceback

Source: openpi_client.websocket_client_policy, openpi.serving.websocket_policy_server. Their client waits for ever and
connects once; this one neither.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from tactus.hal.spec import Observation, PolicySpec
from tactus.policies.policy import PolicyError
from tactus.policies.remote.address import is_local
from tactus.policies.remote.array_messages import OPENPI, MessageError, packer, unpack
from tactus.policies.remote.config import OpenpiConfig
from tactus.policies.remote.policy import RemotePolicy, printable

SPARE_BYTES = 1_000_000
"""Of an answer, beside its actions: states, timings, metadata."""
MAX_DETAILS = 1000


class OpenpiPolicy(RemotePolicy):
    """The connection is made anew after every failure, and for a server that is back; it has to be the same one, as far
    as its metadata says. Whoever calls does so from one thread; the library has one that reads."""

    def __init__(self, config: OpenpiConfig) -> None:
        super().__init__(config)
        self._width = config.server_width or config.action_width
        self._kept = config.action_width
        self._max_bytes = SPARE_BYTES + config.horizon * self._width * 32
        self._api_key = config.api_key()
        self._connection: ClientConnection | None = None
        self._metadata: Any = None
        self._packer = packer(OPENPI)
        self._first_connection()
        name = f"openpi {config.url}"
        self._spec = config.spec(name, config.action_width, (0,), {"metadata": printable(self._metadata)[:MAX_DETAILS]})

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def _connect(self) -> None:
        if self._connection is not None:
            if self._connection.state is State.OPEN:
                return
            self._drop()
        url, timeout_s = self._config.url, self._config.connect_timeout_s
        headers = None if self._api_key is None else {"Authorization": f"Api-Key {self._api_key}"}
        try:
            self._connection = connect(  # entered, as websockets wants it, and left by _drop
                url,
                compression=None,
                max_size=self._max_bytes,
                additional_headers=headers,
                open_timeout=timeout_s,
                ping_interval=None,  # a server that thinks does not answer pings; timeout_s sees to one that is gone
                proxy=None if is_local(url) else True,
            ).__enter__()
            limit = struct.pack("ll", int(self._config.timeout_s), 0 if self._config.timeout_s >= 1 else 500_000)
            self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            metadata = self._received(timeout_s, "its metadata")
        except InvalidStatus as error:
            status = error.response.status_code
            raise PolicyError(f"{url} refused with HTTP {status}: is it openpi's, and the key right?") from error
        except (OSError, WebSocketException, ValueError) as error:
            self._drop()
            raise PolicyError(f"no openpi server answers at {url}: {_why(error)}") from error
        except PolicyError:
            self._drop()
            raise
        if self._metadata is not None and metadata != self._metadata:
            self._drop()
            raise PolicyError(f"{url} now serves another policy, by its metadata; start tactus serve anew for it")
        self._metadata = metadata

    def _ask(self, observation: Observation) -> tuple[np.ndarray, float]:
        connection = self._connection
        assert connection is not None
        message = self._theirs(observation, lambda leaf, array: array)
        try:
            connection.send(self._packer.pack(message))
            answer = self._received(self._config.timeout_s, "a chunk")
            if not isinstance(answer, dict) or not isinstance(answer.get("actions"), np.ndarray | list):
                raise PolicyError(f"{self._config.url} answered without actions: {printable(_outline(answer))}")
            actions = _numbers(answer["actions"], self._config.url)
            if actions.ndim == 2 and actions.shape[1] == self._width:
                actions = actions[:, : self._kept]
        except (OSError, WebSocketException) as error:
            self._drop()
            raise PolicyError(f"{self._config.url} is gone: {_why(error)}") from error
        except PolicyError:
            self._drop()
            raise
        return actions, _server_ms(answer)

    def _received(self, timeout_s: float, what: str) -> Any:
        """The next message. Raises PolicyError for none in time, and one that is none."""
        assert self._connection is not None
        url = self._config.url
        try:
            data = self._connection.recv(timeout=timeout_s)
        except TimeoutError as error:
            raise PolicyError(
                f"{url} has not sent {what} for {timeout_s:g} s: it hangs, or timeout_s is short"
            ) from error
        if isinstance(data, str):
            raise PolicyError(f"{url} reports: {printable(data)}")
        try:
            return unpack(data)
        except MessageError as error:
            raise PolicyError(f"{url} sent what is no message of openpi's: {error}") from error

    def _drop(self) -> None:
        """Let go of the connection at once: what it may still send is for nobody."""
        if self._connection is not None:
            self._connection.close_socket()
            self._connection = None


def _numbers(found: np.ndarray | list[Any], url: str) -> np.ndarray:
    try:
        return np.asarray(found)
    except ValueError as error:
        raise PolicyError(f"{url} answered actions that are no array: {error!s:.80}") from error


def _outline(answer: object) -> object:
    return f"keys {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else type(answer).__name__


def _server_ms(answer: Mapping[str, Any]) -> float:
    """What the server says that it took; 0 if it does not."""
    found = answer.get("policy_timing") or answer.get("server_timing")
    spent_ms = found.get("infer_ms") if isinstance(found, Mapping) else None
    return float(spent_ms) if isinstance(spent_ms, int | float) and 0 <= spent_ms < 1e9 else 0.0


def _why(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text)
