"""`tactus twin`: an emulated rig, which any program can talk to as to a real one."""

from __future__ import annotations

import sys

from tactus.hal.robot import RobotError
from tactus.hal.twin.config import TwinConfig
from tactus.hal.twin.process import run


def main(config: TwinConfig, arguments: list[str]) -> int:
    """Exit status 0 when stopped by a signal, 2 if the twin cannot be built as configured."""
    try:
        return run(config)
    except (RobotError, ValueError, OSError) as error:
        print(f"tactus twin: {error}", file=sys.stderr)
        return 2
