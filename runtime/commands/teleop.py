"""`tactus teleop`: a person's hand drives the robot, on the beat; with --dataset_root it is recorded."""

from __future__ import annotations

import contextlib
import sys

from runtime.commands.config import parse
from runtime.commands.drivers import by_hand
from runtime.commands.episodes import FAILED, run_episodes
from runtime.commands.record import recorder_of
from runtime.dataset import DatasetError


def main(arguments: list[str]) -> int:
    """Exit status 0 when every episode ended."""
    config = parse("teleop", arguments)
    config.real_time = True
    try:
        with contextlib.ExitStack() as stack:
            kind = type(config.teleop).get_choice_name(type(config.teleop))
            drive = by_hand(config, config.teleop.make(), f"teleop {kind}")
            record = recorder_of(config, stack) if config.dataset_root is not None else None
            return run_episodes("teleop", config, drive, record)
    except DatasetError as error:
        print(f"tactus teleop: {error}", file=sys.stderr)
        return FAILED
