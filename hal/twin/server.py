"""The twin's end of the control socket: JSON lines, one answer for each request."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tactus.hal.robot import RobotError
from tactus.hal.twin.control import NAME, TwinControl, socket_address

LINE_BYTES = 65_536


class ControlServer:
    """Listens in the twin's folder. Raises RobotError if another twin does already."""

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

    def serve(self, fd: int, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
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


def _answer(line: bytes, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise RobotError(f"a request is a JSON object; found {line[:80]!r}")
        return {"ok": True, **answer(request)}
    except (RobotError, ValueError, TypeError) as error:
        return {"ok": False, "error": str(error)}
