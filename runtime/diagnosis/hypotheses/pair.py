"""What a hypothesis is given: one stage of two traces, sample by sample, and what lies before and beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tactus.runtime.diagnosis.tolerance import Tolerance, difference

CHANNELS = (1, 3, 4)
PICTURE_PARTS = ("raw", "sent", "preprocess", "input", "image")
ACTIONS = ("chunk", "queue", "executed")
STEPPED = (*ACTIONS, "noise", "denoise")
SCREEN, PARTIAL = 0.3, 0.5
"""Shares of the squared difference: below the first in one sample none is looked at; from the second on it is told."""
LARGEST = 1_000_000
"""Elements of a sample's stage that are looked at; of more, rows are left out evenly (pictures stay whole)."""


@dataclass
class Pair:
    """a, b: a float array per sample, without batch axis, of the same stage in both traces.

    earlier: A's stages before it; beside: all of A's stages, by name. kinds: dtypes of a and b in the programs.
    tasks: texts of both, per sample. names, unit: of the last axis.
    """

    name: str
    kind: str
    a: list[np.ndarray]
    b: list[np.ndarray]
    tolerance: Tolerance
    kinds: tuple[str, str] = ("float32", "float32")
    names: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    axes: tuple[str, str] = ("", "")
    earlier: dict[str, list[np.ndarray]] = field(default_factory=dict)
    beside: dict[str, list[np.ndarray]] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    tasks: list[tuple[str, str]] = field(default_factory=list)
    prefix: str = ""

    @property
    def same_shape(self) -> bool:
        """Whether a and b can be subtracted."""
        return all(x.shape == y.shape for x, y in zip(self.a, self.b, strict=True))

    @property
    def whole(self) -> bool:
        """Whether B's stage holds whole numbers."""
        return self.kinds[1].startswith(("int", "uint", "bool"))

    def rows(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both as [rows, dimensions] over all samples; None if widths or lengths differ."""
        if not self.same_shape or not self.a[0].ndim or len({x.shape[-1] for x in self.a}) > 1:
            return None
        width = self.a[0].shape[-1]
        a, b = (np.concatenate([x.reshape(-1, width) for x in side]).astype(np.float64) for side in (self.a, self.b))
        return (a, b) if np.isfinite(a).all() and np.isfinite(b).all() else None

    def label(self, dimension: int) -> str:
        """What a dimension is called."""
        return self.names[dimension] if dimension < len(self.names) else f"dimension {dimension}"

    def labels(self, dimensions: Sequence[int], most: int = 8) -> str:
        """What they are called, in a row."""
        told = [self.label(int(each)) for each in dimensions[:most]]
        return ", ".join(told) + (f" and {len(dimensions) - most} more" if len(dimensions) > most else "")

    def pictures(self) -> Pair | None:
        """The same as pictures [H, W, C], a history's one by one; None if they are none."""
        if self.kind != "picture":
            return None
        layouts = [layout(side[0].shape, axes) for side, axes in zip((self.a, self.b), self.axes, strict=True)]
        if None in layouts:
            return None
        a, b = (
            [one for x in side for one in as_pictures(x, str(which))]
            for side, which in zip((self.a, self.b), layouts, strict=True)
        )
        if len(a) != len(b):
            return None
        prefix = f"the axes are {layouts[1]} in place of {layouts[0]}, and " if layouts[0] != layouts[1] else ""
        return replace(self, a=a, b=b, prefix=prefix, tolerance=replace(self.tolerance, by_dimension=False))


@dataclass
class Candidate:
    """A hypothesis with all that it takes. make: what B's sample i would be; None, or NaN, where it says nothing.

    cost: the simplest has the least. slack: how far a value may be off beyond the tolerance, as rounding makes it.
    statistical: not equality but a test was passed; make then gives None.
    """

    name: str
    sentence: str
    cost: int
    make: Callable[[int], np.ndarray | None]
    slack: float = 0.0
    statistical: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    shown: Sequence[np.ndarray] | None = None


@dataclass
class Finding:
    """confirmed: it makes B's stage of A's, within tolerance. share: of the squared difference that it removes."""

    name: str
    sentence: str
    confirmed: bool
    share: float
    cost: int
    residual: float = 0.0
    rms: float = 0.0
    statistical: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    shown: Sequence[np.ndarray | None] | None = None


Hypothesis = Callable[[Pair], Iterator[Candidate]]


def judged(pair: Pair, candidate: Candidate) -> Finding | None:
    """What becomes of a candidate on all samples; None if it explains less than PARTIAL."""
    if candidate.statistical:
        return Finding(
            candidate.name,
            pair.prefix + candidate.sentence,
            True,
            0.0,
            candidate.cost,
            statistical=True,
            values=candidate.values,
        )
    order = sorted(range(len(pair.b)), key=lambda i: not _apart(pair, i))
    limit = pair.tolerance.limit(pair.b)
    if not pair.whole:
        limit = np.maximum(limit, limit / max(pair.tolerance.relative, 1e-30) * 1e-6)  # what computing it costs
    left = whole = worst = count = 0.0
    within, seen = True, False
    shown: list[np.ndarray | None] = [None] * len(pair.b)
    for index in order:
        made = candidate.make(index)
        b = pair.b[index]
        if made is None:
            continue
        if made.shape != b.shape:
            return None
        known = ~np.isnan(made) if made.dtype.kind == "f" else np.ones(made.shape, bool)
        apart = np.where(known, np.abs(difference(made, b)), 0)
        if not np.isfinite(apart).all() or 2 * known.sum() < made.size:
            return None
        base = difference(pair.a[index], b) if pair.a[index].shape == b.shape else b - b.mean()
        base = np.where(np.isfinite(base) & known, base, 0)
        lost, had = (float(np.vdot(x, x)) for x in (apart, base))
        within = within and bool(np.all(apart <= limit + candidate.slack))
        if not seen and not within and lost > (1 - SCREEN) * had:
            return None
        seen = True
        left, whole, count = left + lost, whole + had, count + apart.size
        worst = max(worst, float(apart.max(initial=0)))
        shown[index] = made
    share = 1 - left / whole if whole else 0.0
    if not seen or whole == 0 or (not within and share < PARTIAL):
        return None
    sentence = pair.prefix + candidate.sentence
    cost = candidate.cost + bool(pair.prefix)
    rms = (left / max(count, 1)) ** 0.5
    return Finding(candidate.name, sentence, within, share, cost, worst, rms, values=candidate.values, shown=shown)


def _apart(pair: Pair, index: int) -> bool:
    a, b = pair.a[index], pair.b[index]
    return a.shape != b.shape or not np.array_equal(a, b)


def part(name: str) -> str:
    """The first word of a stage's name."""
    return name.split("/")[0]


def layout(shape: tuple[int, ...], axes: str = "") -> str | None:
    """HWC or CHW of the last three axes; None if it is no picture."""
    if len(shape) < 3 or len(shape) > 5:
        return None
    first, middle, last = shape[-3:]
    if axes.upper()[-3:] in ("HWC", "CHW"):
        return axes.upper()[-3:]
    if last in CHANNELS and min(first, middle) >= 8:
        return "HWC"
    return "CHW" if first in CHANNELS and min(middle, last) >= 8 else None


def as_pictures(array: np.ndarray, axes: str) -> list[np.ndarray]:
    """[…, H, W, C] or […, C, H, W] as a list of [H, W, C]."""
    flat = array.reshape(-1, *array.shape[-3:])
    return [np.moveaxis(one, 0, -1) if axes == "CHW" else one for one in flat]


def is_picture(name: str, shape: tuple[int, ...], axes: str = "") -> bool:
    """By its part and shape; one channel alone may be a matrix, unless it is named or described as a picture."""
    found = layout(shape, axes) if part(name) in PICTURE_PARTS else None
    if found is None:
        return False
    return shape[-1 if found == "HWC" else -3] > 1 or bool(axes) or bool(re.search("image|depth|rgb", name))


def kind_of(name: str, a: np.ndarray, b: np.ndarray, kinds: tuple[str, str], axes: tuple[str, str] = ("", "")) -> str:
    """picture, mask, tokens, noise, vector (a chunk too), or layer; of arrays without batch axis."""
    if all(is_picture(name, x.shape, which) for x, which in zip((a, b), axes, strict=True)):
        return "picture"
    if "bool" in kinds or re.search(r"mask|is_pad", name):
        return "mask"
    if all(each.startswith(("int", "uint")) for each in kinds) and a.ndim <= 2:
        return "tokens"
    if part(name) == "noise":
        return "noise"
    return "layer" if part(name) == "layer" else "vector"


def unbatched(name: str, array: np.ndarray, axes: str = "") -> np.ndarray:
    """Without leading axes of 1, as far as a vector or a picture is left."""
    least = 3 if is_picture(name, array.shape, axes) else 1
    while array.ndim > least and array.shape[0] == 1:
        array = array[0]
    return array
