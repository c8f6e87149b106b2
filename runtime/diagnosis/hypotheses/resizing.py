"""Ways from one picture to another of any size, stretched, padded or cropped, and how well they fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import cv2
import numpy as np

from tactus.runtime.diagnosis.hypotheses.interpolation import applied, weights

FITS = ("stretched", "padded on both sides", "padded at the left and top", "padded at the right and bottom")
Crop = tuple[int, int, int, int]
OPENCV = {
    "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST,
    "lanczos": cv2.INTER_LANCZOS4,
}  # fmt: skip
PILLOW = {"bilinear antialiased": "BILINEAR", "bicubic antialiased": "BICUBIC", "lanczos antialiased": "LANCZOS"}


@dataclass(frozen=True)
class Step:
    """To height and width with a kernel: stretched, or at its own aspect with a border. crop: top, left, height, width
    of what is taken first."""

    height: int
    width: int
    kernel: str
    fit: str = FITS[0]
    crop: Crop | None = None

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """[self.height, height] and [self.width, width]."""
        return _matrices(self, height, width)

    def inner(self, height: int, width: int) -> tuple[int, int]:
        """The size of what is not border."""
        if self.fit == FITS[0]:
            return self.height, self.width
        ratio = max(height / self.height, width / self.width)
        return max(1, int(height / ratio)), max(1, int(width / ratio))

    def __str__(self) -> str:
        cropped = (
            f"cropped to {self.crop[3]}×{self.crop[2]} at column {self.crop[1]}, row {self.crop[0]}, then "
            if self.crop
            else ""
        )
        border = "" if self.fit == FITS[0] else f", {self.fit}"
        return f"{cropped}to {self.width}×{self.height} ({self.kernel}{border})"


@lru_cache(maxsize=64)
def _matrices(step: Step, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    top, left, tall, wide = step.crop or (0, 0, height, width)
    inner = step.inner(tall, wide)
    made = []
    for at, part, size, out, full in (
        (top, tall, height, inner[0], step.height),
        (left, wide, width, inner[1], step.width),
    ):
        matrix = np.zeros((full, size), np.float32)
        before = {FITS[1]: (full - out) // 2, FITS[2]: full - out}.get(step.fit, 0)
        matrix[before : before + out, at : at + part] = weights(part, out, step.kernel)
        made.append(matrix)
    return made[0], made[1]


Chain = tuple[Step, ...]


def operators(
    chain: Chain, height: int, width: int, rows: np.ndarray | slice = np.s_[:], columns: np.ndarray | slice = np.s_[:]
) -> tuple[np.ndarray, np.ndarray]:
    """All steps as one matrix for rows and one for columns; of the result's, those rows and columns."""
    sizes = [(height, width), *((step.height, step.width) for step in chain[:-1])]
    steps = [step.matrices(*size) for step, size in zip(chain, sizes, strict=True)]
    tall, wide = steps[-1][0][rows], steps[-1][1][columns]
    for before in reversed(steps[:-1]):
        tall, wide = tall @ before[0], wide @ before[1]
    return tall, wide


def rendered(chain: Chain, picture: np.ndarray, rounded: int = 0) -> np.ndarray:
    """[H, W, C] through the chain; the first `rounded` steps in whole numbers of 0–255, as its library has them."""
    if not rounded:
        return applied(*operators(chain, *picture.shape[:2]), picture)
    for index, step in enumerate(chain):
        picture = (
            in_whole_numbers(step, picture) if index < rounded else applied(*step.matrices(*picture.shape[:2]), picture)
        )
    return picture


def in_whole_numbers(step: Step, picture: np.ndarray) -> np.ndarray:
    """As OpenCV or PIL resize uint8, which is not the rounded result of float: both compute with integers."""
    top, left, tall, wide = step.crop or (0, 0, *picture.shape[:2])
    height, width = step.inner(tall, wide)
    part = np.ascontiguousarray(picture[top : top + tall, left : left + wide].astype(np.uint8))
    if step.kernel in OPENCV:
        inner = cv2.resize(part, (width, height), interpolation=OPENCV[step.kernel]).reshape(height, width, -1)
    elif step.kernel in PILLOW and find_spec("PIL"):
        from PIL import Image

        way = Image.Resampling[PILLOW[step.kernel]]
        inner = np.stack(
            [np.asarray(Image.fromarray(part[..., c]).resize((width, height), way)) for c in range(part.shape[-1])], -1
        )
    else:
        inner = np.clip(
            np.rint(applied(weights(tall, height, step.kernel), weights(wide, width, step.kernel), part)), 0, 255
        )
    made = np.zeros((step.height, step.width, picture.shape[-1]), np.float32)
    y, x = (
        {FITS[1]: (full - out) // 2, FITS[2]: full - out}.get(step.fit, 0)
        for full, out in ((step.height, height), (step.width, width))
    )
    made[y : y + height, x : x + width] = inner
    return made


def fitted(made: np.ndarray, covered: np.ndarray, target: np.ndarray, own: bool) -> tuple[np.ndarray, float]:
    """What was made [h, w, C] in the target's values, and the root mean square of what is left.

    own: values are the target's already, only the colour of a border is not known. covered [h, w]: 0 in the border.
    """
    target = target.astype(np.float32)
    bordered = bool(covered.min() < 0.999)
    if own and not bordered:
        return made, float(np.sqrt(np.square(made - target).mean()))
    border = 1 - covered.ravel().astype(np.float64)
    out = np.empty_like(made)
    for channel in range(made.shape[-1]):
        line, values = made[..., channel].ravel().astype(np.float64), target[..., channel].ravel().astype(np.float64)
        columns = [border] if own else [line, np.ones_like(line), *([border] if bordered else [])]
        basis = np.stack(columns, 1)
        base = line if own else np.zeros_like(line)
        solved = np.linalg.lstsq(basis.T @ basis, basis.T @ (values - base), rcond=None)[0]
        out[..., channel] = (base + basis @ solved).reshape(covered.shape)
    return out, float(np.sqrt(np.square(out - target).mean()))


def whole_fit(chain: Chain, source: np.ndarray, b: np.ndarray, own: bool, rounded: int = 0) -> tuple[np.ndarray, float]:
    """The chain on all of a picture, as `fitted` has it."""
    tall, wide = operators(chain, *source.shape[:2])
    return fitted(rendered(chain, source, rounded), np.outer(tall.sum(1), wide.sum(1)), b, own)


def quick_fit(
    chain: Chain, source: np.ndarray, b: np.ndarray, own: bool, rows: np.ndarray, columns: np.ndarray
) -> float:
    """What is left in some rows and columns of b."""
    tall, wide = operators(chain, source.shape[0], source.shape[1], rows, columns)
    covered = np.outer(tall.sum(1), wide.sum(1))
    return fitted(applied(tall, wide, source), covered, b[np.ix_(rows, columns)], own)[1]
