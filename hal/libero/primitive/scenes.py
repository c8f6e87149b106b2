"""LIBERO's floor and tabletop scenes: the names its arena code looks up, with our floor, walls and table."""

import xml.etree.ElementTree as ET

from tactus.hal.libero.primitive.mjcf import element

# Six walls around the workspace: centre (m), quaternion (w x y z), half width and half height (m).
WALLS = {
    "leftcorner": ((-1.25, 2.25, 1.5), (0.6532815, 0.6532815, 0.2705981, 0.2705981), (1.06, 1.5)),
    "rightcorner": ((-1.25, -2.25, 1.5), (0.6532815, 0.6532815, -0.2705981, -0.2705981), (1.06, 1.5)),
    "left": ((1.25, 3, 1.5), (0.7071, 0.7071, 0, 0), (1.75, 1.5)),
    "right": ((1.25, -3, 1.5), (0.7071, -0.7071, 0, 0), (1.75, 1.5)),
    "rear": ((-2, 0, 1.5), (0.5, 0.5, 0.5, 0.5), (1.5, 1.5)),
    "front": ((3, 0, 1.5), (0.5, 0.5, -0.5, -0.5), (3, 1.5)),
}

LIGHTS = {"light1": (1, 1, 4), "light2": (-3, -3, 4)}

# LIBERO moves agentview and frontview to the scene; the others stay: position (m), quaternion (w x y z).
CAMERAS = {
    "frontview": ((1, 0, 1.45), (0.56, 0.43, 0.43, 0.56)),
    "birdview": ((-0.2, 0, 3), (0.7071, 0, 0, 0.7071)),
    "agentview": ((0.5, 0, 1.35), (0.653, 0.271, 0.271, 0.653)),
    "sideview": ((-0.056518, 1.276122, 1.487957), (0.009905, 0.006878, 0.591223, 0.806418)),
}


def _assets() -> list[ET.Element]:
    sky = {"builtin": "gradient", "rgb1": (0.9, 0.9, 1), "rgb2": (0.2, 0.3, 0.4), "width": 64, "height": 64}
    return [
        element("texture", type="skybox", **sky),
        element("texture", name="texplane", type="2d", file="../textures/light-gray-floor-tile.png"),
        element(
            "material",
            name="floorplane",
            texture="texplane",
            texrepeat=(1.5, 1.5),
            texuniform=True,
            specular=0,
        ),
        element("texture", name="tex-wall", type="2d", file="../textures/light-gray-plaster.png"),
        element("material", name="walls_mat", texture="tex-wall", texrepeat=(3, 3), texuniform=True, specular=0.1),
    ]


def _table_assets() -> list[ET.Element]:
    return [
        element("texture", name="tex-table", type="cube", file="../textures/table_wood.png"),
        element("material", name="table_texture", texture="tex-table", specular=0.2, shininess=0),
        element("material", name="table_legs", texture="tex-table", specular=0.2, shininess=0),
    ]


def _surroundings() -> list[ET.Element]:
    """Walls, lights and cameras."""
    seen = {"group": 1, "contype": 0, "conaffinity": 0, "type": "box", "material": "walls_mat"}
    parts = [
        element("geom", name=f"wall_{name}_visual", pos=at, quat=turned, size=(*half_size, 0.01), **seen)
        for name, (at, turned, half_size) in WALLS.items()
    ]
    glow = {
        "diffuse": (0.8, 0.8, 0.8),
        "specular": (0.3, 0.3, 0.3),
        "directional": False,
        "castshadow": False,
    }
    parts += [element("light", name=name, pos=at, dir=(0, -0.15, -1), **glow) for name, at in LIGHTS.items()]
    parts += [element("camera", name=name, mode="fixed", pos=at, quat=turned) for name, (at, turned) in CAMERAS.items()]
    return parts


def _floor_plane() -> ET.Element:
    return element("geom", name="floor", type="plane", size=(3, 3, 0.125), condim=3, group=1, material="floorplane")


def _table() -> ET.Element:
    """LIBERO resizes and moves the parts by these names; the numbers here only have to be valid."""
    seen = {"group": 1, "contype": 0, "conaffinity": 0}
    half_size = (0.4, 0.4, 0.4)
    legs = [
        element(
            "geom",
            name=f"table_leg{i}_visual",
            type="cylinder",
            size=(0.05, 0.1),
            material="table_legs",
            **seen,
        )
        for i in (1, 2, 3, 4)
    ]
    return element(
        "body",
        element("geom", name="table_collision", type="box", size=half_size, group=0, friction=(1, 0.005, 0.0001)),
        element("geom", name="table_visual", type="box", size=half_size, material="table_texture", **seen),
        element("site", name="table_top", pos=(0, 0, 0.4), size=(0.001, 0.001, 0.001), rgba=(0, 0, 0, 0)),
        *legs,
        name="table",
        pos=(0, 0, 0.4),
    )


def _scene(name: str, assets: list[ET.Element], workspace: list[ET.Element]) -> ET.Element:
    world = element("worldbody", *workspace, *_surroundings())
    return element("mujoco", element("asset", *assets), world, model=name)


def scene_documents() -> dict[str, ET.Element]:
    """Every scene's model, by its path within the pack."""
    floor = [element("body", _floor_plane(), name="floor", pos=(0, 0, 0))]
    table = [_floor_plane(), _table()]
    return {
        "scenes/libero_floor_base_style.xml": _scene("floor", _assets(), floor),
        "scenes/libero_tabletop_base_style.xml": _scene("tabletop", _assets() + _table_assets(), table),
    }
