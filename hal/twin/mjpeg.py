"""An MJPEG stream over HTTP, as network cameras serve it: JPEGs one after the other."""

from __future__ import annotations

import contextlib
import socket
import threading

import cv2
import numpy as np

SEND_TIMEOUT_S = 5.0
"""A client that takes nothing for so long has gone."""
HEAD = (
    b"HTTP/1.0 200 OK\r\nCache-Control: no-store\r\nConnection: close\r\n"
    b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
)


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """rgb: uint8[H, W, 3]; quality: 1-100."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


class MjpegStream:
    """Serves the newest JPEG on a loopback port; a slow client misses frames and delays nobody.

    frozen: connections stay open and nothing comes, as when a camera hangs. Each part's header carries
    X-Timestamp, the monotonic time of capture in ns.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.port = 0
        self._listener: socket.socket | None = None
        self._clients: set[socket.socket] = set()
        self._new = threading.Condition()
        self._frame: tuple[int, bytes] = (0, b"")
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.name}.mjpg"

    @property
    def watched(self) -> bool:
        """Whether anybody would see a frame that is published now."""
        return bool(self._clients) and not self.frozen

    def start(self) -> None:
        """Listen, on the same port as before; and go on if it was frozen."""
        self.frozen = False
        if self._listener is None:
            listener = socket.create_server(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection, as when a camera loses power."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        with self._new:
            clients, self._clients = self._clients, set()
            self._new.notify_all()
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def publish(self, jpeg: bytes, stamp_ns: int) -> None:
        """Make this the newest frame; dropped while frozen."""
        with self._new:
            if not self.frozen:
                self._frame = (stamp_ns, jpeg)
                self._new.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # stopped
            threading.Thread(target=self._serve, args=(client, listener), daemon=True).start()

    def _serve(self, client: socket.socket, listener: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(SEND_TIMEOUT_S)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = b""
            while b"\r\n\r\n" not in request and len(request) < 8192:
                received = client.recv(4096)
                if not received:
                    return
                request += received
            client.sendall(HEAD)
            self._send_frames(client, listener)

    def _send_frames(self, client: socket.socket, listener: socket.socket) -> None:
        with self._new:
            if self._listener is not listener:
                return
            self._clients.add(client)
            sent = self._frame
        try:
            while (frame := self._after(sent, client)) is not None:
                sent = frame
                stamp_ns, jpeg = frame
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
                client.sendall(f"{head}X-Timestamp: {stamp_ns}\r\n\r\n".encode() + jpeg + b"\r\n")
        finally:
            with self._new:
                self._clients.discard(client)

    def _after(self, sent: tuple[int, bytes], client: socket.socket) -> tuple[int, bytes] | None:
        """Wait for the next frame; None if the stream was stopped."""
        with self._new:
            self._new.wait_for(lambda: self._frame is not sent or client not in self._clients)
            return self._frame if client in self._clients else None
