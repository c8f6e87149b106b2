"""What LIBERO's movable objects look like, in primitives fitted to their collision boxes (metres, rgb)."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace

from tactus.hal.libero.primitive.collision import COLLISION
from tactus.hal.libero.primitive.mjcf import (
    Colour,
    Shape,
    box,
    collision,
    compose,
    disc,
    document,
    element,
    ellipsoid,
    lay_on_y,
    region,
    ring,
    stadium,
    turn,
    visual,
)
from tactus.hal.libero.primitive.textures import CUBE_STRIPS

WHITE: Colour = (0.93, 0.93, 0.91)
TIN: Colour = (0.68, 0.69, 0.71)

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Grocery:
    """One object: its folder among LIBERO's assets, its looks, and its extent (bottom z, top z, radius)."""

    folder: str
    shapes: list[Shape]
    extent: tuple[float, float, float] = (-0.06, 0.04, 0.025)
    regions: list[ET.Element] = field(default_factory=list)
    body_position: tuple[float, float, float] | None = None


def material(name: str, depth: int = 2) -> list[ET.Element]:
    """A dull material and its cube texture, for a model `depth` folders deep in the pack.

    Labels use a strip of six faces, grain one face for all.
    """
    layout = {"gridsize": "1 6", "gridlayout": "RLUDFB"} if name in CUBE_STRIPS else {}
    file = f"{'../' * depth}textures/{name}.png"
    texture = element("texture", name=f"tex-{name}", type="cube", file=file, **layout)
    return [texture, element("material", name=name, texture=f"tex-{name}", specular=0.2, shininess=0.1)]


def carton(label: str, roof: Colour, cap: Colour) -> list[Shape]:
    """A gable-topped drink carton 54 mm wide, drawn upright, its ridge along x."""
    slope = turn((1, 0, 0), 0.82)
    leaning = compose((0, 0, 0, 1), slope)
    return lay_on_y(
        [
            box((0, 0, -0.018), (0.0265, 0.0265, 0.0535), label),
            box((0, 0, 0.042), (0.0255, 0.0165, 0.008), roof),
            box((0, 0, 0.054), (0.0255, 0.006, 0.005), roof),
            box((0, -0.0155, 0.0475), (0.0265, 0.0165, 0.0012), roof, slope),
            box((0, 0.0155, 0.0475), (0.0265, 0.0165, 0.0012), roof, leaning),
            box((0, 0, 0.065), (0.0265, 0.0022, 0.0064), cap),
        ]
    )


def can(label: Colour, band: Colour, badge: Colour) -> list[Shape]:
    """A food can 65 mm across and 80 mm tall with a paper label, drawn upright."""
    return lay_on_y(
        [
            disc(-0.0395, 0.0395, 0.0305, TIN),
            disc(-0.0412, -0.038, 0.0318, TIN),
            disc(0.0375, 0.0405, 0.0318, TIN),
            disc(0.0376, 0.0408, 0.0285, (0.78, 0.79, 0.8)),
            disc(-0.036, 0.036, 0.0312, label),
            disc(-0.036, -0.02, 0.0316, band),
            disc(0.027, 0.036, 0.0316, band),
            *(
                ellipsoid(
                    (0.0275 * x, 0.0275 * y, 0.004),
                    (0.014 - 0.008 * x * x, 0.014 - 0.008 * y * y, 0.017),
                    badge,
                )
                for x, y in SIDES
            ),
        ]
    )


def bottle(scale: float, body: Colour, label: Colour, stripe: Colour, cap: Colour) -> list[Shape]:
    """A squeeze bottle, at scale 1 65 mm wide, 43 mm deep and 147 mm tall, drawn upright about its middle."""
    shapes = [
        *stadium(-0.073, -0.012, 0.031, 0.021, body),
        ellipsoid((0, 0, -0.012), (0.031, 0.021, 0.052), body),
        *stadium(-0.06, -0.018, 0.0317, 0.0214, label),
        *stadium(-0.044, -0.034, 0.0322, 0.0217, stripe),
        disc(0.01, 0.042, 0.016, body),
        disc(0.038, 0.073, 0.0182, cap),
        disc(0.04, 0.046, 0.0192, cap),
    ]
    return [
        replace(
            shape,
            position=tuple(scale * x for x in shape.position),
            size=tuple(scale * x for x in shape.size),
        )
        for shape in shapes
    ]


def bowl() -> list[Shape]:
    """A black bowl 104 mm across and 50 mm deep on a small foot."""
    dark: Colour = (0.055, 0.055, 0.065)
    return [
        disc(0.0017, 0.0068, 0.0215, dark),
        *ring(24, (0.02, 0.004), (0.0415, 0.0155), 0.002, dark),
        *ring(24, (0.0415, 0.0155), (0.0505, 0.051), 0.0024, (0.085, 0.085, 0.095)),
        *ring(24, (0.0493, 0.0515), (0.0518, 0.0515), 0.0012, (0.16, 0.16, 0.17)),
    ]


def plate() -> list[Shape]:
    """A white plate 138 mm across with a blue line inside its rim."""
    return [
        disc(0.0009, 0.0045, 0.046, WHITE),
        *ring(32, (0.044, 0.0033), (0.0682, 0.0147), 0.0026, WHITE),
        *ring(32, (0.0595, 0.0115), (0.0625, 0.0129), 0.0028, (0.35, 0.5, 0.75)),
    ]


def ramekin() -> list[Shape]:
    """A fluted porcelain ramekin 88 mm across and 43 mm deep with a brown glazed rim."""
    return [
        disc(0.0007, 0.0073, 0.0385, (0.86, 0.85, 0.8)),
        *ring(24, (0.0388, 0.002), (0.0408, 0.04), 0.004, (0.96, 0.95, 0.9)),
        *ring(24, (0.0395, 0.0415), (0.0435, 0.0415), 0.0026, (0.5, 0.3, 0.16)),
    ]


def basket() -> list[Shape]:
    """A wooden basket 160 mm square and 142 mm tall: floor, corner posts and five slats a side."""
    wood, middle = "basket_wood", 0.0012
    shapes = [box((middle, 0, 0.0105), (0.074, 0.07, 0.006), wood)]
    for x in (-0.0735, 0.0735):
        shapes += [box((x + middle, y, 0.074), (0.006, 0.006, 0.0695), wood) for y in (-0.0695, 0.0695)]
    for level in range(5):
        z = 0.0185 + 0.0282 * level
        for side in (-1, 1):
            shapes.append(box((side * 0.0765 + middle, 0, z), (0.0028, 0.0655, 0.0115), wood))
            shapes.append(box((middle, side * 0.0725, z), (0.0695, 0.0028, 0.0115), wood))
    return shapes


def wine_bottle() -> list[Shape]:
    """A dark wine bottle 43 mm across and 158 mm tall."""
    glass: Colour = (0.08, 0.16, 0.09)
    return [
        disc(0.0008, 0.074, 0.0208, glass),
        ellipsoid((0, 0, 0.074), (0.0208, 0.0208, 0.03), glass),
        disc(0.09, 0.143, 0.0078, glass),
        disc(0.122, 0.15, 0.0084, (0.5, 0.07, 0.1)),
        disc(0.148, 0.158, 0.0066, (0.72, 0.55, 0.36)),
        disc(0.018, 0.058, 0.0212, (0.92, 0.88, 0.76)),
        disc(0.03, 0.036, 0.0214, (0.5, 0.07, 0.1)),
    ]


def wine_rack() -> list[Shape]:
    """A wooden wine rack; its boards are the collision boxes themselves."""
    return [box(at, size, "basket_wood", turned) for at, turned, size in COLLISION["wine_rack"]]


HOPE, SCANNED, TURBOSQUID = "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects"

OBJECTS = {
    "alphabet_soup": Grocery(HOPE, can((0.18, 0.32, 0.68), (0.9, 0.75, 0.3), (0.95, 0.85, 0.5)), (-0.04, 0.04, 0.025)),
    "tomato_sauce": Grocery(HOPE, can((0.75, 0.12, 0.1), (0.2, 0.5, 0.2), (0.9, 0.35, 0.2))),
    "bbq_sauce": Grocery(
        HOPE,
        bottle(0.77, (0.33, 0.13, 0.06), (0.85, 0.5, 0.15), (0.95, 0.85, 0.6), (0.75, 0.25, 0.08)),
        (-0.06, 0.06, 0.015),
    ),
    "ketchup": Grocery(HOPE, lay_on_y(bottle(1, (0.8, 0.09, 0.06), (0.93, 0.9, 0.82), (0.2, 0.5, 0.22), WHITE))),
    "salad_dressing": Grocery(
        HOPE, lay_on_y(bottle(1, (0.5, 0.52, 0.2), (0.2, 0.4, 0.2), (0.92, 0.9, 0.8), (0.05, 0.22, 0.11)))
    ),
    "milk": Grocery(HOPE, carton("milk", (0.82, 0.2, 0.19), WHITE), (-0.06, 0.04, 0.03)),
    "orange_juice": Grocery(HOPE, carton("orange_juice", (0.98, 0.72, 0.16), (0.25, 0.58, 0.25))),
    "butter": Grocery(HOPE, [box((0, 0, 0), (0.0383, 0.0198, 0.0088), "butter")], (-0.02, 0.02, 0.02)),
    "cream_cheese": Grocery(HOPE, [box((0, 0, 0), (0.0409, 0.0213, 0.0092), "cream_cheese")], (-0.025, 0.025, 0.03)),
    "chocolate_pudding": Grocery(HOPE, [box((-0.0005, 0, 0.0006), (0.0405, 0.0235, 0.0139), "chocolate_pudding")]),
    "cookies": Grocery(HOPE, [box((0, 0, 0), (0.0309, 0.0414, 0.0096), "cookies")]),
    "akita_black_bowl": Grocery(SCANNED, bowl(), body_position=(0, -0.1, 0)),
    "plate": Grocery(SCANNED, plate()),
    "glazed_rim_porcelain_ramekin": Grocery(SCANNED, ramekin()),
    "basket": Grocery(
        SCANNED,
        basket(),
        regions=[region("contain_region", (0, 0, 0.07185), (0.06108, 0.06108, 0.06949), (0, 0, 0, 1))],
    ),
    "wine_bottle": Grocery(TURBOSQUID, wine_bottle()),
    "wine_rack": Grocery(
        TURBOSQUID,
        wine_rack(),
        regions=[
            region("top_region", (0, -0.08003, 0.21745), (0.10087, 0.022, 0.00251), (0.8549119, -0.5187733, 0, 0))
        ],
    ),
}


def object_documents() -> dict[str, ET.Element]:
    """Every object's model, by its path within the pack."""
    documents = {}
    for name, grocery in OBJECTS.items():
        looks = sorted({shape.look for shape in grocery.shapes if isinstance(shape.look, str)})
        assets = [part for look in looks for part in material(look)]
        parts = [*visual(grocery.shapes), *collision(COLLISION[name]), *grocery.regions]
        body = element("body", *parts, name="object", pos=grocery.body_position)
        documents[f"{grocery.folder}/{name}/{name}.xml"] = document(name, assets, body, grocery.extent)
    return documents
