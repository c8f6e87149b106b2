"""LIBERO's wooden cabinet and flat stove: its bodies, joints and regions, dressed in primitives."""

import math
import xml.etree.ElementTree as ET

from tactus.hal.libero.primitive.collision import COLLISION, Box
from tactus.hal.libero.primitive.mjcf import (
    Shape,
    box,
    collision,
    disc,
    document,
    element,
    region,
    ring,
    turn,
    visual,
)
from tactus.hal.libero.primitive.objects import material

FIXTURE_EXTENT = (-0.045, 0.045, 0.045)

# How far a drawer's tray and handle lie below the top drawer's, and its region's height (metres).
DRAWERS = {
    "top": (0.0, 0.0, 0.18563),
    "middle": (0.06971, 0.07352, 0.1169),
    "bottom": (0.13833, 0.14279, 0.04701),
}


def heavy_part(joint: ET.Element) -> list[ET.Element]:
    """A moving part with LIBERO's stated inertia: 3 kg, 1 kg m^2, so that drawers and knob do not swing."""
    return [element("inertial", pos=(0, 0, 0), mass=3, diaginertia=(1, 1, 1)), joint]


def _lowered(boxes: list[Box], drop: float) -> list[Box]:
    return [((x, y, z - drop), turned, size) for (x, y, z), turned, size in boxes]


def _drawer(name: str) -> ET.Element:
    drop, handle_drop, region_height = DRAWERS[name]
    tray = _lowered(COLLISION["wooden_cabinet.drawer"], drop)
    handle = _lowered(COLLISION["wooden_cabinet.handle"], handle_drop)
    sideways = turn((0, 1, 0), math.pi / 2)
    shapes = [box(at, size, "drawer_wood", turned) for at, turned, size in tray]
    shapes.append(Shape("capsule", handle[0][0], (0.0065, 0.04), "metal", sideways))
    shapes += [box(at, (0.004, 0.0105, 0.004), "metal") for at, *_ in handle[1:]]
    travel = {"axis": (0, 1, 0), "limited": True, "range": (-0.16, 0.01), "damping": 50}
    slide = element("joint", name=f"{name}_level", type="slide", **travel)
    inside = region(
        f"{name}_region",
        (0.00328, 0.01128, region_height),
        (0.02993, 0.07561, 0.10224),
        sideways,
    )
    parts = [*heavy_part(slide), inside, *visual(shapes), *collision(tray + handle)]
    return element("body", *parts, name=f"cabinet_{name}")


def wooden_cabinet() -> ET.Element:
    """Three drawers in a case 255 mm wide, 190 mm deep and 222 mm tall."""
    wood = "cabinet_wood"
    case = [
        box((-0.1155, 0.0163, 0.1125), (0.0075, 0.0945, 0.107), wood),
        box((0.1235, 0.0163, 0.1125), (0.0075, 0.0945, 0.107), wood),
        box((0.004, 0.1093, 0.1125), (0.112, 0.0024, 0.107), wood),
        box((0.004, 0.0158, 0.2205), (0.1275, 0.0945, 0.0018), wood),
        box((0.004, 0.0163, 0.0069), (0.112, 0.0945, 0.0022), wood),
        *(box((0.004, 0.0187, z), (0.112, 0.0893, 0.0009), wood) for z in (0.0793, 0.1494)),
    ]
    base = element(
        "body",
        region("top_side", (0.00354, 0.01567, 0.22152), (0.12534, 0.09438, 0.00147)),
        *visual(case),
        *collision(COLLISION["wooden_cabinet.base"]),
        *(_drawer(name) for name in DRAWERS),
        name="base",
    )
    assets = [part for look in (wood, "drawer_wood", "metal") for part in material(look, depth=1)]
    return document("wooden_cabinet", assets, element("body", base, name="object"), FIXTURE_EXTENT)


def _burner() -> ET.Element:
    iron, steel = (0.12, 0.12, 0.13), (0.45, 0.45, 0.47)
    shapes = [disc(0.0195, 0.0212, 0.074, steel), disc(0.0195, 0.0215, 0.066, (0.2, 0.2, 0.21))]
    for radius in (0.024, 0.042, 0.06):
        shapes += ring(20, (radius - 0.0035, 0.0238), (radius + 0.0035, 0.0238), 0.0036, iron)
    red = (0.9, 0.05, 0.05, 1)
    plate_size, cover_size = (0.095, 0.095, 0.02), (0.095, 0.095, 0.0005)
    return element(
        "body",
        region("cook_region", (0, 0, 0), (0.075, 0.075, 0.0025)),
        # LIBERO's seen plate collides too, so that a pan rests on two coincident boxes; both are kept.
        element("geom", name="base_vis", type="box", size=plate_size, group=1, material="metal"),
        element("geom", name="base", type="box", size=plate_size, group=0),
        element("geom", name="collision_burner", type="box", pos=(0, 0, 0.025), size=cover_size, group=0),
        element("body", *visual(shapes), name="burner_plate"),
        # The red glow: LIBERO shows this site when the knob is past 0.5 rad and hides it otherwise.
        element("site", name="burner", type="cylinder", pos=(0, 0, 0.022), size=(0.0625, 0.0005), rgba=red),
        name="burner",
        pos=(0.15, 0, 0),
    )


def _knob() -> ET.Element:
    dark = (0.13, 0.13, 0.14)
    shapes = [
        disc(0.0004, 0.0128, 0.045, dark, x=0.0013, y=0.0045),
        disc(0.0128, 0.0137, 0.04, (0.3, 0.3, 0.32), x=0.0013, y=0.0045),
        box((0.0013, 0.0035, 0.025), (0.012, 0.037, 0.012), dark),
        box((0.0013, 0.025, 0.0372), (0.0025, 0.0155, 0.0009), (0.92, 0.92, 0.9)),
    ]
    hinge = element("joint", name="button", type="hinge", axis=(0, 0, 1), limited=True, range=(-0.005, 2.1), damping=1)
    parts = [*heavy_part(hinge), *visual(shapes), *collision(COLLISION["flat_stove.button"])]
    return element("body", *parts, name="button", quat=turn((0, 0, 1), math.pi / 2))


def flat_stove() -> ET.Element:
    """A hot plate 190 mm square and a knob 90 mm across beside it."""
    base = element("body", _burner(), _knob(), name="base")
    body = element("body", base, name="object")
    return document("flat_stove", material("metal", depth=1), body, FIXTURE_EXTENT)


def fixture_documents() -> dict[str, ET.Element]:
    """Every fixture's model, by its path within the pack."""
    return {f"articulated_objects/{make.__name__}.xml": make() for make in (wooden_cabinet, flat_stove)}
