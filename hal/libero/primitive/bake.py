"""The seen shapes of a body as one mesh a look: renderers without a GPU pay by the vertex and by the call.

MuJoCo draws a box with 400 vertices and a cylinder with 3,000, each in a call of its own; a bowl is 72 boxes.
"""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tactus.hal.libero.primitive.mjcf import element
from tactus.hal.libero.primitive.obj import UNIT_M, obj

SLICES, STACKS = 24, 10

Corner = tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]
"""Position, normal and texture coordinates, in the shape's own frame."""


def box(size: np.ndarray) -> list[list[Corner]]:
    """Six faces, each with the whole picture."""
    polygons = []
    for axis in range(3):
        s, t = [other for other in range(3) if other != axis]
        for side in (1, -1):
            corners = []
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
                place, normal = np.zeros(3), np.zeros(3)
                place[axis], place[s], place[t] = side, 2 * u - 1, 2 * v - 1
                normal[axis] = side
                corners.append((tuple(place * size), tuple(normal), (u, v)))
            inwards = (axis == 1) != (side < 0)  # s, t and axis are right-handed for x and z
            polygons.append(corners[::-1] if inwards else corners)
    return polygons


def revolved(profile: list[tuple[float, float, float, float]]) -> list[list[Corner]]:
    """A profile turned about z, upwards. profile: radius, height, and the normal's two parts, of each of its points;
    two points in one place make an edge."""
    polygons = []
    for slice_ in range(SLICES):
        angles = [2 * math.pi * (slice_ + step) / SLICES for step in (0, 1)]
        for (low, bottom, out, up), (high, top, out_top, up_top) in itertools.pairwise(profile):
            if math.hypot(high - low, top - bottom) < 1e-9:
                continue
            ring = [(angles[0], low, bottom, out, up), (angles[1], low, bottom, out, up)] if low else []
            ring = ring or [(sum(angles) / 2, low, bottom, out, up)]
            rim = [(angles[1], high, top, out_top, up_top), (angles[0], high, top, out_top, up_top)] if high else []
            ring += rim or [(sum(angles) / 2, high, top, out_top, up_top)]
            polygons.append([_turned(*point) for point in ring])
    return polygons


def _turned(angle: float, radius: float, height: float, out: float, up: float) -> Corner:
    x, y = math.cos(angle), math.sin(angle)
    return (radius * x, radius * y, height), (out * x, out * y, up), (angle / 2 / math.pi, 0.5)


def cylinder(size: np.ndarray) -> list[list[Corner]]:
    radius, half = float(size[0]), float(size[1])
    bottom, top = [(0, -half, 0, -1), (radius, -half, 0, -1)], [(radius, half, 0, 1), (0, half, 0, 1)]
    return revolved([*bottom, (radius, -half, 1, 0), (radius, half, 1, 0), *top])


def capsule(size: np.ndarray) -> list[list[Corner]]:
    radius, half = float(size[0]), float(size[1])
    profile = []
    for step in range(STACKS + 1):
        angle = math.pi * (step / STACKS - 0.5)
        out, up = (0.0 if step in (0, STACKS) else math.cos(angle)), math.sin(angle)
        ends = (-half, half) if 2 * step == STACKS else (math.copysign(half, up),)
        profile += [(radius * out, radius * up + end, out, up) for end in ends]
    return revolved(profile)


def ellipsoid(size: np.ndarray) -> list[list[Corner]]:
    ball = capsule(np.array([1.0, 0.0]))
    return [
        [(tuple(np.array(place) * size), tuple(np.array(normal) / size), uv) for place, normal, uv in polygon]
        for polygon in ball
    ]


KINDS = {"box": box, "cylinder": cylinder, "capsule": capsule, "ellipsoid": ellipsoid}


def bake(root: ET.Element, folder: Path) -> None:
    """Replace the seen shapes of a document by meshes, written to `folder`.

    A shape with a label, a picture for each of its sides, stays as it is; so does what has a name.
    """
    asset = root.find("asset")
    assert asset is not None
    files = {texture.get("name"): texture.attrib["file"] for texture in asset.iterfind("texture")}
    strips = {texture.get("name") for texture in asset.iterfind("texture") if texture.get("gridlayout")}
    labels = {material.attrib["name"] for material in asset.iterfind("material") if material.get("texture") in strips}
    looks: dict[str, str] = {}
    count = 0
    for body in list(root.iter("body")):
        groups: dict[tuple[str | None, str | None], list[ET.Element]] = {}
        for geom in body.findall("geom"):
            shape = geom.get("group") == "1" and geom.get("contype") == "0" and geom.get("type") in KINDS
            if shape and not geom.get("name") and geom.get("material") not in labels:
                groups.setdefault((geom.get("rgba"), geom.get("material")), []).append(geom)
        for (rgba, material), geoms in groups.items():
            name = f"{root.attrib['model']}_look_{count}"
            count += 1
            (folder / f"{name}.obj").write_text(_obj(geoms), encoding="utf-8")
            asset.append(element("mesh", name=name, file=f"{name}.obj", scale=(UNIT_M,) * 3))
            if material and material not in looks:
                looks[material] = _flat(asset, material, files)
            seen = {"group": 1, "contype": 0, "conaffinity": 0, "mass": 0}
            mesh = element("geom", type="mesh", mesh=name, rgba=rgba, material=looks.get(material or ""), **seen)
            body.insert(list(body).index(geoms[0]), mesh)
            for geom in geoms:
                body.remove(geom)


def _flat(asset: ET.Element, material: str, files: dict[str | None, str]) -> str:
    """The same material with its texture as a picture for coordinates, not as a cube around the shape."""
    [found] = [entry for entry in asset.iterfind("material") if entry.get("name") == material]
    name = f"{material}_flat"
    asset.append(element("texture", name=f"tex-{name}", type="2d", file=files[found.get("texture")]))
    asset.append(ET.Element("material", {**found.attrib, "name": name, "texture": f"tex-{name}"}))
    return name


def _obj(geoms: Iterable[ET.Element]) -> str:
    """Wavefront OBJ of shapes in the frame of their body."""
    points, pictures, normals, faces = [], [], [], []
    for geom in geoms:
        size = np.array([float(part) for part in geom.attrib["size"].split()])
        at = np.array([float(part) for part in geom.get("pos", "0 0 0").split()])
        turn = _matrix([float(part) for part in geom.get("quat", "1 0 0 0").split()])
        for polygon in KINDS[geom.attrib["type"]](size):
            faces.append(range(len(points), len(points) + len(polygon)))
            points += [turn @ np.array(place) + at for place, _, _ in polygon]
            normals += [turn @ np.array(normal) for _, normal, _ in polygon]
            pictures += [picture for _, _, picture in polygon]
    return obj(np.array(points), np.array(normals), faces, np.array(pictures))


def _matrix(quaternion: list[float]) -> np.ndarray:
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
