"""The twin's control socket, through which faults, state and the scene are asked for: its client and its server.

A Unix socket in the twin's folder; requests and answers are lines of JSON, one answer for each request.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tactus.hal.robot import RobotError

NAME = "control"
LINE_BYTES = 65_536

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers one request. Raises RobotError, ValueError or TypeError for one that cannot be met."""


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

    def __exit__(self, *error: object) -> None:
        self.close()


class ControlServer:
    """Listens in the twin's folder. Raises ValueError if another twin does already."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        with contextlib.suppress(RobotError), TwinControl(folder):
            raise ValueError(f"a twin runs in {folder} already; stop it, or give another --folder")
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._listener.bind(socket_address(folder, directory))
        finally:
            os.close(directory)
        self._listener.listen()
        self._clients: dict[int, tuple[socket.socket, bytearray]] = {}

    @property
    def fds(self) -> list[int]:
        """To wait for."""
        return [self._listener.fileno(), *self._clients]

    def serve(self, fd: int, answer: Answer) -> None:
        """What is readable on `fd`: a new client, or requests of an old one."""
        if fd == self._listener.fileno():
            client, _ = self._listener.accept()
            self._clients[client.fileno()] = (client, bytearray())
            return
        client, buffer = self._clients[fd]
        try:
            data = client.recv(LINE_BYTES)
        except OSError:
            data = b""
        buffer += data
        if not data or len(buffer) > LINE_BYTES:
            del self._clients[fd]
            client.close()
            return
        while b"\n" in buffer:
            line, _, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            with contextlib.suppress(OSError):  # it did not wait for its answer
                client.sendall(json.dumps(_answer(line, answer)).encode() + b"\n")

    def close(self) -> None:
        """Hang up on everybody."""
        for client, _ in self._clients.values():
            client.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _answer(line: bytes, answer: Answer) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise RobotError(f"a request is a JSON object; found {line[:80]!r}")
        return {"ok": True, **answer(request)}
    except (RobotError, ValueError, TypeError) as error:
        return {"ok": False, "error": str(error)}
