"""Policies that are shadows of the ticker, for tests: one raises, one takes its time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tactus.hal.spec import Chunk
from tactus.policies.policy import Request
from tactus.policies.scripted.config import TickerConfig
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.policies.scripted.ticker import build as ticker


class Raising(TickerConfig):
    """A ticker that has no answer."""

    entry_point = "shadow_policies:raising"


class Busy(TickerConfig):
    """A ticker that keeps a core busy for infer_ms."""

    entry_point = "shadow_policies:busy"


class _Raising(TickerPolicy):
    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        raise ZeroDivisionError("a weight is zero")


class _Busy(TickerPolicy):
    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        until_s = time.thread_time() + self._infer_ms / 1000
        while time.thread_time() < until_s:
            pass
        return [self._chunk(request, None) for request in requests]


def raising(config: Raising) -> TickerPolicy:
    made = ticker(config)
    return _Raising(made.spec.inputs, made.spec.action, config.horizon)


def busy(config: Busy) -> TickerPolicy:
    made = ticker(config)
    return _Busy(made.spec.inputs, made.spec.action, config.horizon, config.infer_ms)
