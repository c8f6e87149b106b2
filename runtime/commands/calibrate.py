"""`tactus calibrate`: find an arm's calibration with a person's help, or write one that exists to its servos."""

from __future__ import annotations

import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tactus.hal.arm.calibration_procedure import CalibrationProcedure
from tactus.hal.arm.joints import Joint, turning
from tactus.hal.interrupts import interrupted_by
from tactus.hal.robot import RobotError
from tactus.hal.servo.calibration import Calibration, check_replaceable, load, save, whole_turns
from tactus.runtime.commands.arms import the_arm
from tactus.runtime.commands.config import Calibrate
from tactus.runtime.commands.episodes import FAILED, INTERRUPTED
from tactus.runtime.commands.paths import why_not

LOOK_S = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(config: Calibrate, arguments: list[str]) -> int:
    """Exit status 0 when servos and file agree."""
    # whoever ends the command, by whatever means, gets the servos' calibration put back
    interrupted_by(*SIGNALS)
    try:
        _calibrate(config)
    except RobotError as error:
        print(f"tactus calibrate: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\ntactus calibrate: interrupted; no file was written", file=sys.stderr)
        return INTERRUPTED
    return 0


def _calibrate(config: Calibrate) -> None:
    console = Console(highlight=False)
    arm = the_arm(config.robot, config.part)
    file = arm.calibration_file(new=True)
    given = Path(config.from_file) if config.from_file is not None else None
    if given is None and not sys.stdin.isatty():
        raise RobotError("calibration needs a person at a terminal; or give --from=FILE")
    if why := why_not(file, "file"):
        raise RobotError(f"calibration: {file} cannot be written: {why}")
    bus = arm.make_bus()
    check_replaceable(file, bus.motors)
    with bus:
        bus.check()
        for line in bus.warnings():
            console.print(f"note: {line}", markup=False)
        steps = CalibrationProcedure(bus, arm.joints)
        if given is not None:
            calibration: Calibration = load(given, bus.motors)
            _store(file, calibration, steps)
        else:
            try:
                calibration = _find(console, steps, arm.joints, config.check_joints)
                _store(file, calibration, steps)
            except (RobotError, KeyboardInterrupt):
                for signum in SIGNALS:
                    signal.signal(signum, signal.SIG_IGN)
                steps.undo()
                raise
    console.print(f"calibration: {file}, and in the servos", markup=False, soft_wrap=True)
    for line in whole_turns(calibration, bus.motors, turning(arm.joints)):
        console.print(f"note: {line}", markup=False)


def _store(file: Path, calibration: Calibration, steps: CalibrationProcedure) -> None:
    """Into the file, then into the servos; if they do not take it, the file is as it was."""
    before = file.read_bytes() if file.exists() else None
    save(file, calibration)
    try:
        steps.store(calibration)
    except BaseException:
        file.unlink() if before is None else file.write_bytes(before)
        raise


def _find(console: Console, steps: CalibrationProcedure, joints: Mapping[str, Joint], check: bool) -> Calibration:
    _wait("The arm goes limp: hold it, then press Enter")
    steps.release()
    _wait("Move every joint to the middle of its range, then press Enter")
    steps.home()
    if check:
        _check_joints(steps, joints)
    turning = ", ".join(name for name, joint in joints.items() if joint.full_turn)
    console.print(f"Move every joint from stop to stop{f' ({turning} may turn freely)' if turning else ''}")
    _ranges(console, steps)
    return steps.result()


def _wait(prompt: str) -> None:
    try:
        input(f"{prompt} ")
    except EOFError:
        raise RobotError("calibration needs a person at a terminal; or give --from=FILE") from None


def _ranges(console: Console, steps: CalibrationProcedure) -> None:
    """A table that follows the arm, until Enter."""
    with Live(console=console, refresh_per_second=10) as live:
        while True:
            table = Table(
                "joint", "least", "now", "most", caption="Enter when every joint has been at both stops", box=None
            )
            for name, (least, now, most) in steps.observe().items():
                table.add_row(name, str(least), str(now), str(most))
            live.update(table)
            if select.select([sys.stdin], [], [], 0)[0]:
                sys.stdin.readline()
                return
            time.sleep(LOOK_S)


def _check_joints(steps: CalibrationProcedure, joints: Mapping[str, Joint]) -> None:
    """Names and signs: whether each joint is the one it is called, and counts up the way policies expect."""
    for name, joint in joints.items():
        before = steps.positions()
        which = f"{name} {joint.positive}".strip()
        _wait(f"Move {which}, and nothing else, then press Enter")
        try:
            steps.check_moved(name, before)
        except RobotError as error:
            raise RobotError(f"{error} (--check_joints=false leaves this out)") from error
