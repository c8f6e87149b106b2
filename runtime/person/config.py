"""What describes a script that takes over as a person would."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from tactus.hal.config import Positive, SecondsOrZero
from tactus.hal.teleop.teleoperator import TeleoperatorConfig
from tactus.policies.policy import PolicyConfig
from tactus.policies.scripted.config import PickerConfig


@TeleoperatorConfig.register_subclass("scripted")
class ScriptedPersonConfig(TeleoperatorConfig):
    """Takes over in simulation when the object slips or nothing happens, and hands back; needs the objects' poses."""

    policy: PolicyConfig = field(default_factory=PickerConfig)
    """what the person does then: picker for the emulated SO-101, expert for LIBERO"""
    lifted_m: Positive = 0.04
    """an object this far above where it stood is in the air; one that was and is not any more has slipped"""
    at_goal_m: Positive = 0.08
    """an object this near to its goal, seen from above, has been put down there"""
    patience_s: Positive | None = 10.0
    """an object that is not in the air for so long while the policy drives is helped; null: only one that slipped"""
    reaction_s: SecondsOrZero = 0.3
    """from what is seen to taking over"""
    hand_back: Literal["lifted", "never"] = "lifted"
    """when the policy gets it back: once the object is in the air again, or not in this episode"""
    held_s: SecondsOrZero = 0.5
    """how long it is in the air before that"""

    wall_time = False
    entry_point = "tactus.runtime.person.scripted:ScriptedPerson"
