"""Resizing as matrices, with the arithmetic of torch, OpenCV, PIL, JAX and TensorFlow: rows of weights, of sum 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

KERNELS = (
    "bilinear", "bilinear antialiased", "bicubic", "bicubic antialiased", "area", "nearest", "lanczos antialiased",
    "nearest-exact", "area by whole pixels", "bilinear with aligned corners", "lanczos",
)  # fmt: skip
LIBRARIES = {
    "bilinear": "torch bilinear, cv2.INTER_LINEAR, tf.image.resize",
    "bilinear antialiased": "PIL BILINEAR, torchvision's antialias, jax.image.resize",
    "bicubic": "torch bicubic, cv2.INTER_CUBIC",
    "bicubic antialiased": "PIL BICUBIC, torchvision's antialias",
    "area": "cv2.INTER_AREA",
    "nearest": "torch nearest, cv2.INTER_NEAREST",
    "lanczos antialiased": "PIL LANCZOS",
    "nearest-exact": "PIL NEAREST, torch nearest-exact",
    "area by whole pixels": "torch area, adaptive average pooling",
    "bilinear with aligned corners": "torch bilinear with align_corners",
    "lanczos": "cv2.INTER_LANCZOS4",
}
"""The most usual first, and where each is found."""


@lru_cache(maxsize=4096)
def weights(size: int, out: int, kernel: str) -> np.ndarray:
    """[out, size], float32: each row makes one pixel of a line of `size`."""
    ratio = size / out
    if kernel == "nearest":
        return _chosen(size, np.floor(np.arange(out) * ratio))
    if kernel == "nearest-exact":
        return _chosen(size, np.floor((np.arange(out) + 0.5) * ratio))
    if kernel == "area" and out < size:
        return _coverage(size, np.arange(out) * ratio, np.arange(1, out + 1) * ratio)
    if kernel == "area by whole pixels":
        starts, ends = np.arange(out) * size // out, -(-np.arange(1, out + 1) * size // out)
        return _coverage(size, starts, ends)
    if kernel == "bilinear with aligned corners":
        return _taps(size, np.linspace(0, size - 1, out), 2, _triangle)
    if kernel.endswith("antialiased"):
        support, shape = {"bilinear": (1.0, _triangle), "bicubic": (2.0, _cubic(-0.5)), "lanczos": (3.0, _sinc(3))}[
            kernel.split()[0]
        ]
        return _filtered(size, out, support, shape)
    centres = (np.arange(out) + 0.5) * ratio - 0.5
    taps, shape = {"bicubic": (4, _cubic(-0.75)), "lanczos": (8, _sinc(4))}.get(kernel, (2, _triangle))
    return _taps(size, centres, taps, shape)


def resized(picture: np.ndarray, height: int, width: int, kernel: str) -> np.ndarray:
    """[H, W, C] float to [height, width, C]."""
    return applied(weights(picture.shape[0], height, kernel), weights(picture.shape[1], width, kernel), picture)


def applied(rows: np.ndarray, columns: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """rows [h, H] and columns [w, W] on a picture [H, W, C]."""
    height, width, channels = picture.shape
    lines = (rows @ picture.reshape(height, -1).astype(np.float32)).reshape(len(rows), width, channels)
    return np.matmul(columns, lines)


def _chosen(size: int, indices: np.ndarray) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[np.clip(indices.astype(int), 0, size - 1)]


def _coverage(size: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    pixels = np.arange(size)
    covered = np.clip(np.minimum(ends[:, None], pixels + 1) - np.maximum(starts[:, None], pixels), 0, 1)
    return (covered / covered.sum(1, keepdims=True)).astype(np.float32)


def _taps(size: int, centres: np.ndarray, taps: int, shape: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Beyond the edge, the edge's own pixel."""
    first = np.floor(centres).astype(int) - (taps // 2 - 1)
    matrix = np.zeros((len(centres), size))
    values = np.stack([shape(np.abs(centres - (first + tap))) for tap in range(taps)], 1)
    values /= values.sum(1, keepdims=True)
    for tap in range(taps):
        np.add.at(matrix, (np.arange(len(centres)), np.clip(first + tap, 0, size - 1)), values[:, tap])
    return matrix.astype(np.float32)


def _filtered(size: int, out: int, support: float, shape: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """PIL's: the kernel as wide as a pixel of the result, cut off at the edges."""
    ratio = size / out
    stretch = max(ratio, 1.0)
    centres = (np.arange(out)[:, None] + 0.5) * ratio
    pixels = np.arange(size)[None]
    low = np.maximum(np.floor(centres - support * stretch + 0.5), 0)
    high = np.minimum(np.floor(centres + support * stretch + 0.5), size)
    values = shape(np.abs((pixels + 0.5 - centres) / stretch)) * ((pixels >= low) & (pixels < high))
    return (values / values.sum(1, keepdims=True)).astype(np.float32)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.clip(1 - x, 0, None)


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    def shape(x: np.ndarray) -> np.ndarray:
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    return shape


def _sinc(size: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(x < size, np.sinc(x) * np.sinc(x / size), 0)
