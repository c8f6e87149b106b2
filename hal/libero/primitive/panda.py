"""LIBERO's Panda with a tenth of the faces: robosuite's own visual meshes, simplified, a mesh a body and colour.

Renderers without a GPU pay by the vertex, and nine tenths of the vertices of a scene are the robot's. Only seen
geoms are replaced: they neither touch nor weigh, so that the physics stays what it is, to the last bit.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.libero.primitive.mjcf import element, serialize
from tactus.hal.libero.primitive.obj import UNIT_M, obj
from tactus.hal.libero.primitive.simplify import read, seen, simplify

MODELS = {"robots/panda/robot.xml": 10, "grippers/panda_gripper.xml": 4, "mounts/rethink_mount.xml": 10}
"""robosuite's models of the robot, within its assets, and how many of their faces become one: few of the hand's, which
is what both cameras see from nearest."""

LOOKS = "robosuite"
"""The folder of the pack in which what replaces a model's looks lies, under the model's own path."""

FEW_FACES = 300
"""What no mesh is simplified below: a lamp, a finger, which the camera at the wrist sees from near."""

ROBOSUITE = importlib.metadata.version("robosuite") if importlib.util.find_spec("robosuite") else "none"
"""The version whose meshes are simplified."""


def write_looks(directory: Path) -> None:
    """Write the looks of MODELS into a pack. Raises OSError if robosuite's files are not there."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("robosuite is not installed, whose Panda the pack is made from")
    assets = Path(next(iter(spec.submodule_search_locations))) / "models" / "assets"
    for name, share in MODELS.items():
        place = directory / LOOKS / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(serialize(_looks(assets / name, place.parent, share)), encoding="utf-8")


def _seen(body: ET.Element) -> list[ET.Element]:
    """The visual meshes of a body, by the figures that make them so."""
    marks = {"type": "mesh", "group": "1", "contype": "0", "conaffinity": "0"}
    return [geom for geom in body.findall("geom") if marks.items() <= geom.attrib.items()]


def _looks(model: Path, folder: Path, share: int) -> ET.Element:
    """A document of the bodies' new geoms, its meshes written to `folder`."""
    root = ET.parse(model).getroot()
    files = {mesh.attrib["name"]: model.parent / mesh.attrib["file"] for mesh in root.iterfind("asset/mesh")}
    colours = {material.attrib["name"]: material.attrib["rgba"] for material in root.iterfind("asset/material")}
    meshes, bodies = [], []
    for body in root.iter("body"):
        replaced = _seen(body)
        if not replaced:
            continue
        shapes = [read(files[geom.attrib["mesh"]]) for geom in replaced]
        ends = np.cumsum([len(corners) for corners, _ in shapes])
        outer = np.split(seen(np.concatenate([corners for corners, _ in shapes])), ends[:-1])
        groups: dict[tuple[str | None, ...], list[int]] = {}
        for index, geom in enumerate(replaced):
            rgba = geom.get("rgba") or colours[geom.attrib["material"]]
            colour = " ".join(f"{float(part):.2g}" for part in rgba.split())
            groups.setdefault((colour, geom.get("pos"), geom.get("quat")), []).append(index)
        geoms = []
        for (colour, at, turned), parts in groups.items():
            corners, normals = (np.concatenate([shapes[i][side][outer[i]] for i in parts]) for side in (0, 1))
            if not len(corners):
                continue
            count = sum(len(outer[i]) for i in parts)
            mesh = f"{body.attrib['name']}_look_{len(geoms)}"
            points, ways = (part.reshape(-1, 3) for part in simplify(corners, normals, max(count // share, FEW_FACES)))
            content = obj(points, ways, np.arange(len(points)).reshape(-1, 3))
            (folder / f"{mesh}.obj").write_text(content, encoding="utf-8")
            meshes.append(element("mesh", name=mesh, file=f"{mesh}.obj", scale=(UNIT_M,) * 3))
            named = replaced[parts[0]].get("name") if len(parts) == 1 else None
            marks = {"type": "mesh", "group": 1, "contype": 0, "conaffinity": 0, "pos": at, "quat": turned}
            geoms.append(element("geom", name=named, mesh=mesh, rgba=colour, **marks))
        bodies.append(element("body", *geoms, name=body.attrib["name"]))
    return element("mujoco", element("asset", *meshes), element("worldbody", *bodies), model=f"{model.stem}_looks")


def dress(root: ET.Element, looks: Path) -> None:
    """Replace the visual meshes of a robosuite model by those of the document `looks`."""
    found = ET.parse(looks).getroot()
    bodies = {body.attrib["name"]: body for body in root.iter("body")}
    gone = set()
    for look in found.iterfind("worldbody/body"):
        body = bodies[look.attrib["name"]]
        replaced = _seen(body)
        place = list(body).index(replaced[0])
        for geom in replaced:
            gone.add(geom.attrib["mesh"])
            body.remove(geom)
        for geom in reversed(look.findall("geom")):
            body.insert(place, geom)
    asset = root.find("asset")
    assert asset is not None
    for mesh in asset.findall("mesh"):
        if mesh.attrib["name"] in gone:
            asset.remove(mesh)
    for mesh in found.iterfind("asset/mesh"):
        asset.append(ET.Element("mesh", {**mesh.attrib, "file": str(looks.parent / mesh.attrib["file"])}))


def wear(directory: Path, xml_class: Any) -> None:
    """From now on robosuite's models of the robot look as the pack in `directory` has it.

    xml_class: robosuite's MujocoXML, which every model is read by.
    """
    read_model = xml_class.__init__

    @functools.wraps(read_model)
    def dressed(self: Any, fname: str) -> None:
        read_model(self, fname)
        for name in MODELS:
            if Path(fname).as_posix().endswith(f"/assets/{name}"):
                dress(self.root, directory / LOOKS / name)

    xml_class.__init__ = dressed
