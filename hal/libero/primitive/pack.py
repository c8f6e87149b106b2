"""A stand-in for LIBERO's assets, generated in a few seconds, so that LIBERO runs without them or the hub.

Physics is LIBERO's: joints, sites, collision boxes, masses and contact constants carry its figures, so that
its initial states, goals and grasps hold. Looks are ours: shapes, drawn textures, and robosuite's robot with a tenth
of its faces. A success rate measured on this pack is therefore not comparable with one measured on LIBERO's own
pixels.
"""

import hashlib
from pathlib import Path

from tactus.hal.libero.primitive.bake import bake
from tactus.hal.libero.primitive.fixtures import fixture_documents
from tactus.hal.libero.primitive.mjcf import serialize
from tactus.hal.libero.primitive.objects import object_documents
from tactus.hal.libero.primitive.panda import ROBOSUITE, write_looks
from tactus.hal.libero.primitive.scenes import scene_documents
from tactus.hal.libero.primitive.textures import TEXTURES, png

SOURCES = sorted(Path(__file__).parent.glob("*.py"))
PACK_VERSION = hashlib.sha256(b"".join(file.read_bytes() for file in SOURCES) + ROBOSUITE.encode()).hexdigest()[:12]
"""Of the code that draws the pack and of the robosuite whose robot it simplifies, so that a cached pack of others is
not taken for it."""

COVERED_SUITES = ("libero_object", "libero_spatial", "libero_goal")
"""Suites whose every task finds all its assets in the pack."""


def write_pack(directory: Path, fast: bool = True) -> None:
    """Write the pack in the layout of LIBERO's assets folder, the same bytes every time.

    fast: seen shapes as meshes, and the robot's own simplified; without it each shape by itself, and robosuite's robot.
    Raises OSError if a file cannot be written, or robosuite's not be read.
    """
    for name, root in {**object_documents(), **fixture_documents(), **scene_documents()}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if fast and not name.startswith("scenes/"):  # LIBERO resizes a scene's shapes by their names
            bake(root, path.parent)
        path.write_text(serialize(root), encoding="utf-8")
    (directory / "textures").mkdir(parents=True, exist_ok=True)
    for name, draw in TEXTURES.items():
        (directory / "textures" / name).write_bytes(png(draw()))
    if fast:
        write_looks(directory)
