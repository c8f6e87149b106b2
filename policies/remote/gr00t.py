"""A policy that an NVIDIA Isaac-GR00T server answers for, over ZeroMQ.

A REQ socket that has asked and was not answered can do nothing more: it is thrown away, with the request, and a new one
is made, so that the answer to an old request is never taken for the answer to a new one.

Source: gr00t/policy/server_client.py: PolicyServer, PolicyClient. Of its endpoints ping, get_modality_config and
get_action are used; kill, which anybody may ask of it, never.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import zmq

from tactus.hal.spec import Observation, PolicySpec
from tactus.policies.policy import PolicyError
from tactus.policies.remote.array_messages import MessageError, packer, unpack
from tactus.policies.remote.config import Gr00tConfig
from tactus.policies.remote.feature_map import Leaf
from tactus.policies.remote.gr00t_messages import FORMS, actions_of, batched, call, instruction, observed
from tactus.policies.remote.policy import RemotePolicy, printable

SPARE_BYTES = 1_000_000
"""Of an answer, beside its actions."""
MAX_DETAILS = 1000


class Gr00tPolicy(RemotePolicy):
    """With several observation offsets, pictures of all of them are sent, and vectors of the newest (state_history)."""

    def __init__(self, config: Gr00tConfig) -> None:
        super().__init__(config)
        self._settings = config
        self._width = sum(config.actions.values())
        self._max_bytes = SPARE_BYTES + config.horizon * self._width * 32
        self._api_key = config.api_key()
        self._socket: zmq.Socket[bytes] | None = None
        self._packer = packer(FORMS[config.version])
        self._offsets = tuple(config.observation_offsets)
        self._inputs = config.features_of_inputs
        self._modalities: Any = None
        self._first_connection()
        details = {"modality_config": printable(self._modalities)[:MAX_DETAILS]}
        self._spec = config.spec(f"gr00t {config.url}", self._width, self._offsets, details)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def _connect(self) -> None:
        """A server that is there says what its model takes; it is asked once per socket."""
        if self._socket is not None:
            return
        request: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        request.setsockopt(zmq.LINGER, 0)
        request.setsockopt(zmq.MAXMSGSIZE, self._max_bytes)
        self._socket = request
        try:
            request.connect(self._config.url)
        except zmq.ZMQError as error:
            self._drop()
            raise PolicyError(f"cannot connect to {self._config.url}: {error}") from error
        modalities = self._call("get_modality_config", None, self._config.connect_timeout_s)
        if self._modalities is not None and modalities != self._modalities:
            self._drop()
            raise PolicyError(f"{self._config.url} now serves another model; start tactus serve anew for it")
        self._modalities = modalities

    def _ask(self, observation: Observation) -> tuple[np.ndarray, float]:
        version = self._settings.version
        theirs = self._theirs(observation, self._shaped)
        answer = self._call("get_action", observed(version, theirs), self._config.timeout_s)
        try:
            return actions_of(answer, self._settings.actions), 0.0
        except ValueError as error:
            raise PolicyError(f"{self._config.url} answered {printable(error)}") from error

    def _instruction(self, task: str) -> Any:
        return instruction(self._settings.version, task)

    def _shaped(self, leaf: Leaf, array: np.ndarray) -> np.ndarray:
        is_image = self._inputs[leaf.name].is_image
        if len(self._offsets) == 1:
            array = array[None]
        elif not (is_image or self._settings.state_history):
            array = array[-1:]
        if not is_image:
            array = np.asarray(array, np.float64 if self._settings.version == "n1.5" else np.float32)
        return batched(self._settings.version, array)

    def _call(self, endpoint: str, data: Mapping[str, Any] | None, timeout_s: float) -> Any:
        """What the server answers. Raises PolicyError; the socket is gone then."""
        assert self._socket is not None
        url = self._config.url
        try:
            self._socket.setsockopt(zmq.SNDTIMEO, int(timeout_s * 1000))
            give_up_s = time.monotonic() + timeout_s
            self._socket.send(self._packer.pack(call(endpoint, data, self._api_key)))
            if not self._socket.poll(max(0, int((give_up_s - time.monotonic()) * 1000))):
                raise PolicyError(
                    f"{url} has not answered {endpoint} for {timeout_s:g} s: is a GR00T server running there?"
                )
            answer = unpack(self._socket.recv())
        except PolicyError:
            self._drop()
            raise
        except zmq.ZMQError as error:
            self._drop()
            raise PolicyError(f"{url} takes nothing: {error}") from error
        except MessageError as error:
            self._drop()
            raise PolicyError(f"{url} sent what is no message of GR00T's: {error}") from error
        if isinstance(answer, dict) and "error" in answer:
            self._drop()
            raise PolicyError(f"{url} reports: {printable(answer['error'])}")
        return answer

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
