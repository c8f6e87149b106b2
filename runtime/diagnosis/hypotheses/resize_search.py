"""Which resizing, detour, border or crop made B's picture of A's: the usual are tried, the nearest looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np

from tactus.runtime.diagnosis.hypotheses.interpolation import KERNELS, LIBRARIES
from tactus.runtime.diagnosis.hypotheses.pair import Candidate, Pair
from tactus.runtime.diagnosis.hypotheses.resizing import FITS, Chain, Crop, Step, quick_fit, rendered, whole_fit

COMMON = (84, 96, 128, 224, 240, 256, 336, 360, 384, 448, 480, 512, 640)
"""Sides of square pictures that cameras and models have."""
FRACTIONS = (0.98, 0.95, 0.9**0.5, 0.9, 0.875, 0.85, 0.8, 0.75)
ROWS, COLUMNS, SOURCES, FINALISTS = 8, 48, 2, 12
"""Of the result, what is looked at first; earlier stages that are tried; chains that are tried on whole pictures."""
NEAR = 0.02
"""A fit is near if this share of b's standard deviation is left."""


def resized_otherwise(pair: Pair) -> Iterator[Candidate]:
    """B's picture from an earlier one of A's (values scaled as B has them), or from A's own (values as they are)."""
    for name, source in sources(pair):
        own = name == pair.name
        if source[0].shape[-1] != pair.b[0].shape[-1] or source[0].std() == 0:
            continue
        b, steps = pair.b[0], _in_steps(source[0])
        finalists = best(
            _all(source[0].shape[:2], b.shape[:2], pair.sizes, registered(source[0], b)), source[0], b, own
        )
        told: list[tuple[float, Chain, int, np.ndarray]] = []
        for chain in finalists:
            for rounded in range(len(chain) + 1) if steps and source[0].max() > 2 else (0,):
                made, left = whole_fit(chain, source[0], b, own, rounded)
                told.append((left, chain, rounded, made))
        least = 1e-5 * float(b.std())  # float noise; of ways that are as near as that, the shortest
        told.sort(key=lambda each: max(each[0], least) * (1 + 0.05 * (len(each[1]) - 1) + 0.01 * each[2]))
        way = "" if own or not pair.same_shape else _way(source[0], pair.a[0], pair.sizes)
        count = _step(source[0], b)
        seen: list[np.ndarray] = []
        for left, chain, rounded, made in told:
            if left > max(1.2 * told[0][0], least) or any(np.abs(made - x).max() < 0.05 * count + 1e-6 for x in seen):
                continue
            seen.append(made)
            yield _candidate(
                pair, name, source, chain, rounded, (1.2 + 0.6 * (len(chain) - 1)) * count if steps else 0.0, way
            )
        if each := cropped_each(source, pair.b, finalists, own):
            yield Candidate(
                "random crop",
                "each sample is cropped elsewhere (augmentation that is still on): "
                + "; ".join(f"sample {i} {step}" for i, step in enumerate(each[:3])),
                4,
                lambda i, each=each, of=source, own=own: _whole(
                    whole_fit((each[i],), of[i], pair.b[i], own)[0], pair.whole
                ),
                1.2 * count if steps else 0.0,
            )
        if told and told[0][0] < NEAR * float(b.std()):
            return


def _candidate(
    pair: Pair, name: str, source: list[np.ndarray], chain: Chain, rounded: int, slack: float, way: str
) -> Candidate:
    own = name == pair.name
    cropped = any(step.crop for step in chain)
    kernel = chain[-1].kernel
    said = ", then ".join(map(str, chain)) + (
        f", in whole numbers after {'the first step' if rounded == 1 else 'each step'}"
        if rounded and len(chain) > 1
        else ""
    )
    return Candidate(
        "crop" if cropped and len(chain) == 1 else "resize chain" if len(chain) > 1 else "interpolation",
        f"the picture is A's{'' if own else ' ' + name}, {said}; {kernel}: "
        f"{LIBRARIES[kernel]}{way}", 2 + len(chain) + cropped,
        lambda i: _whole(whole_fit(chain, source[i], pair.b[i], own, rounded)[0], pair.whole), slack,
        values={"chain": [str(step) for step in chain], "kernel": kernel, "from": name},
    )  # fmt: skip


def _way(source: np.ndarray, a: np.ndarray, sizes: set[tuple[int, int]]) -> str:
    """How A made its own, if that can be told."""
    if source.shape[-1] != a.shape[-1]:
        return ""
    chains = [chain for chain in _all(source.shape[:2], a.shape[:2], sizes, []) if len(chain) == 1]
    for chain in best(chains, source, a, False)[:1]:
        if whole_fit(chain, source, a, False)[1] < NEAR * float(a.std()):
            return f". A's own: {chain[0]}"
    return ""


def sources(pair: Pair) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Earlier pictures of A, those of the same camera before others, and then A's own."""
    camera = pair.name.rpartition("/")[2].rpartition(".")[2]
    seen: list[np.ndarray] = []
    for name in sorted(pair.earlier, key=lambda each: not each.endswith(camera)):
        earlier = replace(pair, name=name, a=pair.earlier[name], b=pair.earlier[name], axes=("", ""), kind="picture")
        found = earlier.pictures()
        if found is None or len(seen) >= SOURCES or len(found.a) != len(pair.b):
            continue
        if not any(np.array_equal(found.a[0], other) for other in seen):
            seen.append(found.a[0])
            yield name, found.a
    yield pair.name, pair.a


def _all(
    size: tuple[int, int], out: tuple[int, int], sizes: Iterable[tuple[int, int]], crops: Iterable[Crop]
) -> Iterator[Chain]:
    """Every chain that is tried, from `size` to `out`."""

    def fits(before: tuple[int, int], after: tuple[int, int]) -> tuple[str, ...]:
        return FITS if before[0] * after[1] != before[1] * after[0] else FITS[:1]

    height, width = size
    if size != out:
        yield from ((Step(*out, kernel, fit),) for kernel in KERNELS for fit in fits(size, out))
    side = min(size)
    central = [(round(height * share), round(width * share)) for share in FRACTIONS] + [(side, side)] * (
        height != width
    )
    for part in central:
        crop = (height - part[0]) // 2, (width - part[1]) // 2, *part
        yield from ((Step(*out, kernel, crop=crop),) for kernel in KERNELS[:6])
    yield from ((Step(*out, kernel, crop=crop),) for crop in crops for kernel in KERNELS[:4])
    between = {(each, each) for each in COMMON} | {*sizes}
    between |= {(round(height * each / width), each) for each in COMMON} if height != width else set()
    for middle in sorted(between - {size, out}):
        for first in fits(size, middle):
            for second in fits(middle, out) if first == FITS[0] else FITS[:1]:
                yield from ((Step(*middle, kernel, first), Step(*out, kernel, second)) for kernel in KERNELS[:7])


def best(chains: Iterable[Chain], source: np.ndarray, b: np.ndarray, own: bool) -> list[Chain]:
    """The chains that come next to b in some of its rows and columns; two steps may have two kernels."""
    ranked = _ranked(chains, source, b, own)
    mixed = [
        (replace(chain[0], kernel=first), replace(chain[1], kernel=second))
        for chain in ranked[:2] if len(chain) == 2 for first in KERNELS for second in KERNELS if first != second
    ]  # fmt: skip
    return _ranked([*ranked[: 2 * FINALISTS], *mixed], source, b, own)[:FINALISTS]


def _ranked(chains: Iterable[Chain], source: np.ndarray, b: np.ndarray, own: bool) -> list[Chain]:
    rows, columns = (
        np.unique(np.linspace(0.04, 0.96, n) * (s - 1)).astype(int)
        for n, s in zip((ROWS, COLUMNS), b.shape[:2], strict=True)
    )
    scores = {
        chain: quick_fit(chain, source, b, own, rows, columns) * (1 + 0.01 * len(chain))
        for chain in dict.fromkeys(chains)
    }
    return sorted(scores, key=lambda chain: scores[chain])


def registered(source: np.ndarray, b: np.ndarray) -> list[Crop]:
    """Crops of the source that b may show, found by aligning both: scale and shift, to the pixel."""
    grey, template = (np.asarray(x, np.float32).mean(-1) for x in (source, b))
    if min(*grey.shape, *template.shape) < 16 or grey.std() == 0 or template.std() == 0:
        return []
    (height, width), (tall, wide) = grey.shape, template.shape
    if tall <= height and wide <= width and (tall, wide) != (height, width):
        scores = cv2.matchTemplate(grey, template, cv2.TM_CCOEFF_NORMED)
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores.max() > 0.98:
            return [(int(y), int(x), tall, wide)]
    template, grey = ((g - g.mean()) / g.std() for g in (template, grey))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    for zoom in (0.9, 0.75):
        warp = np.array(
            [[zoom * width / wide, 0, (1 - zoom) * width / 2], [0, zoom * height / tall, (1 - zoom) * height / 2]],
            np.float32,
        )
        try:
            _, warp = cv2.findTransformECC(template, grey, warp, cv2.MOTION_AFFINE, stop)
        except cv2.error:
            continue  # the two do not align from here, and nothing is claimed
        # a pixel's centre x in b is warp·x in the source; edges lie half a pixel further out
        at = round(warp[1, 1] * -0.5 + warp[1, 2] + 0.5), round(warp[0, 0] * -0.5 + warp[0, 2] + 0.5)
        part = round(warp[1, 1] * tall), round(warp[0, 0] * wide)
        about = [
            (at[0] + y, at[1] + x, part[0] + h, part[1] + w)
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
            for h in (-1, 0, 1)
            for w in (-1, 0, 1)
        ]
        found = [
            c
            for c in about
            if c[0] >= 0
            and c[1] >= 0
            and 8 <= c[2] <= height - c[0]
            and 8 <= c[3] <= width - c[1]
            and c[2:] != (height, width)
        ]
        if found:
            return found
    return []


def cropped_each(source: list[np.ndarray], b: list[np.ndarray], finalists: list[Chain], own: bool) -> list[Step]:
    """A crop for every sample, if the best chain is one that is right for the first sample and not for the second."""
    step = finalists[0][-1] if finalists else None
    if step is None or step.crop is None or len(finalists[0]) > 1 or len(b) < 2:
        return []
    near = NEAR * float(b[0].std())
    if whole_fit((step,), source[0], b[0], own)[1] > near or whole_fit((step,), source[1], b[1], own)[1] <= near:
        return []
    found = [step]
    for picture, other in zip(source[1:], b[1:], strict=True):
        crops = [(replace(step, crop=crop),) for crop in registered(picture, other)]
        if not crops or picture.shape != source[0].shape or other.shape != b[0].shape:
            return []
        found.append(_ranked(crops, picture, other, own)[0][0])
    return found


def _step(source: np.ndarray, b: np.ndarray) -> float:
    """What one of 256 steps of the source is in b's values."""
    return float(b.std()) / max(float(source.std()), 1e-9) * (1.0 if float(source.max()) > 2 else 1 / 255)


def _whole(picture: np.ndarray, whole: bool) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255) if whole else picture


def _in_steps(picture: np.ndarray) -> bool:
    """Whether the values are those of 256 steps, whatever their range."""
    return len(np.unique(picture[::3, ::3].ravel()[:4096])) <= 256


__all__ = ["best", "rendered", "resized_otherwise"]
