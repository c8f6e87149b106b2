"""The base of policies that another system's server answers for: what is sent, what is believed, when to try again.

    infer   | not connected, and not time yet: PolicyError | connect | send | wait, at most timeout_s | check |

A server that died, hangs or sends what is no answer is a PolicyError, the robot holds, and its next request tries
again: at once the first time, and then no more often than the pause between two attempts, which doubles.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tactus.hal.spec import Chunk, Observation, PolicySpec, SpecError
from tactus.policies.policy import Policy, PolicyError, Request, Session
from tactus.policies.remote.config import RemoteConfig
from tactus.policies.remote.feature_map import TASK, TICK, FeatureMap, Leaf
from tactus.policies.remote.pictures import resize_with_pad, rotate_180

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
MAX_TEXT = 300


class Attempts:
    """When to connect again. clock: monotonic, in s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause_s, self._next_s = 0.0, 0.0

    @property
    def wait_s(self) -> float:
        """Until the next attempt may be made."""
        return max(0.0, self._next_s - self._clock())

    def failed(self) -> None:
        """The next one has to wait, twice as long as the last."""
        self._next_s = self._clock() + self._pause_s
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)

    def succeeded(self) -> None:
        """A server has answered."""
        self._pause_s = self._next_s = 0.0


class RemotePolicy(Policy):
    """It keeps nothing of a session: what its server keeps, and where that draws noise from, nobody here knows."""

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config
        self._map = FeatureMap(config.features)
        self._attempts = Attempts()
        self._lost = ""

    @property
    @abstractmethod
    def spec(self) -> PolicySpec: ...

    @abstractmethod
    def _connect(self) -> None:
        """Be connected, within connect_timeout_s. Raises PolicyError; then the connection is let go of."""

    @abstractmethod
    def _ask(self, observation: Observation) -> tuple[np.ndarray, float]:
        """The server's actions [horizon, width], and what it says that they took it, in ms. Raises PolicyError."""

    def reset(self, session: Session) -> None:
        pass

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        return [self._chunk(request.observation) for request in requests]

    def _chunk(self, observation: Observation) -> Chunk:
        if self._attempts.wait_s:
            raise PolicyError(self._lost)
        began_s = time.monotonic()
        try:
            self._connect()
            actions, server_ms = self._ask(observation)
            actions = self._fit(actions)
        except PolicyError as error:
            self._lost = str(error)
            self._attempts.failed()
            raise
        self._attempts.succeeded()
        spent_ms = (time.monotonic() - began_s) * 1000
        server_ms = min(server_ms, spent_ms)
        return Chunk(observation.tick, actions, {"infer": server_ms, "remote": spent_ms - server_ms})

    def _fit(self, actions: np.ndarray) -> np.ndarray:
        """The chunk, as the spec has it. Raises PolicyError for any other."""
        spec = self.spec
        fitting = actions.ndim == 2 and len(actions) == spec.horizon and actions.dtype.kind in "fiu"
        if not fitting or actions.shape[1] != spec.action.shape[0]:
            raise PolicyError(
                f"{self._config.url} answered {actions.dtype}{list(actions.shape)}, expected "
                f"[{spec.horizon}, {spec.action.shape[0]}]: policy.horizon and the actions' widths must be the server's"
            )
        if not np.isfinite(actions).all():
            raise PolicyError(f"{self._config.url} answered a chunk that is not finite")
        return np.ascontiguousarray(actions, spec.action.dtype)

    def _first_connection(self) -> None:
        """Wait for the server, for connect_timeout_s. Raises SpecError."""
        give_up_s = time.monotonic() + self._config.connect_timeout_s
        while True:
            try:
                self._connect()
                break
            except PolicyError as error:
                if time.monotonic() > give_up_s:
                    raise SpecError(f"policy.url: {error}") from error
                time.sleep(FIRST_PAUSE_S)

    def _theirs(self, observation: Observation, shaped: Callable[[Leaf, np.ndarray], Any]) -> dict[str, Any]:
        """The server's observation. shaped: an array as it stands in it."""

        def value(leaf: Leaf) -> Any:
            if leaf.name == TASK:
                return self._instruction(observation.task)
            if leaf.name == TICK:
                return observation.tick
            array = observation.arrays[leaf.name]
            if self.spec.inputs[leaf.name].is_image:
                array = self._picture(array)
            if leaf.part is not None:
                array = array[..., leaf.part[0] : leaf.part[1]]
            return shaped(leaf, np.moveaxis(array, -1, -3) if leaf.channels_first else array)

        return self._map.theirs(value)

    def _instruction(self, task: str) -> Any:
        """The instruction, as it stands in their observation."""
        return task

    def _picture(self, array: np.ndarray) -> np.ndarray:
        if self._config.rotate_180:
            array = np.ascontiguousarray(rotate_180(array))
        if self._config.resize_with_pad is not None:
            array = resize_with_pad(array, *self._config.resize_with_pad)
        return array


def printable(text: object) -> str:
    """What a server says, in one line fit for a person's terminal; of a traceback the last line."""
    lines = [line.strip() for line in str(text)[-20_000:].splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in last)[:MAX_TEXT]
