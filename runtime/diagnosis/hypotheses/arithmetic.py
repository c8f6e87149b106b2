"""Rounded, clipped, scaled, dropped out, other noise, noise on top, some channels of a layer: what numbers can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tactus.runtime.diagnosis.hypotheses.pair import STEPPED, Candidate, Pair, part

Way = Callable[[np.ndarray], np.ndarray]


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to the nearest bfloat16, ties to even; as float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).reshape(x.shape)


def bfloat16_cut(x: np.ndarray) -> np.ndarray:
    """The upper half of a float32's bits."""
    return (
        (np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).reshape(x.shape)
    )


def dtype(pair: Pair) -> Iterator[Candidate]:
    """b is a, rounded through a coarser type."""
    if pair.a[0].dtype.kind != "f" or not pair.same_shape:
        return
    ways: dict[str, tuple[str, Way]] = {
        "bfloat16": ("rounded through bfloat16", bfloat16),
        "bfloat16 cut off": ("cut off to bfloat16, not rounded", bfloat16_cut),
        "float16": ("rounded through float16", lambda x: x.astype(np.float16).astype(np.float32)),
        "whole numbers": ("rounded to whole numbers", np.rint),
        "whole numbers cut off": ("cut off to whole numbers, not rounded", np.trunc),
    }
    if pair.a[0].dtype == np.float64:
        ways["float32"] = "rounded through float32", lambda x: x.astype(np.float32)
    for name, (said, way) in ways.items():
        with np.errstate(over="ignore"):
            yield Candidate(f"dtype {name}", f"the values are {said}", 2, lambda i, way=way: way(pair.a[i]))


def clipped(pair: Pair) -> Iterator[Candidate]:
    """Within bounds that B does not leave."""
    if not pair.same_shape or pair.a[0].dtype.kind != "f":
        return
    low, high = min(float(b.min()) for b in pair.b), max(float(b.max()) for b in pair.b)
    over = sum(int(((a < low) | (a > high)).sum()) for a in pair.a)
    at = sum(int(((b == low) | (b == high)).sum()) for b in pair.b)
    if over and at >= 2 and low < high:
        yield Candidate(
            "clipped", f"the values are clipped to {low:.4g} … {high:.4g}", 2, lambda i: np.clip(pair.a[i], low, high)
        )


def gain(pair: Pair) -> Iterator[Candidate]:
    """Everything times one number, or shifted by one; of a layer each channel's own."""
    if not pair.same_shape or sum(a.size for a in pair.a) < 8:
        return
    x, y = (np.concatenate([s.ravel() for s in side]).astype(np.float64) for side in (pair.a, pair.b))
    if not np.isfinite(x).all() or not np.isfinite(y).all() or not x.any():
        return
    times = float(x @ y / (x @ x))
    where = f" of {pair.name.partition('/')[2]}" if pair.kind == "layer" else ""
    yield Candidate(
        "gain", f"the values{where} are scaled: × {times:.5g}", 3, lambda i: pair.a[i] * times, values={"gain": times}
    )
    plus = float((y - x).mean())
    yield Candidate(
        "offset", f"the values{where} are shifted: {plus:+.5g}", 3, lambda i: pair.a[i] + plus, values={"offset": plus}
    )
    rows = pair.rows()
    if pair.kind == "layer" and rows is not None and len(rows[0]) >= 4:
        a, b = rows
        power = np.square(a).sum(0)
        each = np.where(power > 0, (a * b).sum(0) / np.maximum(power, 1e-300), 1.0)
        shift = (b - a).mean(0)
        scaled, moved = np.flatnonzero(np.abs(each - 1) > 1e-3), np.flatnonzero(np.abs(shift) > 1e-3 * np.abs(b).mean())
        yield Candidate(
            "gain by channel", f"channels{where} are scaled: {_list(pair, scaled, each)}", 4, lambda i: pair.a[i] * each
        )
        yield Candidate(
            "bias by channel",
            f"channels{where} are shifted (another bias): {_list(pair, moved, shift)}",
            4,
            lambda i: pair.a[i] + shift,
        )


def _list(pair: Pair, where: np.ndarray, values: np.ndarray) -> str:
    shown = ", ".join(f"{pair.label(int(d)).replace('dimension ', '')} by {values[d]:.4g}" for d in where[:6])
    return shown + (f" and {len(where) - 6} more" if len(where) > 6 else "")


def dropout(pair: Pair) -> Iterator[Candidate]:
    """Some values are zero and all others larger by what that takes away: a model that still trains."""
    if not pair.same_shape or pair.a[0].dtype.kind != "f":
        return
    a, b = (np.concatenate([s.ravel() for s in side]).astype(np.float64) for side in (pair.a, pair.b))
    kept = (b != 0) & (np.abs(a) > 1e-6 * np.abs(a).mean())
    gone = float(((b == 0) & (a != 0)).mean())
    if kept.sum() < 20 or not 0.005 < gone < 0.95:
        return
    ratio = float(np.median(b[kept] / a[kept]))
    expected = 1 / (1 - gone)
    if abs(ratio - expected) < 0.15 * expected and (np.abs(b[kept] / a[kept] - ratio) < 0.01 * ratio).mean() > 0.99:
        yield Candidate(
            "dropout",
            f"{gone:.0%} of the values are zero and the rest {ratio:.3g} times as large: dropout is on (the "
            f"model is in training mode)",
            2,
            lambda i: np.where(pair.b[i] == 0, 0, pair.a[i] * ratio),
        )


def other_noise(pair: Pair) -> Iterator[Candidate]:
    """Noise of another seed or generator; of another width, spread, or with zeros where there should be some."""
    if pair.kind != "noise":
        return
    if not pair.same_shape:
        yield Candidate(
            "noise of another width",
            f"the noise has another shape: {[*pair.b[0].shape]} in place of {[*pair.a[0].shape]}",
            3,
            lambda i: None,
            statistical=True,
        )
        return
    a, b = (np.concatenate([s.ravel() for s in side]).astype(np.float64) for side in (pair.a, pair.b))
    rows = pair.rows()
    quiet = np.flatnonzero(~rows[1].any(0) & rows[0].any(0)) if rows is not None else np.array([], int)
    used = (
        np.ones(len(b), bool)
        if not quiet.size
        else np.tile(~np.isin(np.arange(pair.b[0].shape[-1]), quiet), len(b) // pair.b[0].shape[-1])
    )
    a, b = a[used], b[used]
    if len(b) < 8 or not b.any():
        return
    together = float(np.corrcoef(a, b)[0, 1])
    if abs(together) > max(4 / np.sqrt(len(b)), 0.1):
        return
    spread, wide = float(b.std()), 4 / np.sqrt(2 * len(b))
    padded = f", and zero in {pair.labels([int(d) for d in quiet])}" if quiet.size else ""
    repeated = len(pair.b) > 1 and all(np.array_equal(x, pair.b[0]) for x in pair.b)
    again = ", the same in every sample" if repeated else ""
    if abs(spread - 1) > max(wide, 0.05):
        yield Candidate(
            "noise of another std",
            f"other noise (correlation {together:.2f}) with a standard deviation of {spread:.3g} in place of "
            f"{a.std():.3g}{padded}{again}",
            3,
            lambda i: None,
            statistical=True,
        )
    else:
        yield Candidate(
            "noise with zeros" if quiet.size else "other noise",
            f"other noise: both are standard normal, but their correlation is {together:.2f} (another seed or "
            f"generator){padded}{again}",
            3,
            lambda i: None,
            statistical=True,
        )


def noise_on_top(pair: Pair) -> Iterator[Candidate]:
    """b − a knows nothing of a, nor of its own neighbours."""
    if not pair.same_shape or pair.kind in ("layer", "mask", "tokens"):
        return
    a, d = (
        np.concatenate([s.ravel() for s in side]).astype(np.float64)
        for side in (pair.a, [y.astype(np.float64) - x for x, y in zip(pair.a, pair.b, strict=True)])
    )
    if len(d) < 60 or not np.isfinite(d).all() or a.std() == 0 or (d != 0).mean() < 0.3:
        return
    bound = 4 / np.sqrt(len(d)) + 0.03
    apart = abs(float(np.corrcoef(a, d)[0, 1]))
    width = pair.a[0].shape[-1] if pair.a[0].ndim else 1
    normal = d.reshape(-1, width) / np.maximum(d.reshape(-1, width).std(0), 1e-30)
    neighbours = [abs(float((normal[:-1] * normal[1:]).mean()))] if len(normal) > 2 else []
    if pair.kind == "picture" and pair.a[0].ndim == 3:
        plane = (pair.b[0].astype(np.float64) - pair.a[0])[..., 0]
        plane = plane / max(plane.std(), 1e-30)
        neighbours = [abs(float((plane[:, :-1] * plane[:, 1:]).mean())), abs(float((plane[:-1] * plane[1:]).mean()))]
    tails = float((normal**4).mean())
    if (
        apart < bound
        and abs(d.mean()) < 4 * d.std() / np.sqrt(len(d)) + 0.1 * d.std()
        and max(neighbours, default=0) < bound + 0.1
        and d.std() < a.std()
        and 1.5 < tails < 6
    ):
        yield Candidate(
            "noise on top",
            f"noise lies on top: b − a has a standard deviation of {d.std():.3g}, and depends neither on a nor "
            f"on its neighbours",
            6,
            lambda i: None,
            statistical=True,
        )


def some_channels(pair: Pair) -> Iterator[Candidate]:
    """All that differs lies in few channels of a layer."""
    if pair.kind != "layer" or not pair.same_shape or pair.a[0].ndim < 1:
        return
    limit = pair.tolerance.limit(pair.b)
    module = pair.name.partition("/")[2]
    for axis in range(-1, -pair.a[0].ndim - 1, -1):
        size = pair.a[0].shape[axis]
        if size < 4 or any(x.shape[axis] != size for x in pair.a):
            continue
        differ = np.zeros(size, bool)
        for x, y in zip(pair.a, pair.b, strict=True):
            differ |= (np.abs(y.astype(np.float64) - x) > limit).any(
                tuple(i for i in range(x.ndim) if i != x.ndim + axis)
            )
        if 0 < differ.sum() <= size / 2:
            where = [int(i) for i in np.flatnonzero(differ)]
            told = ", ".join(map(str, where[:8])) + (f" and {len(where) - 8} more" if len(where) > 8 else "")
            yield Candidate(
                "some channels",
                f"only {told} of {size} along axis {axis} differ: weights or arithmetic inside {module}",
                4 - axis,
                lambda i: None,
                statistical=True,
                values={"channels": where, "axis": axis},
            )
            return


def inside(pair: Pair) -> Iterator[Candidate]:
    """Where all that goes in is equal, what computes it is not."""
    if pair.kind == "layer":
        yield Candidate(
            "inside the module",
            f"weights or arithmetic inside {pair.name.partition('/')[2]}: what was compared before it is equal",
            9,
            lambda i: None,
            statistical=True,
        )
    elif part(pair.name) in STEPPED and part(pair.name) != "noise":
        yield Candidate(
            "inside the model",
            "what was compared before it is equal: weights or arithmetic between there and here",
            9,
            lambda i: None,
            statistical=True,
        )
