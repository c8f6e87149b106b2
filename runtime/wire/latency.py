"""Latency models: after how many ticks a reply becomes visible. Seeded, so a run can be repeated.

--latency=fixed:2                          two ticks
--latency=fixed:100ms                      100 ms, rounded up to ticks of the robot's rate
--latency=measured                         the policy's own wall-clock inference time, in ticks
--latency=lognormal:3,sigma=0.4            median 3 ticks, spread of the logarithm 0.4
--latency=trace:FILE                       one latency in ms per line ("drop" for a lost reply), repeated
…,drop=0.05,reorder=0.02                   5 % of the replies lost, 2 % overtaken by the next one
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tactus.hal.config import expanded
from tactus.hal.json_file import read_text

KINDS = ("fixed:TICKS", "measured", "lognormal:MEDIAN_TICKS[,sigma=S]", "trace:FILE")


class LatencyError(ValueError):
    """A latency text that cannot be read."""


@dataclass(frozen=True)
class Delivery:
    """ticks: delay of a reply. dropped: it is never seen. overtaken: it is seen just after the next one."""

    ticks: int
    dropped: bool = False
    overtaken: bool = False


@dataclass(frozen=True)
class LatencyModel:
    """value: ticks, or ms if `milliseconds`. drop, reorder: probabilities per reply. trace_ms: nan is a drop."""

    kind: Literal["fixed", "measured", "lognormal", "trace"]
    value: float = 0.0
    milliseconds: bool = False
    sigma: float = 0.5
    drop: float = 0.0
    reorder: float = 0.0
    trace_ms: tuple[float, ...] = ()

    @property
    def is_none(self) -> bool:
        """Whether it delays and loses nothing by itself."""
        real = self.kind == "measured" or (self.kind == "fixed" and self.value == 0)
        return real and not self.drop and not self.reorder

    @property
    def needs_reply(self) -> bool:
        """Whether the delay is known only once the reply is there."""
        return self.kind == "measured"

    @classmethod
    def parse(cls, text: str) -> LatencyModel:
        """Read the texts of this module's docstring; raises LatencyError naming what is accepted."""
        head, *options = [part.strip() for part in text.split(",")]
        kind, _, value = head.partition(":")
        if kind not in ("fixed", "measured", "lognormal", "trace"):
            raise _error(text, f"unknown kind {kind!r}")
        if (kind == "measured") == bool(value):
            raise _error(text, "measured takes no value" if value else f"{kind} needs a value")
        fields: dict[str, Any] = {}
        accepted = ("drop", "reorder", "sigma") if kind == "lognormal" else ("drop", "reorder")
        for option in options:
            key, _, number = option.partition("=")
            if key not in accepted:
                raise _error(text, f"unknown option {key!r}; {kind} accepts {', '.join(accepted)}")
            fields[key] = _number(text, number)
            if fields[key] < 0 or (key != "sigma" and fields[key] >= 1):
                raise _error(text, f"{key}={number} is out of range")
        if kind == "trace":
            return cls(kind="trace", trace_ms=_read_trace(text, value), **fields)
        if kind == "measured":
            return cls(kind="measured", **fields)
        milliseconds = value.endswith("ms")
        amount = _number(text, value.removesuffix("ms"))
        if amount < 0 or (kind == "lognormal" and amount == 0):
            raise _error(text, f"a latency of {value} is out of range")
        return cls(kind="fixed" if kind == "fixed" else "lognormal", value=amount, milliseconds=milliseconds, **fields)

    def sampler(self, fps: float, seed: int, episode: int) -> LatencySampler:
        """The delays of one episode, the same whichever episodes ran before it."""
        return LatencySampler(self, fps, np.random.default_rng([seed, episode]))


class LatencySampler:
    """Delays of one episode's replies, in the order of their requests."""

    def __init__(self, model: LatencyModel, fps: float, rng: np.random.Generator) -> None:
        self._model = model
        self._fps = fps
        self._rng = rng
        self._next = int(rng.integers(len(model.trace_ms))) if model.trace_ms else 0

    def draw(self, inference_ms: float = 0.0) -> Delivery:
        """The next reply's fate. inference_ms: its wall inference time, used by `measured`."""
        model = self._model
        # Always the same number of draws a reply, so that one option does not shift another's numbers.
        normal, lost, late = self._rng.standard_normal(), self._rng.random(), self._rng.random()
        dropped = bool(lost < model.drop)
        if model.kind == "measured":
            ticks = inference_ms / 1000 * self._fps
        elif model.kind == "trace":
            latency_ms = model.trace_ms[self._next % len(model.trace_ms)]
            self._next += 1
            dropped = dropped or math.isnan(latency_ms)
            ticks = 0.0 if math.isnan(latency_ms) else latency_ms / 1000 * self._fps
        else:
            ticks = model.value / 1000 * self._fps if model.milliseconds else model.value
            if model.kind == "lognormal":
                ticks *= math.exp(model.sigma * normal)
        # A latency that equals a whole number of ticks up to rounding is that number, not one more.
        return Delivery(math.ceil(ticks - 1e-9), dropped, not dropped and bool(late < model.reorder))


def _error(text: str, reason: str) -> LatencyError:
    return LatencyError(f"latency {text!r}: {reason}; accepted: {', '.join(KINDS)}, each with [,drop=P][,reorder=P]")


def _number(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _error(text, f"{number!r:.40} is not a number")
    return value


def append_trace(file: Path, latencies_ms: Iterable[float], about: str = "") -> None:
    """Add latencies in ms to a trace that `trace:FILE` replays; nan is a reply that never came. about: a comment."""
    words = ["drop" if math.isnan(latency_ms) else f"{latency_ms:.3f}" for latency_ms in latencies_ms]
    with file.open("a") as stream:
        stream.write("".join(f"{word}\n" for word in ([f"# {about}"] if about else []) + words))


def _read_trace(text: str, file: str) -> tuple[float, ...]:
    try:
        lines = read_text(expanded(file)).split("\n")
    except ValueError as error:
        raise _error(text, f"cannot read {file}: {error}") from error
    words = [word for line in lines if (word := line.partition("#")[0].strip())]
    values = tuple(math.nan if word == "drop" else _number(text, word) for word in words)
    if not values or any(value < 0 for value in values):
        raise _error(text, f"{file} must have at least one latency, none negative")
    return values
