"""The process behind `tactus twin`: builds an emulated rig, tells where ports and cameras are, serves, cleans up."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tactus.hal.robot import RobotError
from tactus.hal.twin.config import TwinConfig
from tactus.hal.twin.control_requests import ControlRequests
from tactus.hal.twin.twin import Twin

DESCRIPTION, KEYS = "twin.json", "robot.keys"
CAMERAS_ENDED = "the cameras' process has ended; why stands above"


def run(config: TwinConfig) -> int:
    """Be a twin until a signal, or the end of the parent. Returns the exit status: 1 if its cameras failed.

    Raises RobotError or ValueError for what cannot be built as configured.
    """
    watched: dict[int, str] = {}
    if config.parent is not None:
        try:
            watched[os.pidfd_open(config.parent)] = f"process {config.parent} has ended"
        except ProcessLookupError:
            raise RobotError(f"parent: there is no process {config.parent}") from None
    twin = Twin(config)

    def stop(signum: int, frame: FrameType | None) -> None:
        twin.stop()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    try:
        twin.start_cameras()
        if twin.cameras:
            watched[twin.cameras.ended()] = CAMERAS_ENDED
        about = twin.describe()
        _write(twin.folder / KEYS, "".join(f"{key}\n" for key in robot_keys(about)))
        _write(twin.folder / DESCRIPTION, json.dumps(about, indent=2))
        print(f"priority: {_ask_for_real_time()}")
        for name, arm in about["arms"].items():
            print(f"port {name}: {arm['port']} ({arm['kind']}, {arm['protocol']}, {arm['baudrate']} bit/s)")
        for name, url in about["cameras"].items():
            print(f"camera {name}: {url}")
        print("twin: ready", flush=True)
        why = twin.run(watched, ControlRequests(twin).answer)
        if why != "stopped":
            print(f"twin: {why}", file=sys.stderr)
        return int(why == CAMERAS_ENDED)
    finally:
        twin.close()
        for name in (DESCRIPTION, KEYS):
            (twin.folder / name).unlink(missing_ok=True)


def robot_keys(about: dict[str, Any]) -> list[str]:
    """Command-line keys for a rig whose parts are called as the twin's arms and cameras: where each is.

    A leader is `teleop.arm`; of several, `leader_left` is the part `left` of it.
    """
    leaders = [name for name, arm in about["arms"].items() if arm["role"] == "leader"]
    keys = []
    for name, arm in about["arms"].items():
        section = f"robot.parts.{name}"
        if name in leaders:
            section = "teleop.arm" if len(leaders) == 1 else f"teleop.arm.parts.{name.removeprefix('leader_')}"
        keys.append(f"--{section}.port={arm['port']}")
        if arm["calibration"]:
            keys.append(f"--{section}.calibration={arm['calibration']}")
    keys += [f"--robot.parts.{name}.source={url}" for name, url in about["cameras"].items()]
    if about["world"] == "table":
        keys += ["--robot.parts.scene.type=twin_scene", f"--robot.parts.scene.folder={Path(about['control']).parent}"]
    return keys


def _ask_for_real_time() -> str:
    """Servos and adapters are processors of their own on a real arm: ask not to wait for this machine's others."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return "normal (real-time was not permitted); answers may be late while the machine is busy"
    return "real-time"


def _write(file: Path, text: str) -> None:
    """All at once: a reader never sees half a file."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)
