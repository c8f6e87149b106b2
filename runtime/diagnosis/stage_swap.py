"""Stage swap: what a stage's difference matters. B's array is put into A's run: how far do the actions move?

A   raw ─ sent ─ preprocess ─ image ─ noise ─ layers ─ chunk      the policy, run again on A's observations
                        ▲
B   …          preprocess/4…  put in its place, the rest is A's   → how far the actions move
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy
from tactus.policies.tracing.hooks import Injection
from tactus.policies.tracing.trace_file import Trace
from tactus.runtime.diagnosis.sources import Seen
from tactus.runtime.diagnosis.tracing import trace_recorded


class Swap(NamedTuple):
    """How far the actions move when B's `stage` is put into A. mean, largest: float64[A], of |moved| over samples and
    steps of the chunk, in `unit`s of `names`' dimensions. problem: why it could not be put in; then the rest is empty.
    """

    stage: str
    mean: np.ndarray
    largest: np.ndarray
    names: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    problem: str = ""


def swap_stages(a: Trace, b: Trace, policy: Policy, stages: Sequence[str], seed: int, count: int = 4) -> list[Swap]:
    """One row per stage. stages: names that both have. count: how many samples, at most, are run again.

    Raises SpecError if A does not say what it observed, in stages raw/… or sent/….
    """
    pairs = list(zip(a.samples, b.samples, strict=False))[:count]
    seen = [_observed(sample.stages, sample.about) for sample, _ in pairs]
    alone = _chunks(policy, seen, seed, [_nothing()] * len(seen))
    action = policy.spec.action
    unit = (action.unit,) if isinstance(action.unit, str) else tuple(action.unit)
    swaps = []
    for name in stages:
        put = [Injection(name, other.stages[name].array) for _, other in pairs]
        try:
            moved = np.abs(_chunks(policy, seen, seed, put) - alone)
        except (ValueError, RuntimeError, SpecError) as error:
            swaps.append(Swap(name, np.zeros(0), np.zeros(0), problem=f"cannot be put in: {error}"))
            continue
        if not all(each.done for each in put):
            swaps.append(Swap(name, np.zeros(0), np.zeros(0), problem="this policy's run has no such stage"))
            continue
        swaps.append(Swap(name, moved.mean((0, 1)), moved.max((0, 1)), action.names, unit))
    return swaps


def _nothing() -> Injection:
    return Injection("", np.zeros(0))


def _chunks(policy: Policy, seen: Sequence[Seen], seed: int, put: Sequence[Injection]) -> np.ndarray:
    """float64[samples, H, A]."""
    chunks = []
    for index, (each, tap) in enumerate(zip(seen, put, strict=True)):
        [chunk] = trace_recorded(tap, policy, [each], seed + index, "all")
        chunks.append(chunk.actions.astype(np.float64))
    return np.stack(chunks)


def _observed(stages: dict, about: dict) -> Seen:
    for part in ("raw/", "sent/"):
        arrays = {name.removeprefix(part): stage.array for name, stage in stages.items() if name.startswith(part)}
        if arrays:
            return Seen(arrays, {"task": "", **about})
    raise SpecError("A has no stage raw/… or sent/…: what was observed is not known, and nothing can be run again")
