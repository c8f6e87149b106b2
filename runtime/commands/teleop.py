"""`tactus teleop`: a person's hand drives the robot, on the beat; with --dataset_root it is recorded."""

from __future__ import annotations

import contextlib
import sys

from tactus.runtime.commands.arguments import is_given
from tactus.runtime.commands.config import Teleop
from tactus.runtime.commands.drivers import by_hand
from tactus.runtime.commands.episodes import FAILED, run_episodes
from tactus.runtime.commands.record import recorder_of
from tactus.runtime.recording.dataset import DatasetError


def main(config: Teleop, arguments: list[str]) -> int:
    """Exit status 0 when every episode ended. At a terminal the person ends episodes, and a limit on their length
    counts only if the command line gives it; what is not recorded is one episode, unless it says otherwise."""
    recorded = config.dataset_root is not None
    if not recorded and not is_given(arguments, "episodes"):
        config.episodes = 1
    if sys.stdin.isatty() and not is_given(arguments, "max_ticks"):
        config.max_ticks = None
    try:
        with contextlib.ExitStack() as stack:
            kind = type(config.teleop).get_choice_name(type(config.teleop))
            drive = by_hand(config, config.teleop.make, f"teleop {kind}", asks=recorded)
            return run_episodes("teleop", config, drive, recorder_of(config, True, stack) if recorded else None)
    except DatasetError as error:
        print(f"tactus teleop: {error}", file=sys.stderr)
        return FAILED
