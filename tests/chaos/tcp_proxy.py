"""A cable that can be pulled: bytes between TCP peers, whatever they say, encrypted or not."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024


class TcpProxy:
    """Connect to `endpoint` instead of `target` (tcp://HOST:PORT); threads carry the bytes.

    stall/flow: bytes wait, and go on; nothing is lost. cut: every connection is broken; new ones are made as before.
    down/up: the same, and nobody gets a new one meanwhile.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._flowing, self._lock = threading.Event(), threading.Lock()
        self._flowing.set()
        self._is_up = True
        self._ends: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def down(self) -> None:
        self._is_up = False
        self.cut()

    def up(self) -> None:
        self._is_up = True

    def _accept(self) -> None:
        while True:
            try:
                robot, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self._is_up:
                    raise ConnectionRefusedError
                node = socket.create_connection(self._target, 1)
                node.settimeout(None)
            except OSError:
                robot.close()
                continue
            self.connections += 1
            with self._lock:
                self._ends |= {robot, node}
            for source, sink in ((robot, node), (node, robot)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):  # one end has gone: so does the other
            sink.shutdown(socket.SHUT_RDWR)
