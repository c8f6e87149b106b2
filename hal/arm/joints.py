"""Joint tables: which servo moves which joint, in which units, how far and fast, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated

from pydantic import Field

from tactus.hal.config import Config, Number, Positive
from tactus.hal.servo.registers import Units

SYMBOLS: Mapping[str, str] = {"degrees": "deg", "range_m100_100": "%", "range_0_100": "%"}
"""The unit's symbol in specs. Both ranges are shares of the calibrated range, as LeRobot has them."""


class Joint(Config):
    """One line of a joint table."""

    id: Annotated[int, Field(ge=0, le=252)]
    """servo id on the bus"""
    model: str
    """servo model: sts3215, xl330-m288, xl430-w250, …"""
    unit: Units = "degrees"
    """degrees (0 in the middle of the calibrated range), range_m100_100 or range_0_100, as LeRobot has them"""
    velocity: Positive = 180.0
    """highest speed, units per second"""
    low: Number | None = None
    """lower bound in units, inside the calibrated range; not given: the range's own"""
    high: Number | None = None
    """upper bound in units, inside the calibrated range; not given: the range's own"""
    full_turn: bool = False
    """calibrated to the whole turn instead of to where it was moved"""
    positive: str = ""
    """which way it moves as its position rises, for the person who calibrates it"""
    registers: dict[str, Annotated[int, Field(ge=-(2**31), lt=2**31)]] = field(default_factory=dict)
    """settings written to the servo at connect where they differ, by LeRobot's register names"""


_STS = {
    "Return_Delay_Time": 0,
    "Operating_Mode": 0,
    "P_Coefficient": 16,
    "I_Coefficient": 0,
    "D_Coefficient": 32,
    "Maximum_Acceleration": 254,
    "Acceleration": 254,
}
# LeRobot allows half of full torque, with which a firm grip is an overload after 2 s; this much grips without one.
# Max_Torque_Limit becomes Torque_Limit only when the power comes on.
_STS_GRIPPER = {**_STS, "Max_Torque_Limit": 240, "Torque_Limit": 240, "Protection_Current": 250, "Overload_Torque": 25}
_X_EXTENDED = {"Return_Delay_Time": 0, "Operating_Mode": 4}
# mA; without it a gripper that holds something is in overload, and switches itself off, after seconds
_X_GRIPPER = {"Return_Delay_Time": 0, "Operating_Mode": 5, "Current_Limit": 400}
POSITIVE = {
    "shoulder_pan": "to the arm's right",
    "shoulder_lift": "forward and down",
    "elbow_flex": "down",
    "wrist_flex": "down",
    "wrist_roll": "",
}
"""Of the SO-100 and SO-101 as LeRobot's datasets have them, seen from behind the arm."""


def _so100() -> dict[str, Joint]:
    body = {
        name: Joint(i, "sts3215", full_turn=name == "wrist_roll", positive=positive, registers=dict(_STS))
        for i, (name, positive) in enumerate(POSITIVE.items(), 1)
    }
    gripper = Joint(6, "sts3215", "range_0_100", 200.0, positive="open", registers=dict(_STS_GRIPPER))
    return {**body, "gripper": gripper}


def _koch() -> dict[str, Joint]:
    stronger = {**_X_EXTENDED, "Position_P_Gain": 1500, "Position_I_Gain": 0, "Position_D_Gain": 600}
    return {
        "shoulder_pan": Joint(1, "xl430-w250", full_turn=True, registers=dict(_X_EXTENDED)),
        "shoulder_lift": Joint(2, "xl430-w250", registers=dict(_X_EXTENDED)),
        "elbow_flex": Joint(3, "xl330-m288", registers=stronger),
        "wrist_flex": Joint(4, "xl330-m288", registers=dict(_X_EXTENDED)),
        "wrist_roll": Joint(5, "xl330-m288", full_turn=True, registers=dict(_X_EXTENDED)),
        "gripper": Joint(6, "xl330-m288", "range_0_100", 200.0, registers=dict(_X_GRIPPER)),
    }


def _koch_leader() -> dict[str, Joint]:
    """LeRobot has its elbow inverted in the servo, because it is mounted the other way round than the follower's."""
    inverted = {**_X_EXTENDED, "Drive_Mode": 1}
    joints = {
        name: Joint(i, "xl330-m077", full_turn=name in ("shoulder_pan", "wrist_roll"), registers=dict(_X_EXTENDED))
        for i, name in enumerate(POSITIVE, 1)
    }
    joints["elbow_flex"] = replace(joints["elbow_flex"], registers=inverted)
    return {**joints, "gripper": Joint(6, "xl330-m077", "range_0_100", 200.0, registers=dict(_X_GRIPPER))}


def _so100_leader() -> dict[str, Joint]:
    settings = {"Return_Delay_Time": 0, "Operating_Mode": 0}
    return {name: replace(joint, registers=dict(settings)) for name, joint in _so100().items()}


SO100 = _so100()
"""SO-100 and SO-101 follower; gains are those that LeRobot 0.6.1 writes."""
KOCH = _koch()
"""Koch v1.1 follower; extended position mode, because an assembled joint may cross the encoder's zero."""
SO100_LEADER = _so100_leader()
"""The same servos without gains and caps: nothing drives them."""
KOCH_LEADER = _koch_leader()
"""Koch v1.1 leader: six XL330-M077. Limp, its gripper too: without the spring that LeRobot makes of it."""


def turning(joints: Mapping[str, Joint]) -> list[str]:
    """Joints that turn freely."""
    return [name for name, joint in joints.items() if joint.full_turn]
