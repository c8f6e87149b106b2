"""How a robot with torque starts, what it may do, and how it ends: every key of `governor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tactus.hal.governor.health_monitor import VitalsConfig
from tactus.hal.hardware import Stop

POSITIVE = ("max_action_age_s", "tolerance", "watchdog_s", "watchdog_off_s", "health_s")


@dataclass
class GovernorConfig:
    """Positions are in the action's units, joints named with or without ".pos". Velocity limits are the robot's own."""

    on_stop: Stop = "off"
    """how a run ends: off (a raised arm falls), hold (torque stays on), park (slowly to park_pose, then off)"""
    on_estop: Literal["off", "hold"] = "off"
    """what an emergency stop does at once, and leaves so"""
    on_starved: Stop = "hold"
    """what follows starved_hold_s without a usable action, until the next episode"""
    starved_hold_s: float = 2.0
    """how long to hold the last command before that"""
    max_action_age_s: float = 4.0
    """actions decided on an observation older than this are not followed"""
    start_pose: dict[str, float] = field(default_factory=dict)
    """joint: position to go to before each episode; not given: start wherever the robot stands"""
    park_pose: dict[str, float] = field(default_factory=dict)
    """joint: position to go to for park"""
    tolerance: float = 5.0
    """how near to a pose counts as there"""
    ramp_velocity: float = 0.25
    """share of the velocity limit for going to a pose, and to a far first action"""
    gate: float | None = 20.0
    """a first action farther from the robot than this is approached at ramp_velocity; null: at the velocity limit"""
    outside: float = 0.1
    """a joint that starts farther outside its range than this share of it is an error"""
    watchdog_s: float = 0.5
    """silence of the control loop within an episode that is told of; the servos hold"""
    watchdog_off_s: float = 5.0
    """silence of the control loop within an episode that ends the run, by on_stop"""
    health_s: float = 0.5
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
                raise ValueError(f"governor.{key}: park needs a park_pose, e.g. {{shoulder_lift: -90, elbow_flex: 90}}")
        for key in POSITIVE:
            if not getattr(self, key) > 0:
                raise ValueError(f"governor.{key}: found {getattr(self, key):g}; must be positive")
        if not 0 < self.ramp_velocity <= 1:
            raise ValueError(f"governor.ramp_velocity: found {self.ramp_velocity:g}; accepted: above 0, to 1")
        for key in ("starved_hold_s", "outside"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"governor.{key}: found {getattr(self, key):g}; must not be negative")
