"""`tactus record`: episodes as `eval` or, with --real_time, `run` has them, written as a LeRobotDataset."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tactus.hal.robot import Robot
from tactus.runtime.commands.config import Record, Teleop
from tactus.runtime.commands.drivers import by_policy
from tactus.runtime.commands.episodes import FAILED, USAGE, run_episodes
from tactus.runtime.commands.eval import virtual_time
from tactus.runtime.commands.output import Output
from tactus.runtime.commands.run import real_time
from tactus.runtime.recording.dataset import DatasetConfig, DatasetError, DatasetRecorder


def main(config: Record, arguments: list[str]) -> int:
    """Exit status 0 when every episode ran and is stored, whatever its success."""
    if config.dataset_root is None:
        reason = "dataset_root: not given; a folder for the dataset, which does not exist yet"
        print(f"tactus record: {reason}", file=sys.stderr)
        return USAGE
    timing = real_time(config) if config.real_time else virtual_time(config)
    try:
        with contextlib.ExitStack() as stack:
            status = run_episodes(
                "record", config, by_policy(config, timing), recorder_of(config, config.real_time, stack)
            )
    except DatasetError as error:
        print(f"tactus record: {error}", file=sys.stderr)
        return FAILED
    return status


def recorder_of(
    config: Record | Teleop, real_time: bool, stack: contextlib.ExitStack
) -> Callable[[Robot], DatasetRecorder]:
    """Makes the DatasetRecorder that the config describes; `stack` closes it, after the robot."""
    dataset = DatasetConfig(
        root=Path(str(config.dataset_root)),
        cameras=None if config.dataset_cameras is None else tuple(config.dataset_cameras),
        video=config.dataset_video,
        action=config.dataset_action,
        successful_only=config.successful_only,
        frames=config.dataset_frames if isinstance(config, Record) and config.intervene else None,
    )
    say = Output("record", config.log_format, Console()).tell if config.log_format == "json" else print
    return lambda robot: stack.enter_context(DatasetRecorder(dataset, robot, not real_time, say))
