"""How a robot with torque starts, what it may do, and how it ends: every key of `governor`."""

from __future__ import annotations

from dataclasses import field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tactus.hal.config import Config, Names, NotNegative, Number, Positive, Seconds, SecondsOrZero, Share
from tactus.hal.robot import Robot, RobotConfig

if TYPE_CHECKING:
    from tactus.hal.hardware import Hardware

Celsius = Annotated[float, Field(ge=0, le=200)]
Stop = Literal["off", "hold", "park"]
"""How a robot ends. off: torque off on every motor, a raised arm falls. hold: torque stays on, where it stands.
park: move slowly to the parking pose, then off."""


class VitalsConfig(Config):
    """Thresholds; null for none."""

    temperature_warn_c: Celsius | None = 55.0
    """a motor this hot is told of"""
    temperature_stop_c: Celsius | None = 65.0
    """a motor this hot ends the run; an STS3215 shuts down at 70"""
    voltage_warn_v: Positive | None = None
    """a supply below this is told of"""
    voltage_stop_v: Positive | None = None
    """a supply below this ends the run: servos brown out and forget their torque"""
    load_stop: Share | None = 0.95
    """share of full torque that, sustained for overload_s, ends the run"""
    current_stop_a: Positive | None = None
    """current in A that, sustained for overload_s, ends the run"""
    overload_s: SecondsOrZero = 3.0
    """how long a motor may strain"""
    may_strain: Annotated[list[str], Names] = field(default_factory=lambda: ["gripper"])
    """joints that press on things by design: their overload is told of, and does not end the run"""


class GovernorConfig(Config):
    """Positions are in the action's units, joints named with or without ".pos". Velocity limits are the robot's own."""

    on_stop: Stop = "off"
    """how a run ends: off (a raised arm falls), hold (torque stays on), park (slowly to park_pose, then off)"""
    on_estop: Literal["off", "hold"] = "off"
    """what an emergency stop does at once, and leaves so"""
    on_starved: Stop = "hold"
    """what follows starved_hold_s without a usable action, until the next episode"""
    starved_hold_s: SecondsOrZero = 2.0
    """how long to hold the last command before that"""
    max_action_age_s: Seconds = 4.0
    """actions decided on an observation older than this are not followed"""
    start_pose: dict[str, Number] = field(default_factory=dict)
    """joint: position to go to before each episode; not given: start wherever the robot stands"""
    park_pose: dict[str, Number] = field(default_factory=dict)
    """joint: position to go to for park"""
    tolerance: Positive = 5.0
    """how near to a pose counts as there"""
    ramp_velocity: Annotated[float, Field(gt=0, le=1)] = 0.25
    """share of the velocity limit for going to a pose, and to a far first action"""
    gate: NotNegative | None = 20.0
    """a first action farther from the robot than this is approached at ramp_velocity; null: at the velocity limit"""
    outside: NotNegative = 0.1
    """a joint that starts farther outside its range than this share of it is an error"""
    watchdog_s: Seconds = 0.5
    """silence of the control loop within an episode that is told of; the servos hold"""
    watchdog_off_s: Seconds = 5.0
    """silence of the control loop within an episode that ends the run, by on_stop"""
    health_s: Seconds = 0.5
    """pause between looks at temperatures, voltages and loads"""
    vitals: VitalsConfig = field(default_factory=VitalsConfig)
    """thresholds of health"""
    guardian: bool = True
    """have a process of its own switch the torque off if this one is killed, unless on_stop is hold"""
    dry_run: bool = False
    """tell what would be sent, send nothing, and leave the torque off"""

    def __post_init__(self) -> None:
        for key in ("on_stop", "on_starved"):
            if getattr(self, key) == "park" and not self.park_pose:
                raise ValueError(f"{key}: park needs a park_pose, e.g. {{shoulder_lift: -90, elbow_flex: 90}}")


class GovernedConfig(RobotConfig):
    """Base of the configs of robots with torque: what they make has a Governor in front of it."""

    governor: GovernorConfig = field(default_factory=GovernorConfig)
    """safety: limits, starvation, emergency stop, how it ends"""

    def hardware(self) -> Hardware:
        """The robot without its safety layer: for reading (a leader), calibration and diagnosis. Torque stays off
        unless somebody switches it on."""
        return resolve_name(self.entry_point)(self)

    def make(self) -> Robot:
        return resolve_name("tactus.hal.governor.governor:Governor")(self.hardware(), self.governor)
