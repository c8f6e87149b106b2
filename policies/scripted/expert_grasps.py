"""The expert's grasps: where to hold each kind of object, and where to put it down.

Sizes and widths were measured in LIBERO's simulator (collision geometry and finger positions in a grasp).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tactus.policies.policy import PolicyError

FINGER_REACH_M = 0.012
"""How far the fingertips reach below the end effector's origin, with a millimetre to spare."""
WIDEST_M = 0.066
"""What the fingers, 0.08 m apart when open, can straddle without pushing the object aside."""


@dataclass(frozen=True)
class Grasp:
    """How to hold one category of object.

    half_extents_m, centre_m: its box in its own frame.
    width_m: finger opening once it is held; None means the box's width along the closing direction.
    rim_radius_m: hold the wall at this distance from the axis instead of the whole object.
    depth_m: how far below the object's top the end effector's origin goes; from 0.036 on the palm would touch it.
    round: the fingers may close from any side.
    press_ticks: ticks of closing after the fingers have met the object, until they hold it firmly.
    """

    half_extents_m: tuple[float, float, float]
    centre_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    width_m: float | None = None
    rim_radius_m: float = 0.0
    depth_m: float = 0.028
    round: bool = False
    press_ticks: int = 2


GRASPS: Mapping[str, Grasp] = {
    "alphabet soup": Grasp((0.031, 0.0385, 0.0315), (0.0, 0.0, -0.0035), round=True),
    "tomato sauce": Grasp((0.031, 0.0385, 0.031), (0.0, 0.0, -0.003), round=True),
    "cream cheese": Grasp((0.041, 0.021, 0.009)),
    "butter": Grasp((0.038, 0.020, 0.009)),
    "chocolate pudding": Grasp((0.041, 0.023, 0.0135)),
    "salad dressing": Grasp((0.026, 0.073, 0.018), width_m=0.037),
    "bbq sauce": Grasp((0.023, 0.015, 0.0535), (0.0, 0.0, -0.0015), width_m=0.036),
    "ketchup": Grasp((0.0285, 0.0725, 0.0185), width_m=0.034),
    "milk": Grasp((0.0265, 0.0655, 0.026), (0.0, -0.0045, 0.0)),
    "orange juice": Grasp((0.0265, 0.0655, 0.026), (0.0, -0.0045, 0.0)),
    "black bowl": Grasp(
        (0.0535, 0.0535, 0.025), (0.0, 0.0, 0.027), 0.0065, rim_radius_m=0.046, depth_m=0.014, press_ticks=4
    ),
}


@dataclass(frozen=True)
class Place:
    """Where an object is put down. Heights are above the target's origin.

    cruise_m: height at which the empty hand passes over everything that stands around.
    rim_m, rim_radius_m: height of the obstacle around the target that the object's lowest point must clear, and
    its distance from the target's axis.
    radius_m, release_m: the fingers open when the object's origin is that close to the axis and that low.
    floor_m: where its origin is lowered to, if the fingers have not opened before.
    """

    cruise_m: float
    rim_m: float
    rim_radius_m: float
    release_m: float
    radius_m: float
    floor_m: float


PLACES: Mapping[str, Place] = {
    "basket": Place(cruise_m=0.20, rim_m=0.16, rim_radius_m=0.18, release_m=0.12, radius_m=0.05, floor_m=0.09),
    "plate": Place(cruise_m=0.13, rim_m=0.05, rim_radius_m=0.13, release_m=0.008, radius_m=0.024, floor_m=-0.01),
}

SIDES_DEG: Mapping[str, float] = {
    "between the plate and the ramekin": -90.0,
    "next to the ramekin": 90.0,
    "from table center": -90.0,
    "on the cookie box": -90.0,
    "in the top drawer": 154.0,
    "on the ramekin": -90.0,
    "next to the cookie box": 90.0,
    "on the stove": 90.0,
    "next to the plate": 90.0,
    "on the wooden cabinet": 90.0,
}
"""World direction from the bowl's axis to the side where its rim is held, by where the bowl stands: away from
neighbours, and in the drawer along its front, where there is room for the outer finger."""


@dataclass(frozen=True)
class Job:
    """A task text understood.

    side: horizontal unit vector from a bowl's axis to where its rim is held. lift_m: straight up before moving
    sideways. descend_m: distance from the target within which the object may sink below that height again.
    """

    grasp: Grasp
    place: Place
    side: np.ndarray
    lift_m: float
    descend_m: float


def find(task: str) -> Job:
    """The job that a task text describes. Raises PolicyError for text outside the table."""
    text = task.lower()
    grasp = next((found for name, found in GRASPS.items() if f"pick up the {name}" in text), None)
    place = next((found for name, found in PLACES.items() if text.endswith(f"the {name}")), None)
    if grasp is None or place is None:
        raise PolicyError(
            f"the expert does not know the task {task!r}; it knows 'pick up the <object> ... and place it "
            f"in/on the <target>' with objects {', '.join(GRASPS)} and targets {', '.join(PLACES)}"
        )
    angle = np.radians(next((deg for words, deg in SIDES_DEG.items() if words in text), -90.0))
    # The drawer's walls and handle are 8 cm higher than the bowl's bottom and reach almost to the plate.
    lift_m, descend_m = (0.1, 0.13) if "drawer" in text else (0.03, 0.35)
    return Job(grasp, place, np.array([np.cos(angle), np.sin(angle)]), lift_m, descend_m)


@dataclass(frozen=True)
class GraspPose:
    """Where the hand must be to close on the object: position, closing direction, finger opening once held.

    top_m: world height of the object's highest point; low_m: of its lowest.
    """

    position: np.ndarray
    closing: np.ndarray
    width_m: float
    top_m: float
    low_m: float


def grasp_pose(job: Job, position: np.ndarray, rotation: np.ndarray, closing_now: np.ndarray) -> GraspPose:
    """The grasp for an object pose.

    closing_now: the fingers' present closing direction; of equally good grasps the nearest turn is taken.
    """
    grasp = job.grasp
    half = np.array(grasp.half_extents_m)
    centre = position + rotation @ np.array(grasp.centre_m)
    reach = np.abs(rotation[2]) @ half
    top, low = centre[2] + reach, centre[2] - reach
    up = int(np.argmax(np.abs(rotation[2])))
    axis = rotation[:, up] * np.sign(rotation[2, up])
    if grasp.rim_radius_m:
        closing = np.array([*job.side, 0.0])
        radial = closing - axis * (axis @ closing)
        radial /= np.linalg.norm(radial)
        point = centre + radial * grasp.rim_radius_m + axis * (half[up] - grasp.depth_m)
        return GraspPose(point, job.side, float(grasp.width_m or 0.0), top, low)
    point = centre + axis * max(half[up] - grasp.depth_m, 0.0)
    point[2] = max(point[2], low + FINGER_REACH_M)
    sides = [i for i in range(3) if i != up]
    if grasp.round and up == 1:
        return GraspPose(point, closing_now, grasp.width_m or 2 * half[sides[0]], top, low)
    fitting = [i for i in sides if 2 * half[i] <= WIDEST_M] or [min(sides, key=lambda i: half[i])]
    side = max(fitting, key=lambda i: abs(rotation[:2, i] @ closing_now))
    closing = rotation[:2, side] / np.linalg.norm(rotation[:2, side])
    return GraspPose(point, closing, grasp.width_m or 2 * half[side], top, low)
