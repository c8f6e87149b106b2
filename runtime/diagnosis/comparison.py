"""Two traces, stage by stage: the first that is out of tolerance, how far and where, and what explains it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import Any

import numpy as np

from tactus.policies.tracing.trace_file import PARTS, Sample, Stage, Trace, TraceError
from tactus.runtime.diagnosis.hypotheses import Finding, Pair, tested
from tactus.runtime.diagnosis.hypotheses.pair import (
    ACTIONS,
    LARGEST,
    as_pictures,
    is_picture,
    kind_of,
    layout,
    part,
    unbatched,
)
from tactus.runtime.diagnosis.tolerance import DIMENSIONS, Tolerance, difference, kind, of_again, of_dtypes, scale

LISTED, LONGEST = 6, 110
"""Stages, elements or samples that a sentence names; characters of a headline's cause."""


@dataclass
class Swap:
    """The policy run again with B's array in A's place. moved, largest: how far the actions go, by dimension, on the
    mean and at the most over samples and steps. names, unit: the dimensions'. problem: why it could not be put in."""

    stage: str
    moved: list[float] = field(default_factory=list)
    unit: list[str] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass
class StageResult:
    """One stage of both. largest, rms: of b − a, in the stage's unit; relative: the rms in shares of A's own scale."""

    name: str
    ok: bool
    tolerance: str
    largest: float = 0.0
    rms: float = 0.0
    relative: float = 0.0
    unit: str = ""
    samples: list[int] = field(default_factory=list)
    where: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """stages: in A's order. first: the first that differs, with what explains it. swaps: as someone else found."""

    programs: tuple[str, str]
    policies: tuple[str, str]
    samples: int
    stages: list[StageResult]
    notes: list[str]
    only_a: list[str]
    only_b: list[str]
    findings: list[Finding] = field(default_factory=list)
    pair: Pair | None = None
    swaps: list[Swap] = field(default_factory=list)

    @property
    def first(self) -> StageResult | None:
        """The first stage out of tolerance."""
        return next((stage for stage in self.stages if not stage.ok), None)

    @property
    def headline(self) -> str:
        """All of it in a line."""
        if self.first is None:
            return f"equal through all {len(self.stages)} stages, in {_count(self.samples, 'sample')}"
        if not self.findings:
            return f"first difference: {self.first.name}"
        cause = re.split(r"; |\. ", self.findings[0].sentence)[0]
        cause = cause if len(cause) <= LONGEST else shorten(cause.split(": ")[0], LONGEST, placeholder=" …")
        return f"first difference: {self.first.name}: {cause}"


def compare(
    a: Trace, b: Trace, again: Trace | None = None, factor: float = 1.0, swaps: Sequence[Swap] = ()
) -> Comparison:
    """again: another trace of what A is, which says how far two runs may differ. factor: on every tolerance but 0.

    Raises TraceError for traces that cannot be compared.
    """
    notes = check(a, b, "A and B")
    if again is not None:
        notes += [f"--again: {note}" for note in check(a, again, "A and --again")]
    samples = list(zip(a.samples, b.samples, strict=False))
    order = names_of([x for x, _ in samples])
    others = names_of([y for _, y in samples])
    common = [name for name in order if name in others]
    if not common:
        raise TraceError(
            f"no stage is in both traces: A has {_some(order)}; B has {_some(others)}; see docs/diagnosis.md "
            f"for what stages are called"
        )
    found = Comparison(
        (a.program, b.program), (a.policy, b.policy), len(samples), [], notes,
        [name for name in order if name not in others], [name for name in others if name not in order],
        swaps=list(swaps),
    )  # fmt: skip
    for name in common:
        both = [
            (i, x.stages[name], y.stages[name])
            for i, (x, y) in enumerate(samples)
            if name in x.stages and name in y.stages
        ]
        repeated = _again(again, name, [i for i, *_ in both])
        if again is not None and repeated is None:
            notes.append(f"{name}: not in --again; its tolerance is that of its dtype")
        result, pair = stage_result(name, both, repeated, factor)
        if not result.ok and found.pair is None:
            found.pair = _in_context(pair, samples, order, [i for i, *_ in both])
        found.stages.append(result)
    if found.pair is not None:
        found.findings = tested(found.pair)
    return found


def check(a: Trace, b: Trace, which: str) -> list[str]:
    """What is worth knowing before two traces are compared; raises TraceError if that makes no sense."""
    notes = []
    if not a.samples or not b.samples:
        raise TraceError(f"{which}: {len(a.samples)} and {len(b.samples)} samples; both need at least one")
    types = [trace.policy.partition(":")[0] for trace in (a, b)]
    if all(types) and types[0] != types[1]:
        raise TraceError(
            f"{which} are of different policies, {a.policy!r} and {b.policy!r}: they compute different things; "
            f"trace one checkpoint in both programs"
        )
    if a.policy and b.policy and a.policy != b.policy:
        notes.append(f"{which} have policies of other weights: {a.policy} and {b.policy}")
    widths = [
        {s.array.shape[-1] for x in t.samples for s in x.stages.values() if s.name == "chunk/actions" and s.array.ndim}
        for t in (a, b)
    ]
    if a.robot and b.robot and a.robot != b.robot:
        if all(widths) and widths[0] != widths[1]:
            raise TraceError(
                f"{which} are of different robots, {a.robot!r} with {_numbers(widths[0])} and {b.robot!r} with "
                f"{_numbers(widths[1])} actions: nothing of them is comparable; trace one robot in both programs"
            )
        notes.append(f"{which} are of different robots: {a.robot} and {b.robot}")
    elif all(widths) and widths[0] != widths[1]:
        notes.append(f"{which} have actions of different width: {_numbers(widths[0])} and {_numbers(widths[1])}")
    if len(a.samples) != len(b.samples):
        fewest = min(len(a.samples), len(b.samples))
        notes.append(f"{which} have {len(a.samples)} and {len(b.samples)} samples: the first {fewest} are compared")
    for key in ("task", "tick"):
        for i, (x, y) in enumerate(zip(a.samples, b.samples, strict=False)):
            if key in x.about and key in y.about and x.about[key] != y.about[key]:
                notes.append(f"sample {i} has another {key}: {x.about[key]!r} and {y.about[key]!r}")
                break
    return notes


def names_of(samples: Sequence[Sample]) -> list[str]:
    """Every stage's name in the order of the samples; one that only a later sample has stands where it has it."""
    order: list[str] = []
    for sample in samples:
        at = 0
        for name in sample.stages:
            if name in order:
                at = order.index(name) + 1
            else:
                order.insert(at, name)
                at += 1
    return order


def stage_result(
    name: str, both: Sequence[tuple[int, Stage, Stage]], again: Sequence[Stage] | None = None, factor: float = 1.0
) -> tuple[StageResult, Pair]:
    """both: the sample's index, A's stage and B's."""
    notes: list[str] = []
    _, first, second = both[0]
    kinds = kind(first.array, first.dtype), kind(second.array, second.dtype)
    axes = first.axes, second.axes
    a, b = (
        [unbatched(name, stage.array, stage.axes) for stage in side]
        for side in ([x for _, x, _ in both], [y for _, _, y in both])
    )
    of_kind = kind_of(name, a[0], b[0], kinds, axes)
    if of_kind not in ("picture", "mask", "tokens"):
        a, b, cut = _level(name, a, b)
        notes += cut
    by_dimension = of_kind in ("vector", "noise") and a[0].ndim > 0 and a[0].shape[-1] <= DIMENSIONS
    tolerance = of_dtypes(kinds, by_dimension, factor)
    if again is not None:
        repeated = [unbatched(name, stage.array, stage.axes) for stage in again]
        first_ones = a[: len(repeated)]
        if all(x.shape == y.shape for x, y in zip(first_ones, repeated, strict=True)):
            tolerance = of_again(first_ones, repeated, kinds, by_dimension, factor)
        else:
            notes.append("--again has another shape; the tolerance is that of its dtype")
    if kinds[0] != kinds[1]:
        notes.append(f"{kinds[0]} in A, {kinds[1]} in B")
    names = first.names or second.names
    unit = first.unit or second.unit
    pair = Pair(name, of_kind, a, b, tolerance, kinds, tuple(names), tuple(unit), axes)
    result = StageResult(name, True, tolerance.why, notes=notes)
    _measure(result, pair, [index for index, *_ in both])
    return result, pair


def _level(name: str, a: list[np.ndarray], b: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Actions as far as both go: one program keeps a whole chunk, another those that it executes."""
    lengths = {(x.shape[0], y.shape[0]) for x, y in zip(a, b, strict=True) if x.ndim == y.ndim == 2}
    if part(name) not in ACTIONS or all(x == y for x, y in lengths):
        return a, b, []
    cut = [(x[: len(y)], y[: len(x)]) if x.ndim == y.ndim == 2 else (x, y) for x, y in zip(a, b, strict=True)]
    told = " and ".join(map(str, next((x, y) for x, y in lengths if x != y)))
    return [x for x, _ in cut], [y for _, y in cut], [f"{told} steps: the common ones are compared"]


def _measure(result: StageResult, pair: Pair, indices: Sequence[int]) -> None:
    limit = pair.tolerance.limit(pair.a)
    squares, count, out, worst = 0.0, 0, None, (0.0, 0)
    for index, x, y in zip(indices, pair.a, pair.b, strict=True):
        if x.shape != y.shape:
            result.ok = False
            result.samples.append(index)
            result.where = f"shape {[*x.shape]} in A, {[*y.shape]} in B"
            result.largest = result.rms = result.relative = float("nan")
            continue
        apart = np.abs(difference(x, y))
        beyond = apart > limit
        squares, count = squares + float(np.vdot(apart, apart)), count + apart.size
        if apart.size and (largest := float(apart.max())) > result.largest:
            result.largest = largest
            worst = largest, int(apart.argmax())
        if beyond.any():
            result.ok = False
            result.samples.append(index)
            out = beyond if out is None or out.shape != beyond.shape else out | beyond
    if count and not result.where:
        result.rms = (squares / count) ** 0.5
        own = float(scale(pair.a, False))
        result.relative = result.rms / own if own else float("inf") if result.rms else 0.0
        result.unit = _unit(pair, worst[1])
    if out is not None and not result.where:
        result.where = _where(pair, out)
    broken = sum(
        int((~np.isfinite(y) & np.isfinite(x)).sum()) for x, y in zip(pair.a, pair.b, strict=True) if x.shape == y.shape
    )
    if broken:
        result.notes.append(f"{broken} values of B are infinite or no number, where A's are finite")


def _unit(pair: Pair, flat: int) -> str:
    if not pair.unit or not pair.a[0].ndim:
        return ""
    dimension = flat % pair.a[0].shape[-1]
    return pair.unit[dimension] if dimension < len(pair.unit) else ""


def _where(pair: Pair, out: np.ndarray) -> str:
    """Which elements are beyond the tolerance in any sample."""
    share = float(out.mean())
    if pair.kind == "picture":
        flat = np.logical_or.reduce([one.any(-1) for one in as_pictures(out, str(layout(out.shape, pair.axes[0])))])
        rows, columns = np.flatnonzero(flat.any(1)), np.flatnonzero(flat.any(0))
        box = (
            f"rows {rows[0]} to {rows[-1]} and columns {columns[0]} to {columns[-1]} of {flat.shape[0]}×{flat.shape[1]}"
        )
        return f"{flat.mean():.0%} of the pixels, within {box}"
    if pair.kind in ("vector", "noise") and out.ndim:
        dims = np.flatnonzero(out.reshape(-1, out.shape[-1]).any(0))
        said = "all" if len(dims) == out.shape[-1] else pair.labels([int(d) for d in dims], LISTED)
        steps = f", in steps {_few(np.flatnonzero(out.reshape(len(out), -1).any(1)))}" if out.ndim == 2 else ""
        return f"{said} of {_count(out.shape[-1], 'dimension')}{steps}" if said == "all" else said + steps
    if out.ndim <= 1:
        return f"elements {_few(np.flatnonzero(out))}"
    return f"{share:.1%} of the elements of {[*out.shape]}"


def _few(numbers: Any) -> str:
    numbers = [int(x) for x in numbers]
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:LISTED])) + (
        f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    )


def _in_context(
    pair: Pair, samples: Sequence[tuple[Sample, Sample]], order: Sequence[str], indices: Sequence[int]
) -> Pair:
    """With A's other stages of the same samples, the sizes of all pictures, and the texts; large arrays thinned."""
    chosen = [samples[i] for i in indices]
    beside = {
        name: [unbatched(name, x.stages[name].array, x.stages[name].axes) for x, _ in chosen]
        for name in order if all(name in x.stages for x, _ in chosen)
    }  # fmt: skip
    before = set(order[: order.index(pair.name)])
    sizes = {
        shape[-3:-1] if layout(shape, stage.axes) == "HWC" else shape[-2:]
        for both in chosen for sample in both for stage in sample.stages.values()
        if is_picture(stage.name, shape := stage.array.shape, stage.axes)
    }  # fmt: skip
    tasks = [(str(x.about.get("task", "")), str(y.about.get("task", ""))) for x, y in chosen]
    a, b = pair.a, pair.b
    if pair.kind in ("layer", "vector", "noise") and pair.same_shape and max(x.size for x in a) > LARGEST:
        step = -(-max(x.size for x in a) // LARGEST)
        a, b = ([x.reshape(-1, x.shape[-1])[::step] for x in side] for side in (a, b))
    earlier = {name: arrays for name, arrays in beside.items() if name in before}
    return replace(pair, a=a, b=b, earlier=earlier, beside=beside, sizes=sizes, tasks=tasks)


def _again(again: Trace | None, name: str, indices: Sequence[int]) -> list[Stage] | None:
    if again is None:
        return None
    found = []
    for i in indices:
        if i >= len(again.samples) or name not in again.samples[i].stages:
            break
        found.append(again.samples[i].stages[name])
    return found or None


def place(name: str) -> str:
    """Where in the pipeline a stage is, in PARTS' words."""
    for key, text in PARTS.items():
        pattern, _, meaning = text.partition(": ")
        fixed = [word for word in pattern.split("/") if word and word == word.lower()]
        if name.split("#")[0] == pattern or (key == part(name) and len(fixed) <= 1):
            return meaning.split(";")[0].strip() or key
    return "a stage of its own name"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return (
        ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
        if names
        else "none"
    )


def _numbers(widths: set[int]) -> str:
    return " or ".join(map(str, sorted(widths)))


__all__ = ["Comparison", "StageResult", "Swap", "Tolerance", "compare", "place"]
