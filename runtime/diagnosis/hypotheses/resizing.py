"""Pictures of another size, or of another way to the same size: resized in one step or by a detour, padded, cropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from tactus.runtime.diagnosis.hypotheses.interpolation import KERNELS, LIBRARIES, applied, weights
from tactus.runtime.diagnosis.hypotheses.pair import Candidate, Pair

COMMON = (84, 96, 128, 224, 240, 256, 336, 360, 384, 448, 480, 512, 640)
"""Sides of square pictures that cameras and models have."""
FRACTIONS = (0.98, 0.95, 0.9**0.5, 0.9, 0.875, 0.85, 0.8, 0.75)
PADDINGS = ("stretched", "padded on both sides", "padded at the left and top", "padded at the right and bottom")
LINES, SOURCES, FINALISTS = 8, 4, 6
"""Rows of the result that are looked at first; earlier stages that are tried; chains that are tried on all of it."""


@dataclass(frozen=True)
class Step:
    """To height and width with a kernel: stretched, or at its own aspect with a border. crop: top, left, height, width
    of what is taken first."""

    height: int
    width: int
    kernel: str
    fit: str = PADDINGS[0]
    crop: tuple[int, int, int, int] | None = None

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """[self.height, height] and [self.width, width]."""
        top, left, tall, wide = self.crop or (0, 0, height, width)
        inner = self.inner(tall, wide)
        made = []
        for at, part, size, out, full in ((top, tall, height, inner[0], self.height), (left, wide, width, inner[1], self.width)):  # fmt: skip
            matrix = np.zeros((full, size), np.float32)
            before = {PADDINGS[1]: (full - out) // 2, PADDINGS[2]: full - out}.get(self.fit, 0)
            matrix[before : before + out, at : at + part] = weights(part, out, self.kernel)
            made.append(matrix)
        return made[0], made[1]

    def inner(self, height: int, width: int) -> tuple[int, int]:
        """The size of what is not border."""
        if self.fit == PADDINGS[0]:
            return self.height, self.width
        ratio = max(height / self.height, width / self.width)
        return max(1, int(height / ratio)), max(1, int(width / ratio))

    def __str__(self) -> str:
        cropped = f"cropped to {self.crop[3]}×{self.crop[2]} at column {self.crop[1]}, row {self.crop[0]}, then " if self.crop else ""  # fmt: skip
        border = "" if self.fit == PADDINGS[0] else f", {self.fit}"
        return f"{cropped}to {self.width}×{self.height} ({self.kernel}{border})"


Chain = tuple[Step, ...]


def operators(chain: Chain, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """All steps as one matrix for rows and one for columns."""
    rows, columns = np.eye(height, dtype=np.float32), np.eye(width, dtype=np.float32)
    for index, step in enumerate(chain):
        tall, wide = step.matrices(len(rows), len(columns))
        rows, columns = (tall, wide) if index == 0 else (tall @ rows, wide @ columns)
    return rows, columns


def resized_otherwise(pair: Pair) -> Iterator[Candidate]:
    """B's picture from A's own (values as they are) or from an earlier one of A's (values scaled as B has them)."""
    for number, (name, source) in enumerate(sources(pair)):
        if len(source) != len(pair.b) or source[0].shape[-1] != pair.b[0].shape[-1]:
            continue
        own = number == 0
        if own and pair.same_shape and len(source) and _hardly(pair):
            continue
        finalists = best(source[0], pair.b[0], own, pair.sizes)
        how = "" if own or not pair.same_shape else _way(source[0], pair.a[0], pair.sizes)
        told = []
        for chain in finalists:
            made, rms, count = _made(chain, source, pair.b, own, pair.whole)
            told.append((rms, chain, made, count))
        least = min((rms for rms, *_ in told), default=0.0)
        for rms, chain, made, count in sorted(told, key=lambda each: each[0]):
            if rms > max(1.2 * least, least + 0.02 * count):
                continue
            cropped = any(step.crop for step in chain)
            # out of a picture in 256 steps, whoever resized may have rounded after every step
            slack = count * (0.51 + 0.51 * (len(chain) - 1) + 0.6) if _in_steps(source[0]) else 0.0
            of = "A's" if own else f"A's {name}"
            last = chain[-1].kernel
            yield Candidate(
                "crop" if cropped and len(chain) == 1 else "resize chain" if len(chain) > 1 else "interpolation",
                f"the picture is {of}, {', then '.join(map(str, chain))}; {last}: {LIBRARIES[last]}{how}",
                2 + len(chain) + cropped - (not own) * 0, lambda i, made=made: made[i], slack,
                values={"chain": [str(step) for step in chain], "kernel": last, "from": name},
            )  # fmt: skip


def _way(source: np.ndarray, a: np.ndarray, sizes: set[tuple[int, int]]) -> str:
    """How A made its own, if that can be told."""
    found = best(source, a, False, sizes)
    if not found:
        return ""
    chain = min(found, key=lambda each: (_fit(each, source, a, False)[1], len(each)))
    made, rms = _fit(chain, source, a, False)
    return f". A's own: {', then '.join(map(str, chain))}" if rms < 0.02 * made.std() else ""


def sources(pair: Pair) -> Iterator[tuple[str, list[np.ndarray]]]:
    """A's own picture first, then earlier ones, those of the same camera before others."""
    yield pair.name, pair.a
    camera = pair.name.rpartition("/")[2].rpartition(".")[2]
    seen: list[np.ndarray] = []
    for name in sorted(pair.earlier, key=lambda each: not each.endswith(camera)):
        earlier = replace(pair, name=name, a=pair.earlier[name], b=pair.earlier[name], axes=("", ""), kind="picture")
        found = earlier.pictures()
        if found and len(seen) < SOURCES and not any(np.array_equal(found.a[0], other) for other in seen):
            seen.append(found.a[0])
            yield name, found.a


def best(source: np.ndarray, b: np.ndarray, own: bool, sizes: set[tuple[int, int]]) -> list[Chain]:
    """The chains that come next to b, by a few of its rows."""
    height, width = source.shape[:2]
    tall, wide = b.shape[:2]
    fits = PADDINGS if height * wide != width * tall else PADDINGS[:1]
    square = height != width
    direct: list[Chain] = []
    if (height, width) != (tall, wide):
        direct += [(Step(tall, wide, kernel, fit),) for kernel in KERNELS for fit in fits]
    side = min(height, width)
    crops = [((height - side) // 2, (width - side) // 2, side, side)] if square else []
    for fraction in FRACTIONS:
        part = round(height * fraction), round(width * fraction)
        crops.append(((height - part[0]) // 2, (width - part[1]) // 2, *part))
    direct += [(Step(tall, wide, kernel, crop=crop),) for crop in crops for kernel in KERNELS[:6]]
    direct += [(Step(tall, wide, kernel, crop=crop),) for crop in registered(source, b) for kernel in KERNELS[:4]]
    between = {(side, side) for side in COMMON} | sizes
    between |= {(round(height * s / width), s) for s in COMMON} if square else set()
    between -= {(height, width), (tall, wide)}
    for size in between:
        middle = PADDINGS if height * size[1] != width * size[0] else PADDINGS[:1]
        direct += [(Step(*size, kernel, fit), Step(tall, wide, kernel, PADDINGS[0])) for kernel in KERNELS[:7] for fit in middle]  # fmt: skip
        if len(fits) > 1:
            direct += [(Step(*size, kernel), Step(tall, wide, kernel, fit)) for kernel in KERNELS[:4] for fit in fits[1:]]  # fmt: skip
    ranked = _ranked(direct, source, b, own)
    # two steps may have two kernels
    leaders = [chain for chain in ranked[:3] if len(chain) == 2]
    mixed = [
        (replace(chain[0], kernel=first), replace(chain[1], kernel=second))
        for chain in leaders for first in KERNELS for second in KERNELS if first != second
    ]  # fmt: skip
    return _ranked([*ranked[: 2 * FINALISTS], *mixed], source, b, own)[:FINALISTS]


def _ranked(chains: list[Chain], source: np.ndarray, b: np.ndarray, own: bool) -> list[Chain]:
    rows = np.unique(np.linspace(0.04, 0.96, LINES) * (len(b) - 1)).astype(int)
    scores: dict[Chain, float] = {}
    for chain in dict.fromkeys(chains):
        scores[chain] = _fit(chain, source, b, own, rows)[1] * (1 + 0.01 * len(chain))
    return sorted(scores, key=lambda chain: scores[chain])


def _fit(chain: Chain, source: np.ndarray, b: np.ndarray, own: bool, rows: np.ndarray | None = None) -> tuple[np.ndarray, float]:  # fmt: skip
    """What the chain makes, in b's values, and the root mean square of what is left."""
    tall, wide = operators(chain, *source.shape[:2])
    tall = tall if rows is None else tall[rows]
    target = (b if rows is None else b[rows]).astype(np.float32)
    made = applied(tall, wide, source)
    covered = np.outer(tall.sum(1), wide.sum(1))
    bordered = bool(covered.min() < 0.999)
    if own and not bordered:
        return made, float(np.sqrt(np.square(made - target).mean()))
    out = np.empty_like(made)
    for channel in range(made.shape[-1]):
        columns = [made[..., channel].ravel()] if not own else []
        columns += [covered.ravel()] if not own and bordered else []
        basis = np.stack([*columns, np.ones(covered.size) - (covered.ravel() if own else 0)], 1).astype(np.float64)
        base = made[..., channel].ravel() if own else 0
        values = target[..., channel].ravel().astype(np.float64) - base
        solved = np.linalg.lstsq(basis.T @ basis, basis.T @ values, rcond=None)[0]
        out[..., channel] = (base + basis @ solved).reshape(covered.shape)
    return out, float(np.sqrt(np.square(out - target).mean()))


def _made(chain: Chain, source: list[np.ndarray], target: list[np.ndarray], own: bool, whole: bool) -> tuple[list[np.ndarray], float, float]:  # fmt: skip
    """Of every sample; with it, what is left, and what a step of 256 is in b's values."""
    made = [_fit(chain, picture, b, own)[0] for picture, b in zip(source, target, strict=True)]
    if whole:
        made = [np.clip(np.rint(each), 0, 255) for each in made]
    rms = float(np.sqrt(np.mean([np.square(x - y.astype(np.float32)).mean() for x, y in zip(made, target, strict=True)])))  # fmt: skip
    spread = max(float(np.std(np.stack([picture.std() for picture in source]).mean())), float(source[0].std()), 1e-9)
    count = float(target[0].std()) / spread * (1.0 if float(source[0].max()) > 2 else 1 / 255)
    return made, rms, count


def _in_steps(picture: np.ndarray) -> bool:
    """Whether the values are those of 256 steps, whatever their range."""
    return len(np.unique(picture[::3, ::3].ravel()[:4096])) <= 256


def _hardly(pair: Pair) -> bool:
    """Whether what differs is too little of the picture's variance for a resize, so that only rounding is left."""
    a, b = (np.asarray(side[0], np.float32) for side in (pair.a, pair.b))
    return float(np.square(a - b).mean()) < 1e-7 * float(a.var())


def registered(source: np.ndarray, b: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Crops of the source that b may show, found by aligning both: scale and shift, to the pixel."""
    grey = [np.asarray(x, np.float32).mean(-1) for x in (source, b)]
    if min(*grey[0].shape, *grey[1].shape) < 16 or grey[0].std() == 0 or grey[1].std() == 0:
        return []
    height, width = grey[0].shape
    tall, wide = grey[1].shape
    found = []
    if tall <= height and wide <= width and (tall, wide) != (height, width):
        scores = cv2.matchTemplate(grey[0], grey[1], cv2.TM_CCOEFF_NORMED)
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores.max() > 0.98:
            return [(int(y), int(x), tall, wide)]
    template, image = ((g - g.mean()) / g.std() for g in (grey[1], grey[0]))
    for zoom in (0.9, 0.75):
        warp = np.array([[zoom * width / wide, 0, (1 - zoom) * width / 2], [0, zoom * height / tall, (1 - zoom) * height / 2]], np.float32)  # fmt: skip
        try:
            stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
            _, warp = cv2.findTransformECC(template.astype(np.float32), image.astype(np.float32), warp, cv2.MOTION_AFFINE, stop)  # fmt: skip
        except cv2.error:
            continue  # the two do not align from here; nothing is claimed
        # a pixel's centre in b, x, is warp·x in the source; edges lie half a pixel outside
        left, top = warp[0, 0] * -0.5 + warp[0, 2] + 0.5, warp[1, 1] * -0.5 + warp[1, 2] + 0.5
        part = warp[1, 1] * tall, warp[0, 0] * wide
        near = [(round(top) + y, round(left) + x, round(part[0]) + h, round(part[1]) + w) for y in (-1, 0, 1) for x in (-1, 0, 1) for h in (-1, 0, 1) for w in (-1, 0, 1)]  # fmt: skip
        found += [c for c in near if c[0] >= 0 and c[1] >= 0 and 8 <= c[2] <= height - c[0] and 8 <= c[3] <= width - c[1] and c[2:] != (height, width)]  # fmt: skip
        if found:
            break
    return found
