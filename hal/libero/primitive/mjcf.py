"""Shapes and MJCF elements as robosuite reads them: group 0 collides unseen, group 1 is seen, weightless."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tactus.hal.libero.primitive.collision import Box

Colour = tuple[float, float, float]

# LIBERO's contact constants: stiff (1 ms) contacts, and a density that keeps every object under 0.1 kg.
CONTACT = {
    "solimp": (0.998, 0.998, 0.001),
    "solref": (0.001, 1),
    "density": 100,
    "friction": (0.95, 0.3, 0.1),
}


@dataclass(frozen=True)
class Shape:
    """A seen primitive: centre and half sizes (m), quaternion (w x y z), `look` an rgb or a material name."""

    kind: str
    position: tuple[float, ...]
    size: tuple[float, ...]
    look: Colour | str
    quaternion: tuple[float, ...] = (1, 0, 0, 0)


def box(position, half_size, look, quaternion=(1, 0, 0, 0)) -> Shape:
    return Shape("box", position, half_size, look, quaternion)


def ellipsoid(position, semi_axes, look) -> Shape:
    return Shape("ellipsoid", position, semi_axes, look)


def disc(bottom: float, top: float, radius: float, look, x: float = 0.0, y: float = 0.0) -> Shape:
    """An upright cylinder between two heights."""
    return Shape("cylinder", (x, y, (bottom + top) / 2), (radius, (top - bottom) / 2), look)


def turn(axis: Sequence[float], angle_rad: float) -> tuple[float, ...]:
    """The quaternion of a turn about a unit axis."""
    sine = math.sin(angle_rad / 2)
    return (math.cos(angle_rad / 2), *(sine * part for part in axis))


def compose(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    """Quaternion product: `second` is applied in the frame that `first` made."""
    w, x, y, z = first
    a, b, c, d = second
    return (
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    )


def ring(count: int, inner, outer, thickness: float, look, y: float = 0.0) -> list[Shape]:
    """A cone, tube or rim of `count` slabs between the points (radius, height) `inner` and `outer`."""
    run, rise = outer[0] - inner[0], outer[1] - inner[1]
    radius, height = (inner[0] + outer[0]) / 2, (inner[1] + outer[1]) / 2
    half_width = max(inner[0], outer[0]) * math.tan(math.pi / count)
    size = (math.hypot(run, rise) / 2, half_width, thickness / 2)
    shapes = []
    for index in range(count):
        angle = 2 * math.pi * index / count
        tilted = compose(turn((0, 0, 1), angle), turn((0, 1, 0), -math.atan2(rise, run)))
        centre = (radius * math.cos(angle), y + radius * math.sin(angle), height)
        shapes.append(box(centre, size, look, tilted))
    return shapes


def stadium(bottom: float, top: float, half_width: float, half_depth: float, look) -> list[Shape]:
    """A flat bottle's body: two upright cylinders and the box between them, wide along x."""
    offset, height = half_width - half_depth, (top - bottom) / 2
    return [
        disc(bottom, top, half_depth, look, x=-offset),
        disc(bottom, top, half_depth, look, x=offset),
        box((0, 0, (bottom + top) / 2), (offset, half_depth, height), look),
    ]


def lay_on_y(shapes: Iterable[Shape]) -> list[Shape]:
    """Shapes drawn upright along z, in the frame of LIBERO's groceries, whose height runs along y.

    A box that stands straight swaps its sizes and is not turned, so that a cube texture stays upright.
    """
    laid = []
    for shape in shapes:
        x, y, z = shape.position
        shape = replace(shape, position=(x, z, -y))
        if shape.kind in ("box", "ellipsoid") and shape.quaternion == (1, 0, 0, 0):
            width, depth, height = shape.size
            laid.append(replace(shape, size=(width, height, depth)))
        else:
            turned = compose(turn((1, 0, 0), -math.pi / 2), shape.quaternion)
            laid.append(replace(shape, quaternion=turned))
    return laid


def text(value) -> str:
    """An MJCF attribute value: numbers to 6 decimals, without trailing zeros or a negative zero."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{round(float(value), 6) + 0.0:.10g}"
    return " ".join(text(part) for part in value)


def element(tag: str, *children: ET.Element, **attributes) -> ET.Element:
    """An MJCF element; attributes that are None are left out."""
    made = ET.Element(tag, {name: text(value) for name, value in attributes.items() if value is not None})
    made.extend(children)
    return made


def collision(boxes: Iterable[Box]) -> list[ET.Element]:
    """Geoms that touch and weigh and are not seen."""
    unseen = {"group": 0, "rgba": (0, 0, 0, 0), **CONTACT}
    return [element("geom", type="box", pos=at, quat=turned, size=size, **unseen) for at, turned, size in boxes]


def visual(shapes: Iterable[Shape]) -> list[ET.Element]:
    """Geoms that are seen and neither touch nor weigh."""
    geoms = []
    for shape in shapes:
        look = {"material": shape.look} if isinstance(shape.look, str) else {"rgba": (*shape.look, 1)}
        quaternion = None if shape.quaternion == (1, 0, 0, 0) else shape.quaternion
        geoms.append(
            element(
                "geom",
                type=shape.kind,
                pos=shape.position,
                quat=quaternion,
                size=shape.size,
                group=1,
                contype=0,
                conaffinity=0,
                mass=0,
                **look,
            )
        )
    return geoms


def region(name: str, position, half_size, quaternion=(1, 0, 0, 0)) -> ET.Element:
    """The unseen box site that On and In of the BDDL goals measure against."""
    return element("site", name=name, type="box", pos=position, quat=quaternion, size=half_size, rgba=(0, 0, 0, 0))


def document(name: str, assets: Iterable[ET.Element], body: ET.Element, extent) -> ET.Element:
    """A model robosuite loads as one object: `extent` is (bottom z, top z, horizontal radius) in metres.

    The extent places objects on each other at reset; it is LIBERO's figure, not the object's true size.
    """
    bottom, top, radius = extent
    marks = {
        "bottom_site": (0, 0, bottom),
        "top_site": (0, 0, top),
        "horizontal_radius_site": (radius, radius, 0),
    }
    sites = [element("site", name=mark, pos=at, size=0.005, rgba=(0, 0, 0, 0)) for mark, at in marks.items()]
    asset = element("asset", *assets)
    return element("mujoco", asset, element("worldbody", element("body", body, *sites)), model=name)


def serialize(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
