"""The client of a twin's control socket: faults, state, the scene."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tactus.hal.robot import RobotError

NAME = "control"


def socket_address(folder: Path, directory: int) -> str:
    """A path of the socket that is short whatever the folder's is: Unix allows 107 bytes."""
    return f"/proc/self/fd/{directory}/{NAME}"


class TwinControl:
    """One connection to the twin in `folder`. Raises RobotError if there is none, or it refuses a request."""

    def __init__(self, folder: Path | str, timeout_s: float = 10.0) -> None:
        self._folder = Path(folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._socket.connect(socket_address(self._folder, directory))
            finally:
                os.close(directory)
        except OSError as error:
            self._socket.close()
            raise RobotError(
                f"no twin answers in {folder} ({error.strerror}); start one: tactus twin --folder={folder}"
            ) from error
        self._lines = self._socket.makefile("rb")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request, e.g. ask(do="fault", kind="lost", arm="follower", probability=0.1); its answer."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise RobotError(f"the twin in {self._folder} does not answer: {error}") from error
        if not line:
            raise RobotError(f"the twin in {self._folder} has ended")
        answer = json.loads(line)
        if "error" in answer and not answer.get("ok"):
            raise RobotError(f"twin: {answer['error']}")
        return answer

    def close(self) -> None:
        """Let go of the connection."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
