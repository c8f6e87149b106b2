"""Meshes as Wavefront OBJ, in few bytes."""

from collections.abc import Iterable, Sequence

import numpy as np

UNIT_M = 0.00005
"""Of the coordinates, which are written as whole numbers: a mesh that names the file has this for its scale."""


def obj(
    points: np.ndarray, normals: np.ndarray, faces: Iterable[Sequence[int]], pictures: np.ndarray | None = None
) -> str:
    """The text of a file. points: float64[n, 3] in m; normals: float64[n, 3]; pictures: float64[n, 2], texture
    coordinates from 0 to 1; faces: corners, as indices of all of these, seen anticlockwise."""
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    columns = {"v": np.round(points / UNIT_M).astype(int), "vn": np.round(unit, 2) + 0.0}
    if pictures is not None:
        columns = {"v": columns["v"], "vt": np.round(pictures, 2) + 0.0, "vn": columns["vn"]}
    lines, indices = [], []
    for tag, values in columns.items():
        once, index = np.unique(values, axis=0, return_inverse=True)
        lines += [f"{tag} " + " ".join(f"{part:g}" for part in row) for row in once]
        indices.append([str(number + 1) for number in index.reshape(-1)])
    between = "//" if pictures is None else "/"
    corners = [between.join(parts) for parts in zip(*indices, strict=True)]
    lines += ["f " + " ".join(corners[corner] for corner in face) for face in faces]
    return "\n".join(lines) + "\n"
