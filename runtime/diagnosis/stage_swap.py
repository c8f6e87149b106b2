"""Stage swap: what a stage's difference matters. B's array is put into A's run: how far do the actions move?

A   raw ─ sent ─ preprocess ─ image ─ noise ─ layers ─ chunk      the policy, run again on A's observations
                        ▲
B   …          preprocess/4…  put in its place, the rest is A's   → how far the actions move
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy
from tactus.policies.tracing.hooks import Injection
from tactus.policies.tracing.trace_file import Sample, Trace
from tactus.runtime.diagnosis.comparison import Comparison, Swap
from tactus.runtime.diagnosis.sources import Seen
from tactus.runtime.diagnosis.tracing import trace_recorded

NOISE = "noise"
AFTER = ("chunk/actions", "queue/", "executed/")
"""What comes when the policy is done."""
ROWS, LAYERS = 16, 4


def worth_swapping(found: Comparison) -> list[str]:
    """Stages that differ: all that come before the network, and the first few in it."""
    differ = [stage.name for stage in found.stages if not stage.ok and not stage.name.startswith(AFTER)]
    inside = [name for name in differ if name.startswith(("layer/", "denoise/"))][:LAYERS]
    return [name for name in differ if not name.startswith(("layer/", "denoise/")) or name in inside][:ROWS]


def swap_stages(a: Trace, b: Trace, policy: Policy, stages: Sequence[str], seed: int, count: int = 4) -> list[Swap]:
    """One row per stage, from A's noise if A has it, else from the seed's. stages: names that both have. count: how
    many samples, at most, are run again.

    Raises SpecError if A does not say what it observed, in stages raw/… or sent/…, or the policy reads other things.
    """
    pairs = list(zip(a.samples, b.samples, strict=False))[:count]
    seen = [_observed(sample) for sample, _ in pairs]
    noise = [{NOISE: sample.stages[NOISE].array} if NOISE in sample.stages else {} for sample, _ in pairs]
    alone, _ = _chunks(policy, seen, seed, noise)
    action = policy.spec.action
    unit = [action.unit] * action.shape[0] if isinstance(action.unit, str) else [*action.unit]
    swaps = []
    for name in stages:
        put = [{**own, name: other.stages[name].array} for own, (_, other) in zip(noise, pairs, strict=True)]
        try:
            chunks, done = _chunks(policy, seen, seed, put)
        except (ValueError, RuntimeError, SpecError) as error:
            swaps.append(Swap(name, problem=f"cannot be put in: {error}"))
            continue
        if name not in done:
            swaps.append(Swap(name, problem="this policy's run has no such stage"))
            continue
        moved = np.abs(chunks - alone)
        mean, largest = moved.mean((0, 1)).tolist(), moved.max((0, 1)).tolist()
        swaps.append(Swap(name, mean, unit, largest, [*action.names]))
    return swaps


def _chunks(
    policy: Policy, seen: Sequence[Seen], seed: int, put: Sequence[Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, set[str]]:
    """float64[samples, H, A], and what could be put into every one of them."""
    chunks, done = [], []
    for index, (each, stages) in enumerate(zip(seen, put, strict=True)):
        tap = Injection(stages)
        [chunk] = trace_recorded(tap, policy, [each], seed + index, "all")
        chunks.append(chunk.actions.astype(np.float64))
        done.append(tap.done)
    return np.stack(chunks), set.intersection(*done)


def _observed(sample: Sample) -> Seen:
    for part in ("raw/", "sent/"):
        arrays = {n.removeprefix(part): stage.array for n, stage in sample.stages.items() if n.startswith(part)}
        if arrays:
            return Seen(arrays, {"task": "", **sample.about})
    raise SpecError("A has no stage raw/… or sent/…: what was observed is not known, and nothing can be run again")
