"""Triangle meshes with fewer faces: vertices that lie close together and face the same way become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VIEWS = 32
PIXELS = 80
FACING = 0.5
"""The least cosine between a face's normal and the way to who sees it: a slit's sides are seen by nobody."""


def read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Corners float64[m, 3, 3] of the faces of a Wavefront OBJ of triangles or a binary STL, and normals of each."""
    content = file.read_bytes()
    if file.suffix == ".stl":
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("_", "<u2")])
        corners = np.frombuffer(content, record, offset=84)["corners"].astype(np.float64)
        return corners, np.repeat(_unit(_across(corners))[:, None], 3, axis=1)
    lines = [line.split() for line in content.decode().splitlines()]
    points, normals = (np.array([line[1:4] for line in lines if line and line[0] == tag], float) for tag in ("v", "vn"))
    index = np.array([[corner.split("/") for corner in line[1:]] for line in lines if line and line[0] == "f"], int) - 1
    return points[index[..., 0]], normals[index[..., 2]]


def seen(corners: np.ndarray) -> np.ndarray:
    """bool[m]: the faces of a body that are seen from outside, from any of VIEWS directions.

    Each view is a depth buffer, PIXELS wide, into which points of the faces fall, closer than the pixels.
    """
    across, found = _across(corners), np.zeros(len(corners), bool)
    plane = _unit(across)
    wide = np.ptp(corners.reshape(-1, 3), axis=0).max() / PIXELS
    many = np.ceil(np.linalg.norm(across, axis=1) / wide**2).astype(int)
    owner = np.repeat(np.arange(len(corners)), many)
    spread = (np.arange(len(owner))[:, None] * (0.7548776662466927, 0.5698402909980532) + 0.5) % 1  # evenly
    spread = np.where((spread.sum(axis=1) > 1)[:, None], 1 - spread, spread)
    shares = np.column_stack([spread, 1 - spread.sum(axis=1)])
    points = np.einsum("ni,nij->nj", shares, corners[owner])
    for view in _directions(VIEWS):
        right = np.cross(view, np.eye(3)[np.abs(view).argmin()])
        right /= np.linalg.norm(right)
        spots = np.floor(points @ np.column_stack([right, np.cross(view, right)]) / wide).astype(int)
        spots -= spots.min(axis=0)
        pixel = spots[:, 0] * (spots[:, 1].max() + 1) + spots[:, 1]
        depth = points @ view
        nearest = np.full(pixel.max() + 1, -np.inf)
        np.maximum.at(nearest, pixel, depth)
        in_front = (depth > nearest[pixel] - wide / 2) & (plane @ view > FACING)[owner]
        found[owner[in_front]] = True
    return found


def _directions(count: int) -> np.ndarray:
    """float64[count, 3]: unit vectors spread over the sphere, along Fibonacci's spiral."""
    index = np.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z * z)
    return np.column_stack([radius * np.cos(turn), radius * np.sin(turn), z])


def simplify(corners: np.ndarray, normals: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` faces for those that `read` gave, in the same form."""
    cell = np.sqrt(np.linalg.norm(_across(corners), axis=1).sum() / limit)
    # A point of several faces stays one, so that no crack opens at an edge: it faces where they do on the whole.
    _, welded = np.unique(np.round(corners.reshape(-1, 3) * 1e6).astype(np.int64), axis=0, return_inverse=True)
    while len((found := _merged(corners, normals, welded.reshape(-1), cell))[0]) > limit:
        cell *= max(1.02, np.sqrt(len(found[0]) / limit))
    return found


def _merged(corners: np.ndarray, normals: np.ndarray, welded: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Merge what lies in one cell of a grid and faces the same of six ways, at the point that its planes agree on."""
    points, ways = corners.reshape(-1, 3), normals.reshape(-1, 3)
    across = np.repeat(_across(corners), 3, axis=0)
    area = np.linalg.norm(across, axis=1) + 1e-12
    plane = across / area[:, None]
    grid = np.floor((points - points.min(axis=0)) / cell).astype(np.int64)
    key = np.ravel_multi_index((*grid.T, _side(_total(across, welded))[welded]), (*(grid.max(axis=0) + 1), 6))
    _, index = np.unique(key, return_inverse=True)
    weight = _total(area, index)
    mean = _total(points * area[:, None], index) / weight
    # The point with the least squared distance to all planes, drawn a little to the mean where they leave it free.
    square = _total(plane[:, :, None] * plane[:, None, :] * area[:, None, None], index) / weight
    level = _total(plane * (np.einsum("ij,ij->i", plane, points - mean[index]) * area)[:, None], index) / weight
    best = mean + np.linalg.solve(square.reshape(-1, 3, 3) + 0.05 * np.eye(3), level[..., None])[..., 0]
    best = np.clip(best, mean - cell / 2, mean + cell / 2)
    _, shaded = np.unique(index * 6 + _side(ways), return_inverse=True)  # an edge stays sharp to the light
    faces = np.stack([index, shaded], axis=1).reshape(-1, 3, 2)
    faces = faces[(faces[..., 0] != np.roll(faces[..., 0], 1, axis=1)).all(axis=1)]
    turn = (np.arange(3) + faces[..., 0].argmin(axis=1)[:, None]) % 3
    faces = np.take_along_axis(faces, turn[..., None], axis=1)
    _, once = np.unique(faces[..., 0], axis=0, return_index=True)
    faces = faces[once]
    return best[faces[..., 0]], _unit(_total(ways * area[:, None], shaded))[faces[..., 1]]


def _side(ways: np.ndarray) -> np.ndarray:
    """int[n], 0 to 5: the axis that each of float64[n, 3] goes along most, and which way."""
    axis = np.abs(ways).argmax(axis=1)
    return axis * 2 + (np.take_along_axis(ways, axis[:, None], 1)[:, 0] > 0)


def _total(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """float64[index.max() + 1, columns]: sums of the rows of each index."""
    return np.stack([np.bincount(index, column) for column in values.reshape(len(values), -1).T], axis=1)


def _across(corners: np.ndarray) -> np.ndarray:
    """Normals of the faces, as long as twice their areas."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
