"""A thread that keeps the newest frame of a source and reopens the source when it freezes; readers never wait.

    take 1   open ok ---- frame frame frame ........ frozen ..(read times out, released)
    keeper                                   |reopen_after_s| abandons it
    take 2                                                   open .. fails
                                                                     |back-off|
    take 3                                                                     open ok -- frame frame
    newest            f1   f2    f3    f3    f3    f3    f3                               f4    f5

A blocked read cannot be interrupted and its capture cannot be released by another thread, so a frozen take is left to
end by itself, and a new one opens the source anew.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from tactus.hal.camera.frame import Frame
from tactus.hal.camera.source import Open
from tactus.hal.robot import RobotError

BACK_OFF_S = (0.1, 0.2, 0.4, 0.8)
"""Pauses between attempts to open; the last one repeats. Short, so that a stream that is back is seen at once."""

MOST_STUCK = 4
"""No further attempt while so many abandoned ones have not ended."""

RATE_OVER = 60
"""Frames over which the rate is measured."""


class Grabber:
    """Grabs frames in a thread of its own: `newest` is the newest, `fault` what cannot mend (another size, no device).

    check: raises RobotError on a frame that is not as configured; asked for the first one of an opening, and when their
    size changes. finite: the source has an end, after which it is not opened again.
    """

    def __init__(
        self,
        name: str,
        open_source: Open,
        check: Callable[[np.ndarray], None],
        reopen_after_s: float,
        open_timeout_s: float,
        finite: bool = False,
    ) -> None:
        self.newest: Frame | None = None
        self.fault: RobotError | None = None
        self.trouble = ""
        """Why there is no new frame, while there is none."""
        self.frozen = 0
        """Times that a source gave no frame for reopen_after_s."""
        self.reopened = 0
        """Times that frames came again after an opening."""
        self._name = name
        self._open = open_source
        self._check = check
        self._reopen_after_s = reopen_after_s
        self._open_timeout_s = open_timeout_s
        self._finite = finite
        self._events: deque[str] = deque(maxlen=100)
        self._lock = threading.Lock()
        self._arrivals_s: deque[float] = deque(maxlen=RATE_OVER)
        self._decode_ms: deque[float] = deque(maxlen=RATE_OVER)
        self._first = threading.Event()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._take: _Take | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"camera {name} keeper", daemon=True)

    def start(self) -> None:
        """Open the source; returns with the first frame there. Raises RobotError if it does not come."""
        self._keeper.start()
        try:
            self._first.wait()
            if self.fault is not None:
                raise self.fault
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the threads. One that is stuck in a read is not waited for: it ends with the read."""
        self._closing.set()
        self._wake.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        if self._take is not None:
            self._take.thread.join(timeout=0.5)

    def events(self) -> list[str]:
        said = []
        while self._events:
            said.append(self._events.popleft())
        return said

    def rate(self) -> float:
        """Frames per s over the last ones; 0 before there are two."""
        with self._lock:
            arrivals_s = list(self._arrivals_s)
        if len(arrivals_s) < 2:
            return 0.0
        return (len(arrivals_s) - 1) / (arrivals_s[-1] - arrivals_s[0])

    def decode_ms(self) -> float:
        """Median cost of making a frame of what arrived."""
        with self._lock:
            return float(np.median(self._decode_ms)) if self._decode_ms else 0.0

    def _keep(self) -> None:
        stuck: list[threading.Thread] = []
        failures = 0
        lost_s: float | None = None
        while not self._closing.is_set():
            stuck = [thread for thread in stuck if thread.is_alive()]
            if len(stuck) < MOST_STUCK:
                self._take = take = _Take(self, lost_s)
                why = self._watch(take)
                take.abandoned.set()
                stuck.append(take.thread)
                if self._closing.is_set():
                    break
                if self.newest is None:
                    self.fault = self.fault or RobotError(why)
                if self.fault is not None or (self._finite and take.over.is_set()):
                    self._events.append(why)
                    self.trouble = why
                    break
                if take.frames:
                    failures, lost_s = 0, take.last_s
                    self._events.append(f"{why}; opening it anew")
                self.trouble = why
            self._closing.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
            failures += 1
        self._first.set()

    def _watch(self, take: _Take) -> str:
        """Until the take is over or out of patience; returns why."""
        take.thread.start()
        while not (take.over.is_set() or self._closing.is_set()):
            patience_s = self._reopen_after_s if take.frames else self._open_timeout_s
            left_s = take.last_s + patience_s - time.monotonic()
            if left_s <= 0:
                if take.frames:
                    self.frozen += 1
                    return f"no new frame for {patience_s:.1f} s"
                return f"camera {self._name}: no frame within {patience_s:.1f} s of opening it"
            if self._wake.wait(left_s):
                self._wake.clear()
        return take.why

    def _received(self, take: _Take, frame: Frame) -> None:
        """From a take's thread."""
        if frame.bgr.shape != take.shape:
            try:
                self._check(frame.bgr)
            except RobotError as error:
                if take.frames == 0:  # in mid-stream, opening it anew may set it right
                    self.fault = error
                raise
            take.shape = frame.bgr.shape
        take.last_s = time.monotonic()
        with self._lock:
            self._arrivals_s.append(take.last_s)
            self._decode_ms.append(frame.decode_ms)
        self.newest = frame
        take.frames += 1
        if take.frames > 1:
            return
        if take.lost_s is not None:
            self.reopened += 1
            self.trouble = ""
            self._events.append(f"frames again, after {take.last_s - take.lost_s:.1f} s without")
        self._first.set()
        self._wake.set()  # the keeper's patience is another one from here on


class _Take:
    """One opening of the source, in a thread of its own, until it ends, fails or is abandoned."""

    def __init__(self, grabber: Grabber, lost_s: float | None) -> None:
        self.lost_s = lost_s
        self.frames = 0
        self.last_s = time.monotonic()
        self.why = ""
        self.shape: tuple[int, ...] = ()
        self.abandoned = threading.Event()
        self.over = threading.Event()
        self._grabber = grabber
        self.thread = threading.Thread(target=self._run, name=f"camera {grabber._name}", daemon=True)

    def _run(self) -> None:
        try:
            source = self._grabber._open(self.abandoned)
            try:
                while (frame := source.read()) is not None and not self.abandoned.is_set():
                    self._grabber._received(self, frame)
                self.why = "the file has ended" if self._grabber._finite else "the stream has ended"
            finally:
                source.release()
        except RobotError as error:
            self.why = str(error)
        except cv2.error as error:
            self.why = f"camera {self._grabber._name}: OpenCV failed: {error}"
        finally:
            self.over.set()
            if not self.abandoned.is_set():
                self._grabber._wake.set()
