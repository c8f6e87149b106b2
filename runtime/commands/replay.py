"""`tactus replay`: play recorded actions on the robot, on the beat."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tactus.hal.spec import SpecError
from tactus.runtime.commands.arguments import is_given
from tactus.runtime.commands.arms import arms
from tactus.runtime.commands.config import Replay
from tactus.runtime.commands.drivers import by_hand
from tactus.runtime.commands.episodes import USAGE, run_episodes
from tactus.runtime.recording.recorded_actions import read_recording


def main(config: Replay, arguments: list[str]) -> int:
    """Exit status 0 when every episode was played; --episodes is how often."""
    if not is_given(arguments, "episodes"):
        config.episodes = 1
    if config.actions is None:
        print(
            "tactus replay: actions: not given; an .npz of --record_actions, or a LeRobotDataset's folder",
            file=sys.stderr,
        )
        return USAGE
    try:
        recording = read_recording(Path(config.actions), config.dataset_episode)
    except SpecError as error:
        print(f"tactus replay: {error}", file=sys.stderr)
        return USAGE
    _begin_at(config, recording.first)
    return run_episodes("replay", config, by_hand(config, lambda: recording, "replay"))


def _begin_at(config: Replay, first: Mapping[str, float]) -> None:
    """Arms go slowly to where the recording begins, before it begins."""
    found = arms(config.robot)
    for part, arm in found.items():
        prefix = f"{part}." if len(found) > 1 else ""
        pose = {joint: first[f"{prefix}{joint}.pos"] for joint in arm.joints if f"{prefix}{joint}.pos" in first}
        arm.governor.start_pose = pose or arm.governor.start_pose
