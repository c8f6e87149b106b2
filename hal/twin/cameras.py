"""The twin's cameras: starts, controls and ends the process that renders and serves them (camera_process.py)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tactus.hal.robot import RobotError
from tactus.hal.twin.config import CamerasConfig

FAULTS = ("freeze", "stop", "start")
START_S = 60.0


class Cameras:
    """A running camera process. `urls`: camera -> stream. Raises RobotError if it does not come up.

    poses: the file that the physics writes poses to; arms and model: as the physics has them. The process ends with
    this object, and with this process whatever it dies of.
    """

    def __init__(self, config: CamerasConfig, arms: Sequence[str], model: str | None, poses: Path) -> None:
        settings = {**asdict(config), "arms": list(arms), "model": model, "poses": str(poses)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tactus.hal.twin.camera_process", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        try:
            self.urls: dict[str, str] = self._started()
        except BaseException:
            self.close()
            raise

    def _started(self) -> dict[str, str]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], (), (), START_S)[0]:
            raise RobotError(f"the twin's cameras did not start within {START_S:g} s")
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "their process ended; it says why above"}
        if "error" in answer:
            raise RobotError(f"the twin's cameras: {answer['error']}")
        return answer["urls"]

    def fault(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """{"camera": name, "kind": "freeze" | "stop" | "start"}: takes effect within a frame; does not wait for it.

        freeze: connections stay open, no frames come. stop: port and connections are closed. start: all is well again.
        """
        name, kind = request.get("camera"), request.get("kind")
        if name not in self.urls:
            raise RobotError(f"camera_fault camera: found {name!r}; accepted: {', '.join(self.urls) or 'none'}")
        if kind not in FAULTS:
            raise RobotError(f"camera_fault kind: found {kind!r}; accepted: {', '.join(FAULTS)}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"camera": name, "kind": kind}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RobotError(f"the twin's cameras have ended: {error}") from error
        return {}

    def ended(self) -> int:
        """A file descriptor that becomes readable when their process ends, whatever of."""
        return os.pidfd_open(self.pid)

    def close(self) -> None:
        """End the process: it goes when its input does."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
