"""`tactus replay`: play recorded actions on the robot, on the beat."""

from __future__ import annotations

import sys
from pathlib import Path

from hal.spec import SpecError
from runtime.commands.config import parse
from runtime.commands.drivers import by_hand
from runtime.commands.episodes import USAGE, run_episodes
from runtime.recording import read_recording


def main(arguments: list[str]) -> int:
    """Exit status 0 when every episode was played; --episodes is how often."""
    once = [] if any(argument.startswith("--episodes") for argument in arguments) else ["--episodes=1"]
    config = parse("replay", [*arguments, *once])
    if config.actions is None:
        print(
            "tactus replay: actions: not given; an .npz of --record_actions, or a LeRobotDataset's folder",
            file=sys.stderr,
        )
        return USAGE
    try:
        recording = read_recording(Path(config.actions).expanduser(), config.dataset_episode)
    except SpecError as error:
        print(f"tactus replay: {error}", file=sys.stderr)
        return USAGE
    return run_episodes("replay", config, by_hand(config, recording, "replay"))
