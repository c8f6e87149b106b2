"""What of a compiled scene decides its pictures and nothing else, drawn anew for an episode.

Colours of what stands still (table, floor, walls, fixtures) vary widely, those of the robot and of what is handled a
little, since LIBERO's instructions name things by how they look; lights vary, and cameras stand a little elsewhere.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco
import numpy as np

ARRAYS = ("mat_rgba", "geom_rgba", "light_pos", "light_diffuse", "light_ambient", "cam_pos", "cam_quat", "cam_fovy")
"""Of MjModel; whoever varies them puts them back."""
NO_COLOUR = (0.5, 0.5, 0.5, 1.0)
"""A geom of this colour takes its material's, to the bit; of any other, its own."""
SURROUNDINGS, THINGS = 0.35, 0.12
"""Largest change of a colour's parts, as a share of them."""
LIGHT, LIGHT_M = 0.35, 0.5
"""Largest change of a light's brightness, as a share of it, and of its place."""
CAMERA_M, CAMERA_RAD, CAMERA_FOVY = 0.015, 0.015, 0.02
"""Standard deviations of a fixed camera's place and direction, and, as a share, of its angle of view. A moving one has
a third of them."""


def vary(model: mujoco.MjModel, rng: np.random.Generator) -> None:
    """In place, by equally many random numbers for equal scenes."""
    still = model.body_weldid[model.geom_bodyid] == 0
    own = (model.geom_matid < 0) | (model.geom_rgba != NO_COLOUR).any(1)
    for colours, widely, has in ((model.mat_rgba, _materials(model, still), True), (model.geom_rgba, still, own)):
        share = (np.where(widely, SURROUNDINGS, THINGS) * has)[:, None]
        colours[:, :3] = np.clip(colours[:, :3] * (1 + share * rng.uniform(-1, 1, (len(colours), 3))), 0, 1)
    model.light_pos[:] += LIGHT_M * rng.uniform(-1, 1, model.light_pos.shape)
    for lights in (model.light_diffuse, model.light_ambient):
        lights[:] = np.clip(lights * (1 + LIGHT * rng.uniform(-1, 1, (len(lights), 1))), 0, 1)
    size = np.where(model.body_weldid[model.cam_bodyid] == 0, 1.0, 1 / 3)
    model.cam_pos[:] += CAMERA_M * size[:, None] * rng.standard_normal(model.cam_pos.shape)
    model.cam_fovy[:] *= 1 + CAMERA_FOVY * size * rng.standard_normal(model.ncam)
    for quaternion, turn in zip(
        model.cam_quat, CAMERA_RAD * size[:, None] * rng.standard_normal((model.ncam, 3)), strict=True
    ):
        mujoco.mju_quatIntegrate(quaternion, turn, 1.0)


def _materials(model: mujoco.MjModel, still: np.ndarray) -> np.ndarray:
    """bool[nmat]: those that only what stands still is made of."""
    moving = {*model.geom_matid[~still].tolist()}
    return np.array([material not in moving for material in range(model.nmat)], bool)
