"""Starts and ends the guardian (guardian.py), the process that switches torque off when this one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tactus.hal.robot import RobotError

START_S = 10.0
GOODBYE_S = 2.0


class GuardianProcess:
    """A running guardian (guardian.py), in a session of its own, so that no terminal's signal reaches it."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: int) -> None:
        self._process = process
        self._pipe = pipe

    @classmethod
    def start(cls, order: Mapping[str, Any]) -> Self:
        """Start a guardian for this process; returns when it is ready. order: what Hardware.guardian gives.

        Raises RobotError if it does not start.
        """
        file = Path(__file__).with_name("guardian.py")
        order = {"parent": os.getpid(), "log": str(_log()), **order}
        end, pipe = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(file)], stdin=end, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            os.close(pipe)
            raise RobotError(f"the guardian process cannot be started: {error}") from error
        finally:
            os.close(end)
        guardian = cls(process, pipe)
        try:
            os.write(pipe, json.dumps(order).encode() + b"\n")
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_S)
            if not ready or process.stdout.readline() != b"ready\n":
                raise RobotError("the guardian process did not start; without it torque stays on after a SIGKILL")
        except BaseException as error:
            guardian._end()
            if isinstance(error, OSError):
                raise RobotError(f"the guardian process ended at once: {error}") from error
            raise
        return guardian

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def disarm(self) -> None:
        """End it: nothing is to be switched off. Returns when it has ended."""
        if self._pipe >= 0:
            try:
                os.write(self._pipe, b"goodbye\n")
            except BrokenPipeError:  # it has ended already, and done what it did
                self._end()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):  # then it is ended
                self._process.wait(GOODBYE_S)
            self._end()

    def abandon(self) -> None:
        """Let it switch the torque off, which could not be done here; the port is closed."""
        os.close(self._pipe)
        self._pipe = -1

    def _end(self) -> None:
        """Kill it before its pipe closes, so that it does nothing any more."""
        self._process.kill()
        self._process.wait()
        os.close(self._pipe)
        self._pipe = -1
        if self._process.stdout is not None:
            self._process.stdout.close()


def _log() -> Path:
    folder = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tactus"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RobotError(f"the guardian has no place for its log: {folder}: {error}") from error
    return folder / "guardian.log"
