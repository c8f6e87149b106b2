"""What a robot gives and takes, and what it sees now, without moving it: simulators are reset and observed, arms are
connected as in a dry run, which leaves torque as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from tactus.hal.fence import is_sentence
from tactus.hal.governor.config import GovernedConfig
from tactus.hal.rig import RigConfig
from tactus.hal.robot import RobotConfig
from tactus.hal.spec import IMAGES, RobotSpec
from tactus.hal.wrappers.checked import make

LOOKS, SEED, PAUSE_S = 3, 1000, 0.3
"""Observations that are taken: of so many episodes of a simulator, or so far apart."""


@dataclass(frozen=True)
class RobotFacts:
    """error: why it cannot be made, or observed; empty if it could. task: what it asks for. seen: observations.
    size_keys: camera -> keys that set its picture's size."""

    spec: RobotSpec | None = None
    task: str = ""
    seen: tuple[Mapping[str, np.ndarray], ...] = ()
    error: str = ""
    size_keys: Mapping[str, str] = field(default_factory=dict)


def robot_facts(config: RobotConfig, observed: bool) -> RobotFacts:
    """observed: look through its eyes as well. Whatever its code raises is a sentence in `error`."""
    spec, task, keys = None, "", _size_keys(config)
    seen: list[Mapping[str, np.ndarray]] = []
    try:
        robot = make(dry(config))
        try:
            spec, task = robot.spec, robot.scene(0).task
            if observed:
                robot.connect()
                for look in range(LOOKS):
                    if not robot.wall_time:  # a reset of what lives in the world's time would move it
                        robot.reset(look, SEED)
                    elif look:
                        time.sleep(PAUSE_S)
                    seen.append({name: np.array(array) for name, array in robot.observe().arrays.items()})
        finally:
            robot.close()
    except Exception as error:
        if not is_sentence(error):
            raise
        return RobotFacts(spec, task, tuple(seen), str(error), keys)
    return RobotFacts(spec, task, tuple(seen), "", keys)


def dry(config: RobotConfig) -> RobotConfig:
    """The same robot with every governor in a dry run: nothing is sent, no torque changes, no guardian is started."""
    if isinstance(config, RigConfig):
        return replace(config, parts={name: dry(part) for name, part in config.parts.items()})
    if isinstance(config, GovernedConfig):
        return replace(config, governor=replace(config.governor, dry_run=True, guardian=False))
    return config


def _size_keys(config: Any) -> dict[str, str]:
    """By camera feature, `*` for all."""
    parts: dict[str, Any] = (
        {f"parts.{name}.": part for name, part in config.parts.items()}
        if isinstance(config, RigConfig)
        else {"": config}
    )
    found: dict[str, str] = {}
    for prefix, part in parts.items():
        keys = {each.name for each in fields(part)}
        if "image_size" in keys:
            found["*"] = f"--robot.{prefix}image_size=[{{h}},{{w}}]"
        elif {"width", "height", "name"} <= keys:
            found[f"{IMAGES}{part.name}"] = f"--robot.{prefix}width={{w}} --robot.{prefix}height={{h}}"
    return found
