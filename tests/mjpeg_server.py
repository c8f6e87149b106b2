"""An MJPEG camera server in a process of its own, whose frames say when they were taken and which way is up.

    corners: red, green / blue, white; across the middle 8 black or white blocks: the frame's number, modulo 256

Frame number n of a stream is taken at the same moment for all its viewers; that moment is in shared memory and in the
part's X-Timestamp header, in monotonic ns. A frozen stream sends nothing and keeps its connections open.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

CODES = 256
_spawn = multiprocessing.get_context("spawn")


def draw(number: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB[height, width, 3]."""
    picture = np.empty((height, width, 3), np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    picture[top, left], picture[top, right] = (255, 0, 0), (0, 255, 0)
    picture[bottom, left], picture[bottom, right] = (0, 0, 255), (255, 255, 255)
    for bit in range(8):
        block = slice(bit * width // 8, (bit + 1) * width // 8)
        picture[height * 3 // 8 : height * 5 // 8, block] = 255 * (number % CODES >> bit & 1)
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number (modulo 256) in a picture that `draw` made."""
    height, width = picture.shape[:2]
    middles = [(2 * bit + 1) * width // 16 for bit in range(8)]
    return sum(int(picture[height // 2, x].mean() > 127) << bit for bit, x in enumerate(middles))


def corners_of(picture: np.ndarray) -> list[list[int]]:
    """Colours of the four corners, top left to bottom right, each channel 0 or 1."""
    height, width = picture.shape[:2]
    at = [(height // 6, width // 6), (height // 6, width * 5 // 6), (height * 5 // 6, width // 6)]
    return [(picture[y, x] > 127).astype(int).tolist() for y, x in [*at, (height * 5 // 6, width * 5 // 6)]]


CORNERS = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


class MjpegServer:
    """`streams` cameras at url(0), url(1), …; `stop` kills the process, `start` brings it back on the same port."""

    def __init__(self, streams: int = 1, width: int = 160, height: int = 120, fps: float = 30.0) -> None:
        self._settings = (streams, width, height, fps)
        self._taken_ns = [_spawn.Array("q", CODES, lock=False) for _ in range(streams)]
        self._frozen = [_spawn.Value("b", 0, lock=False) for _ in range(streams)]
        self._doubled = _spawn.Value("b", 0, lock=False)
        self._process: Any = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def url(self, stream: int = 0) -> str:
        return f"http://127.0.0.1:{self.port}/{stream}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def freeze(self, stream: int = 0) -> None:
        self._frozen[stream].value = 1

    def thaw(self, stream: int = 0) -> None:
        self._frozen[stream].value = 0

    def double(self, on: bool = True) -> None:
        """From the next frame on, pictures are twice as wide and high."""
        self._doubled.value = on

    def taken_ns(self, picture: np.ndarray, stream: int = 0) -> int:
        """When the newest frame with this picture's number was taken."""
        return self._taken_ns[stream][number_of(picture)]

    def taken_at(self, stream: int = 0) -> Any:
        """When the newest frame of each number was taken, monotonic ns; may be handed to another process."""
        return self._taken_ns[stream]

    def start(self) -> None:
        ready = _spawn.Event()
        arguments = (self.port, self._settings, self._taken_ns, self._frozen, self._doubled, ready)
        self._process = _spawn.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        assert ready.wait(20), "the MJPEG server did not start"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Stream:
    """Takes frames at its rate; viewers wait for the next one."""

    def __init__(self, fps: float, taken_ns: Any, frozen: Any) -> None:
        self._fps, self._taken_ns, self._frozen = fps, taken_ns, frozen
        self.number = -1
        self.news = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        next_s = time.monotonic()
        while True:
            next_s += 1 / self._fps
            time.sleep(max(next_s - time.monotonic(), 0))
            if not self._frozen.value:
                with self.news:
                    self.number += 1
                    self._taken_ns[self.number % CODES] = time.monotonic_ns()
                    self.news.notify_all()

    def view(self, connection: socket.socket, jpeg_of: Callable[[int], bytes]) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        seen = self.number
        while True:
            with self.news:
                while self.number == seen:
                    self.news.wait()
                seen = self.number
            jpeg, taken_ns = jpeg_of(seen % CODES), self._taken_ns[seen % CODES]
            head = (
                f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\nX-Timestamp: {taken_ns}\r\n\r\n"
            )
            connection.sendall(head.encode() + jpeg + b"\r\n")


def _serve(
    port: int, settings: tuple[int, int, int, float], taken_ns: Any, frozen: Any, doubled: Any, ready: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    streams, width, height, fps = settings
    pictures = [cv2.cvtColor(draw(number, width, height), cv2.COLOR_RGB2BGR) for number in range(CODES)]
    jpegs = [[_jpeg(cv2.resize(picture, None, fx=by, fy=by)) for picture in pictures] for by in (1, 2)]
    cameras = [_Stream(fps, taken_ns[i], frozen[i]) for i in range(streams)]
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as listener:
        ready.set()
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(
                target=_welcome, args=(connection, cameras, lambda n: jpegs[doubled.value][n]), daemon=True
            ).start()


def _jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _welcome(connection: socket.socket, cameras: list[_Stream], jpeg_of: Callable[[int], bytes]) -> None:
    with connection:
        asked = connection.recv(4096).split(b" ")[1].strip(b"/")
        try:
            cameras[int(asked)].view(connection, jpeg_of)
        except OSError:
            return  # the viewer has gone
