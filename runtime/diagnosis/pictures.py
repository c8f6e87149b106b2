"""Compares a camera's pictures with those of a dataset: light, sharpness, and whether one is the other turned over.

Likeness is the correlation of two pictures shrunk to SIZE², colours and all: 1 for the same, 0 for unrelated ones. A
camera's likeness to a dataset is that of its pictures to the most alike of the dataset's, on average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

SIZE = 24

TURNS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda picture: picture[::-1],
    "left and right exchanged": lambda picture: picture[:, ::-1],
    "turned by 180 degrees": lambda picture: picture[::-1, ::-1],
    "red and blue exchanged (BGR)": lambda picture: picture[..., ::-1],
    "negative": lambda picture: 255 - picture,
}


class Light(NamedTuple):
    """brightness, contrast: mean and standard deviation in grey levels. sharpness: variance of the Laplacian."""

    brightness: float
    contrast: float
    sharpness: float


def light(picture: np.ndarray) -> Light:
    """Of uint8[H, W, 3]."""
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    return Light(float(grey.mean()), float(grey.std()), float(cv2.Laplacian(grey, cv2.CV_64F).var()))


def likeness(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Of some pictures to others, -1 to 1; 0 where one has no contrast at all."""
    if not ours or not theirs:
        return 0.0
    others = [_shrunk(picture) for picture in theirs]
    return float(np.mean([max(float(_shrunk(picture) @ other) for other in others) for picture in ours]))


def turns(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> dict[str, float]:
    """Likeness as it is ("") and under each of TURNS."""
    found = {"": likeness(ours, theirs)}
    return found | {name: likeness([turn(picture) for picture in ours], theirs) for name, turn in TURNS.items()}


def _shrunk(picture: np.ndarray) -> np.ndarray:
    small = cv2.resize(np.ascontiguousarray(picture), (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(float)
    flat = small.ravel() - small.mean()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 1e-6 else flat * 0
