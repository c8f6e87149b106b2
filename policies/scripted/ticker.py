"""A policy whose actions say which tick they are for: for measuring the runtime, and for tests that count."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tactus.hal.spec import IMAGES, STATE, Chunk, Feature, Mode, PolicySpec, SpecError, image
from tactus.policies.policy import Policy, PolicyConfig, Request
from tactus.policies.scripted.policy import ScriptedPolicy


@PolicyConfig.register_subclass("ticker")
@dataclass
class TickerConfig(PolicyConfig):
    """Fits robot.type=synthetic of the same width, cameras and image_size."""

    width: int = 7
    """number of action dimensions; the last one is binary"""
    horizon: int = 50
    """actions per chunk"""
    cameras: int = 0
    """how many camera images it asks for"""
    image_size: tuple[int, int] = (240, 320)
    """height and width of each"""
    infer_ms: float = 0.0
    """how long it pretends to think, in ms"""

    def make(self) -> Policy:
        if self.width < 1 or self.horizon < 1:
            raise SpecError(f"policy.width and policy.horizon must be positive; found {self.width}, {self.horizon}")
        names = tuple(f"joint_{i}" for i in range(self.width))
        modes: tuple[Mode, ...] = ("delta",) * (self.width - 1) + ("binary",)
        inputs = {STATE: Feature((self.width,), "float32", names=names)}
        inputs |= {f"{IMAGES}camera_{i}": image(*self.image_size) for i in range(self.cameras)}
        action = Feature((self.width,), "float32", names=names, mode=modes)
        return TickerPolicy(inputs, action, self.horizon, self.infer_ms)


class TickerPolicy(ScriptedPolicy[None]):
    """actions[i] is start + i in every dimension. Takes any inputs, looks at none."""

    max_batch = 8

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
