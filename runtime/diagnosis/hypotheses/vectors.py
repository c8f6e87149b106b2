"""States and actions: units, signs, order of joints, quaternions, padding, other statistics, relative to the state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tactus.runtime.diagnosis.hypotheses.pair import STEPPED, Candidate, Pair, part

DEGREE = np.pi / 180
UNITS: dict[str, tuple[float, float]] = {
    "radians in place of degrees": (DEGREE, 0),
    "degrees in place of radians": (1 / DEGREE, 0),
    "mm in place of m": (1000, 0),
    "m in place of mm": (0.001, 0),
    "±100 in place of ±1 (or 0–100 of 0–1)": (100, 0),
    "±1 in place of ±100 (or 0–1 of 0–100)": (0.01, 0),
    "0–1 in place of ±1": (0.5, 0.5),
    "±1 in place of 0–1": (2, -1),
    "0–100 in place of ±100": (0.5, 50),
    "±100 in place of 0–100": (2, -100),
    "0–100 in place of ±1": (50, 50),
    "±1 in place of 0–100": (0.02, -1),
    "±100 in place of 0–1": (200, -100),
    "0–1 in place of ±100": (0.005, 0.5),
    "0–1 in place of 0–255": (1 / 255, 0),
    "0–255 in place of 0–1": (255, 0),
    "of the other sign": (-1, 0),
    "1 − what they were": (-1, 1),
}
FEWEST = 4
"""Rows from which on a gain and an offset of one's own say something."""


def units(pair: Pair) -> Iterator[Candidate]:
    """Each dimension that differs under a named constant: one for all, or as few as do."""
    both = pair.rows()
    if both is None or both[0].shape[1] > 256:
        return
    a, b = both
    limit = _limit(pair, b)
    differ = np.flatnonzero((np.abs(b - a) > limit).any(0))
    if not differ.size or (differ.size == 1 and not a[:, differ].any()):
        return
    near = {said: np.all(np.abs(a * gain + offset - b) <= limit, 0) for said, (gain, offset) in UNITS.items()}
    fits = {said: {int(d) for d in differ if d in np.flatnonzero(within)} for said, within in near.items()}
    left, chosen = {int(d) for d in differ}, []
    while left and (said := max(fits, key=lambda each: len(fits[each] & left))) and fits[said] & left:
        chosen.append((said, sorted(fits[said] & left)))
        left -= fits[said]
    if left or len(chosen) > 3:
        return
    gain, offset = np.ones(a.shape[1]), np.zeros(a.shape[1])
    for said, dims in chosen:
        gain[dims], offset[dims] = UNITS[said]
    where = "; ".join(f"{_of(pair, dims, a.shape[1])} {said}" for said, dims in chosen)
    name = " and ".join("sign" if "sign" in said else said for said, _ in chosen)
    cost = 1 + len(chosen)
    yield Candidate(name, f"the values are {where}", cost, lambda i: pair.a[i] * gain + offset, _rounding(pair))


def order(pair: Pair) -> Iterator[Candidate]:
    """Dimensions in another order, some with another sign."""
    both = pair.rows()
    if both is None or not 2 <= both[0].shape[1] <= 64:
        return
    from scipy.optimize import linear_sum_assignment

    a, b = both
    weight = 1 / np.maximum(_limit(pair, b), 1e-30) ** 2
    width = a.shape[1]
    plus, minus = np.empty((width, width)), np.empty((width, width))
    for column in range(width):
        plus[:, column] = np.square(a - b[:, [column]]).mean(0)
        minus[:, column] = np.square(a + b[:, [column]]).mean(0)
    for signed in (False, True):
        costs = (np.minimum(plus, minus) if signed else plus) * np.broadcast_to(weight, b.shape)[0]
        costs = costs - 1e-9 * costs.max() * np.eye(width)  # equal columns stay where they are
        _, columns = linear_sum_assignment(costs)
        source = np.argsort(columns)
        sign = (
            np.where(minus[source, np.arange(width)] < plus[source, np.arange(width)], -1.0, 1.0)
            if signed
            else np.ones(width)
        )
        moved = np.flatnonzero(source != np.arange(width))
        if not moved.size or (signed and (sign > 0).all()):
            continue
        told = ", ".join(
            f"{pair.label(j)} ← {'−' if sign[j] < 0 else ''}{pair.label(int(source[j]))}" for j in moved[:10]
        )
        yield Candidate(
            "permutation with signs" if signed else "permutation",
            f"dimensions are in another order{', some with the other sign' if signed else ''}: {told}",
            3 + signed,
            lambda i, source=source, sign=sign: pair.a[i][..., source] * sign,
            values={"from": source.tolist(), "sign": sign.tolist()},
        )


def quaternion(pair: Pair) -> Iterator[Candidate]:
    """Four dimensions of length 1: xyzw or wxyz, the same rotation with the other sign, or its inverse."""
    both = pair.rows()
    if both is None or both[0].shape[1] > 64:
        return
    a, b = both
    for first in range(a.shape[1] - 3):
        four = slice(first, first + 4)
        if not all(np.allclose(np.square(x[:, four]).sum(1), 1, atol=1e-3) for x in (a, b)):
            continue
        place = f"dimensions {first} to {first + 3}" + (
            f" ({pair.labels([*range(first, first + 4)])})" if pair.names else ""
        )
        ways = {
            "wxyz in place of xyzw": lambda q: np.roll(q, 1, -1),
            "xyzw in place of wxyz": lambda q: np.roll(q, -1, -1),
            "the inverse rotation (xyzw)": lambda q: q * [-1, -1, -1, 1],
            "the inverse rotation (wxyz)": lambda q: q * [1, -1, -1, -1],
        }
        for said, way in ways.items():
            for sign in (1, -1):
                more = " and with the other sign" if sign < 0 else ""
                yield Candidate(
                    f"quaternion {said}{more}",
                    f"the quaternion in {place} is {said}{more}",
                    1 + (sign < 0),
                    lambda i, way=way, four=four, sign=sign: _with(pair.a[i], four, sign * way(pair.a[i][..., four])),
                )

        def nearer(i: int, four: slice = four) -> np.ndarray:
            p, q = pair.a[i][..., four], pair.b[i][..., four]
            return _with(pair.a[i], four, p * np.where((p * q).sum(-1, keepdims=True) < 0, -1.0, 1.0))

        turned = int(((a[:, four] * b[:, four]).sum(1) < 0).sum())
        yield Candidate(
            "quaternion sign",
            f"the quaternion in {place} has the other sign in {turned} of {len(a)} rows: the same rotation",
            1,
            nearer,
        )


def padding(pair: Pair) -> Iterator[Candidate]:
    """Zeros before or after, another width, dimensions that are left out."""
    widths = pair.a[0].shape[-1] if pair.a[0].ndim else 0, pair.b[0].shape[-1] if pair.b[0].ndim else 0
    if not min(widths) or any(x.shape[:-1] != y.shape[:-1] for x, y in zip(pair.a, pair.b, strict=True)):
        return
    width, wide = widths
    if width == wide:
        rows = np.concatenate([x.reshape(-1, width) for x in pair.a])
        used = np.flatnonzero(rows.any(0))
        if used.size and used.size < width and (used[0] > 0 or used[-1] < width - 1):
            for by in (width - 1 - int(used[-1]), -int(used[0])):
                if by:
                    side = "before" if by > 0 else "after"
                    yield Candidate(
                        "zeros " + side,
                        f"the zeros stand {side} the values in place of {'after' if by > 0 else 'before'}",
                        1,
                        lambda i, by=by: np.roll(pair.a[i], by, -1),
                    )
        return
    for first in range(abs(wide - width) + 1):
        if wide > width:
            side = {0: "after", wide - width: "before"}.get(first, "around")
            pad = (first, wide - width - first)
            yield Candidate(
                f"zeros {side}", f"the values are padded with zeros {side} them, from {width} to {wide}", 1,
                lambda i, pad=pad: np.pad(pair.a[i], [(0, 0)] * (pair.a[i].ndim - 1) + [pad]),
            )  # fmt: skip
        else:
            side = {0: "the last", width - wide: "the first"}.get(first, "some")
            yield Candidate(
                "cut off",
                f"{side} {width - wide} of {width} dimensions are left out",
                1,
                lambda i, first=first: pair.a[i][..., first : first + wide],
            )


def statistics(pair: Pair) -> Iterator[Candidate]:
    """A gain and an offset of each dimension's own; of a normaliser, what mean and std both had, and whose they are."""
    both = pair.rows()
    if both is None or len(both[0]) < FEWEST or both[0].shape[1] > 256:
        return
    a, b = both
    fitted = affine(a, b)
    if fitted is None:
        return
    gain, offset = fitted
    changed = np.flatnonzero((np.abs(gain - 1) > 1e-3) | (np.abs(offset) > 1e-3 * np.maximum(b.std(0), 1e-9)))
    if not changed.size:
        return
    each = "; ".join(
        f"{pair.label(d)} × {gain[d]:.4g} {'+' if offset[d] >= 0 else '−'} {abs(offset[d]):.4g}" for d in changed[:8]
    )
    each += f" and {len(changed) - 8} more" if len(changed) > 8 else ""
    yield Candidate(
        "other statistics", f"each dimension has a scale and an offset of its own (other statistics): "
        f"{each}{_whose(pair, a, b)}", 5,
        lambda i: pair.a[i] * gain + offset, _rounding(pair),
        values={"scale": gain.tolist(), "offset": offset.tolist()},
    )  # fmt: skip


def affine(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Per column, the gain and offset of y over x [rows, columns]; a constant column has gain 1."""
    if x.shape != y.shape or len(x) < FEWEST:
        return None
    centred = x - x.mean(0)
    spread = np.square(centred).mean(0)
    varies = spread > 1e-20 + 1e-14 * np.square(x).mean(0)
    gain = np.where(varies, (centred * (y - y.mean(0))).mean(0) / np.where(varies, spread, 1), 1.0)
    return gain, y.mean(0) - gain * x.mean(0)


def _whose(pair: Pair, a: np.ndarray, b: np.ndarray) -> str:
    """In words, the mean and std with which an earlier stage became a and b; and which others have B's."""
    for name, arrays in reversed(pair.earlier.items()):
        rows = _as_rows(arrays, a.shape[1])
        if rows is None or rows.shape != a.shape:
            continue
        ours, theirs = _exactly(rows, a), _exactly(rows, b)
        if ours is None or theirs is None:
            continue
        if np.allclose(ours[0], 1, atol=1e-4) and np.allclose(ours[1], 0, atol=1e-4):
            continue
        told = f". From {name}, A's {_moments(ours, name, pair)}, B's {_moments(theirs, name, pair)}"
        for other, values in pair.beside.items():
            for before, earlier in pair.beside.items():
                x, y = _as_rows(earlier, a.shape[1]), _as_rows(values, a.shape[1])
                if other in (before, pair.name) or x is None or y is None or x.shape != y.shape:
                    continue
                if (found := _exactly(x, y)) is None or np.allclose(found[0], 1, atol=1e-4):
                    continue
                for one in (found, (1 / found[0], -found[1] / found[0])):
                    if np.allclose(one[0], theirs[0], rtol=1e-3) and np.allclose(
                        one[1], theirs[1], rtol=1e-2, atol=1e-2 * np.abs(one[1]).max()
                    ):
                        return f"{told}: B's are those between {before} and {other}"
        return told
    return ""


def _moments(found: tuple[np.ndarray, np.ndarray], name: str, pair: Pair) -> str:
    gain, offset = found
    forth = part(name) in ("raw", "sent", "preprocess")
    mean, std = (-offset / gain, 1 / gain) if forth else (offset, gain)
    return f"mean {_short(mean)} and std {_short(std)}"


def _short(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{x:.4g}" for x in values[:6]) + (", …" if len(values) > 6 else "") + "]"


def _as_rows(arrays: Sequence[np.ndarray], width: int) -> np.ndarray | None:
    """[rows, width]; of a model's padded actions, those that are the robot's. None if there are none such."""
    if any(not x.ndim or x.shape[-1] < width or x.ndim > 2 or x.dtype.kind != "f" for x in arrays):
        return None
    return np.concatenate([x[..., :width].reshape(-1, width) for x in arrays]).astype(np.float64)


def _exactly(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    fitted = affine(x, y)
    if fitted is None or (np.ptp(x, 0) == 0).any() or (np.abs(fitted[0]) < 1e-12).any():
        return None
    left = np.abs(x * fitted[0] + fitted[1] - y)
    return fitted if (left <= 1e-3 * np.maximum(np.abs(y).max(0), 1e-9)).all() else None


def relative(pair: Pair) -> Iterator[Candidate]:
    """Actions as they are, or as differences from the state, or from step to step."""
    if part(pair.name) not in STEPPED or not pair.same_shape or pair.a[0].ndim != 2:
        return
    width = pair.a[0].shape[-1]
    for name, states in pair.beside.items():
        if (
            "state" in name
            and all(x.shape[-1:] == (width,) and x.dtype.kind == "f" and x.ndim <= 2 for x in states)
            and len(states) == len(pair.a)
        ):
            for sign, said in ((1, "absolute in place of relative to"), (-1, "relative in place of absolute: less")):
                yield Candidate(
                    "relative actions",
                    f"the actions are {said} {name}",
                    1,
                    lambda i, states=states, sign=sign: (
                        pair.a[i] + sign * (states[i] if states[i].ndim == 1 else states[i][-1])
                    ),
                )
    yield Candidate(
        "cumulative actions", "the actions are summed up over the steps", 2, lambda i: np.cumsum(pair.a[i], 0)
    )
    yield Candidate(
        "differences of actions", "the actions are differences from step to step", 2, lambda i: _differences(pair.a[i])
    )


def _differences(a: np.ndarray) -> np.ndarray:
    return np.diff(a.astype(np.float64), axis=0, prepend=np.nan)


def constants(pair: Pair) -> Iterator[Candidate]:
    """Some dimensions are one number in B in all rows, the others as in A."""
    both = pair.rows()
    if both is None or both[0].shape[1] > 256:
        return
    a, b = both
    still = np.flatnonzero((np.ptp(b, 0) == 0) & ((np.ptp(a, 0) > 0) | ((b == 0).all(0) & (a != 0).any(0))))
    if not still.size or (len(b) < FEWEST and b[:, still].any()):
        return
    value = b[0, still]
    said = "zero" if not value.any() else f"always {_short(value)}"
    yield Candidate(
        "constant",
        f"{_of(pair, still, a.shape[1])} {said} in place of the values",
        2,
        lambda i: _with(pair.a[i], still, value),
    )


def _of(pair: Pair, dims: Sequence[int] | np.ndarray, width: int) -> str:
    return "in all dimensions" if len(dims) == width else f"in {pair.labels([int(d) for d in dims])}"


def _with(array: np.ndarray, where: slice | np.ndarray, value: np.ndarray) -> np.ndarray:
    made = array.astype(np.float64)
    made[..., where] = value
    return made


def _limit(pair: Pair, b: np.ndarray) -> np.ndarray:
    limit = pair.tolerance.limit([b])
    return np.maximum(limit, 1e-12) if pair.tolerance.relative else np.full((), 0.5 if pair.whole else 1e-12)


def _rounding(pair: Pair) -> float:
    return 0.51 if pair.whole else 0.0
