"""`tactus twin`: an emulated rig, which any program can talk to as to a real one."""

from __future__ import annotations

import dataclasses
import re
import sys

import draccus
from draccus.utils import DecodingError, ParsingError

from tactus.hal.robot import RobotError
from tactus.hal.twin.cameras import CamerasConfig
from tactus.hal.twin.config import ArmConfig, TwinConfig
from tactus.hal.twin.process import run
from tactus.runtime.commands.parts import merge_parts


def main(arguments: list[str]) -> int:
    """Exit status 0 when stopped by a signal, 2 if the twin cannot be built as configured."""
    try:
        config = draccus.parse(TwinConfig, args=merge_parts(arguments, "arms"), prog="tactus twin")
        return run(config)
    except (RobotError, DecodingError, ParsingError, ValueError, TypeError, OSError) as error:
        cause: BaseException = error
        while "Couldn't instantiate class" in str(cause) and cause.__cause__ is not None:
            cause = cause.__cause__
        print(f"tactus twin: {cause}{_accepted(str(cause))}\n(`tactus twin --help` lists every key)", file=sys.stderr)
        return 2


def _accepted(complaint: str) -> str:
    """draccus names the fields it does not know; say which there are."""
    named = re.search(r"not valid for (\w+)", complaint)
    for choice in (TwinConfig, ArmConfig, CamerasConfig):
        if named and choice.__name__ == named[1]:
            return f"; known: {', '.join(field.name for field in dataclasses.fields(choice))}"
    return ""
