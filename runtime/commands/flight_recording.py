"""The flight recorder of a command: made of its config, and what every file of the record begins with."""

from __future__ import annotations

import dataclasses
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from tactus.hal.spec import RobotSpec
from tactus.runtime.commands.drivers import Driver
from tactus.runtime.commands.key_groups import RobotCommand
from tactus.runtime.evaluation.results import versions
from tactus.runtime.flight.recorder import FlightRecorder
from tactus.runtime.flight.ring import Ring
from tactus.runtime.robot_node.clock import RealClock


def flight_of(command: str, config: RobotCommand) -> FlightRecorder | None:
    """None if no flight is recorded. Raises FlightError if the folder cannot be recorded into."""
    if config.record_flight is None:
        return None

    def say(line: str) -> None:
        print(f"tactus {command}: {line}", file=sys.stderr)

    folder = Path(config.record_flight)
    return FlightRecorder(Ring(folder, config.flight_minutes, int(config.flight_gb * 1e9), say=say), say)


def about(command: str, config: RobotCommand, robot: RobotSpec, driver: Driver) -> dict[str, Any]:
    """What is run, how, and with which versions. No loop where a hand drives: it has no queue."""
    robot_config = json.loads(json.dumps(config.robot_settings, default=str))
    return {
        "run": uuid.uuid4().hex,
        "command": command,
        "virtual": not isinstance(driver.clock, RealClock),
        "robot": robot.to_dict(),
        "policy": driver.policy.to_dict(),
        "loop": None if driver.by_hand else dataclasses.asdict(config.loop),
        "latency": config.latency,
        "seed": config.seed,
        "robot_config": robot_config,
        "versions": versions(),
    }
