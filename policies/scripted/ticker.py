"""A policy whose actions say which tick they are for: for measuring the runtime, and for tests that count."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from tactus.hal.spec import IMAGES, STATE, Chunk, Feature, Mode, PolicySpec, image
from tactus.policies.policy import Request
from tactus.policies.scripted.config import TickerConfig
from tactus.policies.scripted.policy import ScriptedPolicy


def build(config: TickerConfig) -> TickerPolicy:
    """The policy of a config."""
    names = tuple(f"joint_{i}" for i in range(config.width))
    modes: tuple[Mode, ...] = ("delta",) * (config.width - 1) + ("binary",)
    inputs = {STATE: Feature((config.width,), "float32", names=names)}
    inputs |= {f"{IMAGES}camera_{i}": image(*config.image_size) for i in range(config.cameras)}
    action = Feature((config.width,), "float32", names=names, mode=modes)
    return TickerPolicy(inputs, action, config.horizon, config.infer_ms)


class TickerPolicy(ScriptedPolicy[None]):
    """actions[i] is start + i in every dimension. Takes any inputs, looks at none."""

    max_batch = 8
    remembers = False

    def __init__(self, inputs: Mapping[str, Feature], action: Feature, horizon: int, infer_ms: float = 0.0) -> None:
        super().__init__(PolicySpec("ticker", inputs, action, horizon), lambda: None)
        self._infer_ms = infer_ms
        self._counts = np.repeat(np.arange(horizon, dtype=action.dtype)[:, None], action.shape[0], axis=1)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        if self._infer_ms:
            time.sleep(self._infer_ms / 1000)
        return super().infer(requests)

    def _chunk(self, request: Request, memory: None) -> Chunk:
        return Chunk(request.observation.tick, self._counts + request.observation.tick)
