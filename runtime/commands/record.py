"""`tactus record`: episodes as `eval` or, with --real_time, `run` has them, written as a LeRobotDataset."""

from __future__ import annotations

import sys
from pathlib import Path

from hal.robot import Robot
from runtime.commands.config import Config, parse
from runtime.commands.episodes import USAGE, run_episodes
from runtime.commands.eval import virtual_time
from runtime.commands.run import real_time
from runtime.dataset import DatasetConfig, Recorder


def main(arguments: list[str]) -> int:
    """Exit status 0 when every episode ran and is stored, whatever its success."""
    config = parse("record", arguments)
    complaint = _complaint(config)
    if complaint:
        print(f"tactus record: {complaint}", file=sys.stderr)
        return USAGE
    dataset = DatasetConfig(
        root=Path(str(config.dataset_root)),
        cameras=None if config.dataset_cameras is None else tuple(config.dataset_cameras),
        video=config.dataset_video,
        action=config.dataset_action,
        successful_only=config.successful_only,
    )

    def recorder(robot: Robot) -> Recorder:
        return Recorder(dataset, robot, waits=not config.real_time)

    return run_episodes("record", config, real_time if config.real_time else virtual_time(config), recorder)


def _complaint(config: Config) -> str:
    if config.dataset_root is None:
        return "dataset_root: not given; a folder for the dataset, which does not exist yet"
    if config.resume:
        return "resume: a dataset cannot be gone on with; record another one beside it"
    if config.real_time and config.latency != "fixed:0":
        return f"latency={config.latency} is for virtual time; with --real_time it is what it is"
    return ""
