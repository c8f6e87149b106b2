"""Policies that misbehave on purpose, and the small pieces tests share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from tactus.hal.spec import STATE, Chunk, Feature, Observation, PolicySpec
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.policy import Policy, Request, Session

HORIZON = 8


def synthetic(**changes: object) -> SyntheticConfig:
    return SyntheticConfig(**({"width": 3, "steps": 40, "fps": 50.0} | changes))


class FunctionPolicy(Policy):
    """Fits `synthetic()`; answers with whatever `answer(request)` returns or raises."""

    def __init__(
        self, answer: Callable[[Request], np.ndarray], offsets: tuple[int, ...] = (0,), max_batch: int = 1
    ) -> None:
        spec = synthetic().make().spec
        self._spec = PolicySpec("function", {STATE: spec.observations[STATE]}, spec.action, HORIZON, offsets)
        self._answer = answer
        self.max_batch = max_batch
        self.opened: list[Session] = []
        self.ended: list[str] = []
        self.batches: list[list[Request]] = []

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self.opened.append(session)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        self.batches.append(list(requests))
        return [Chunk(request.observation.tick, self._answer(request)) for request in requests]

    def end(self, session: str) -> None:
        self.ended.append(session)


def count(request: Request) -> np.ndarray:
    """The action for tick t is t in every dimension."""
    ticks = np.arange(request.observation.tick, request.observation.tick + HORIZON, dtype=np.float32)
    return np.repeat(ticks[:, None], 3, axis=1)


def slow_count(seconds: float) -> Callable[[Request], np.ndarray]:
    def answer(request: Request) -> np.ndarray:
        time.sleep(seconds)
        return count(request)

    return answer


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until it is so; a failed test if it does not come about."""
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s, "it did not come about"
        time.sleep(0.02)


def state_at(tick: int) -> Observation:
    return Observation({STATE: np.full(3, tick, np.float32)}, {STATE: tick}, tick)


def vector(width: int, **changes: object) -> Feature:
    return Feature((width,), "float32", **changes)
