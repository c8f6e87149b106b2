"""Three MJPEG streams of 640x480 at 30 fps, watched by a 30 Hz control loop; one freezes, then its server is killed.

    python tests/bench/cameras.py [--seconds=60] [--busy=0]

    0 ------------ 1/3 ====== freeze of stream 1, 5 s ------------ 2/3 === its server is killed, 3 s ------------ end

The cameras run at 29.97 frames per s, so that every phase between their clocks and the loop's comes by.
Each tick reads the newest picture of each stream and the number in its pixels; the age is from the moment the server
took that frame to the moment the loop holds it as RGB (one clock: all is one machine). Each server is a process of its
own, each contender too, one after the other in the same run:
- tactus: three `camera` robots in a Rig
- lerobot: three OpenCVCamera of LeRobot 0.6.1, `read_latest`; what it raises is counted, and the loop goes on
- bare: the same loop without cameras: the limit for lateness and CPU
--busy=N starts N processes that do nothing but compute.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from mjpeg_server import MjpegServer, number_of

FPS, CAMERA_FPS, STREAMS, SIZE = 30.0, 29.97, 3, {"width": 640, "height": 480}
FREEZE_S, KILL_S, FRESH_MS = 5.0, 3.0, 200.0

Look = Callable[[], list[np.ndarray | None]]
"""The newest RGB picture of each stream; None where the contender raised instead."""
_spawn = multiprocessing.get_context("spawn")


@dataclass
class Result:
    """Times in s since the loop's beginning, which was at begin_s, monotonic."""

    begin_s: float = 0.0
    ticks_s: list[float] = field(default_factory=list)
    lateness_ms: list[float] = field(default_factory=list)
    look_ms: list[float] = field(default_factory=list)
    ages_ms: list[list[float]] = field(default_factory=list)
    """Per tick and stream; NaN where there was no picture."""
    events: list[str] = field(default_factory=list)
    raised: Counter = field(default_factory=Counter)
    cpu: float = 0.0


class Disturbance:
    """Freezes stream 1 and kills its server at their times, from the servers' side; called between ticks."""

    def __init__(self, order: Any, seconds: float) -> None:
        self._order = order
        self.plan = [(seconds / 3, "freeze"), (seconds / 3 + FREEZE_S, "thaw")]
        self.plan += [(seconds * 2 / 3, "stop"), (seconds * 2 / 3 + KILL_S, "start")]
        self._left = list(self.plan)

    def at(self, now_s: float) -> None:
        while self._left and now_s >= self._left[0][0]:
            self._order.put(self._left.pop(0)[1])


def tactus(urls: list[str], result: Result) -> tuple[Look, Callable[[], None]]:
    from tactus.hal.camera import CameraConfig
    from tactus.hal.rig import RigConfig
    from tactus.hal.spec import IMAGES

    parts: dict[str, Any] = {f"c{i}": CameraConfig(source=url, name=f"c{i}", **SIZE) for i, url in enumerate(urls)}
    rig = RigConfig(parts=parts).make()
    rig.connect()

    def look() -> list[np.ndarray | None]:
        arrays = rig.observe().arrays
        seen: list[np.ndarray | None] = [arrays[f"{IMAGES}c{i}"] for i in range(STREAMS)]
        result.events += rig.events()
        return seen

    def close() -> None:
        result.events.append(f"counters: {rig.counters()}")
        rig.close()

    return look, close


def lerobot(urls: list[str], result: Result) -> tuple[Look, Callable[[], None]]:
    from lerobot.cameras.opencv import OpenCVCamera, OpenCVCameraConfig

    logging.getLogger("lerobot").setLevel(logging.CRITICAL)
    cameras = [OpenCVCamera(OpenCVCameraConfig(index_or_path=url)) for url in urls]
    for camera in cameras:
        camera.connect()

    def look() -> list[np.ndarray | None]:
        seen: list[np.ndarray | None] = []
        for camera in cameras:
            try:
                seen.append(camera.read_latest())
            except (TimeoutError, RuntimeError, ConnectionError) as error:
                result.raised[type(error).__name__] += 1
                seen.append(None)
        return seen

    def close() -> None:
        for camera in cameras:
            camera.disconnect()

    return look, close


def bare(urls: list[str], result: Result) -> tuple[Look, Callable[[], None]]:
    return lambda: [None] * STREAMS, lambda: None


CONTENDERS = {"tactus": tactus, "lerobot": lerobot, "bare": bare}


def watch(name: str, urls: list[str], taken_ns: list[Any], order: Any, seconds: float, results: Any) -> None:
    """One contender's loop, in a process of its own: absolute deadlines, sleep, then spin for the last ms."""
    result = Result()
    look, close = CONTENDERS[name](urls, result)
    time.sleep(1.0)
    disturbance = Disturbance(order, seconds)
    cpu_s, begin_s = time.process_time(), time.monotonic()
    result.begin_s = begin_s
    for tick in range(round(seconds * FPS)):
        due_s = begin_s + tick / FPS
        while (left_s := due_s - 0.001 - time.monotonic()) > 0:
            time.sleep(left_s)
        while (now_s := time.monotonic()) < due_s:
            pass
        result.ticks_s.append(now_s - begin_s)
        result.lateness_ms.append((now_s - due_s) * 1000)
        pictures = look()
        held_ns = time.monotonic_ns()
        result.look_ms.append((held_ns / 1e9 - now_s) * 1000)
        result.ages_ms.append(
            [
                np.nan if picture is None else (held_ns - taken_ns[i][number_of(picture)]) / 1e6
                for i, picture in enumerate(pictures)
            ]
        )
        disturbance.at(now_s - begin_s)
    result.cpu = (time.process_time() - cpu_s) / (time.monotonic() - begin_s)
    close()
    results.put(result)


def run(name: str, seconds: float) -> tuple[Result, list[float]]:
    """The result, and when each of the four changes to stream 1 was made, monotonic s: `start` is when it listens."""
    servers = [MjpegServer(fps=CAMERA_FPS, **SIZE) for _ in range(STREAMS)]
    order, results = _spawn.Queue(), _spawn.Queue()
    try:
        for server in servers:
            server.start()
        arguments = (name, [s.url() for s in servers], [s.taken_at() for s in servers], order, seconds, results)
        process = _spawn.Process(target=watch, args=arguments)
        process.start()
        made_s = []
        for _ in range(4):
            getattr(servers[1], order.get(timeout=seconds + 60))()
            made_s.append(time.monotonic())
        result = results.get(timeout=seconds + 60)
        process.join()
        return result, made_s
    finally:
        for server in servers:
            server.stop()


def tell(name: str, result: Result, made_s: list[float]) -> None:
    ticks_s, ages_ms = np.array(result.ticks_s), np.array(result.ages_ms)
    away = np.zeros(len(ticks_s), bool)
    recovered = []
    freeze_s, thaw_s, stop_s, start_s = (at_s - result.begin_s for at_s in made_s)
    for gone_s, back_s in ((freeze_s, thaw_s), (stop_s, start_s)):
        fresh = (ticks_s >= back_s) & (ages_ms[:, 1] < FRESH_MS)
        at_s = ticks_s[fresh][0] if fresh.any() else np.inf
        recovered.append(at_s - back_s)
        away |= (ticks_s >= gone_s) & (ticks_s < at_s)
    print(f"\n{name}: CPU {result.cpu * 100:.1f} % of a core")
    if name != "bare":
        ages = np.concatenate([ages_ms[~away, 1], ages_ms[:, 0], ages_ms[:, 2]])
        p50, p95, most = np.percentile(ages, [50, 95, 100])
        print(f"  frame age, streams that are there: p50 {p50:.1f}  p95 {p95:.1f}  max {most:.1f} ms")
        words = ("never" if np.isinf(s) else f"after {s:.2f} s" for s in recovered)
        print("  fresh again: {} of the thaw, {} of the restart of its server".format(*words))
        print(
            f"  holding all three pictures takes p50 {np.median(result.look_ms):.2f}, max {max(result.look_ms):.1f} ms"
        )
    late = np.array(result.lateness_ms)
    for words, which in (("all streams there", ~away), ("stream 1 away", away)):
        p50, p99, most = np.percentile(late[which], [50, 99, 100])
        print(f"  tick lateness, {words}: p50 {p50:.3f}  p99 {p99:.2f}  max {most:.1f} ms over {which.sum()} ticks")
    for error, n in result.raised.items():
        print(f"  raised {error} {n} times")
    for line in result.events:
        print(f"  | {line}")


def compute() -> None:
    while True:
        sum(range(10_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--busy", type=int, default=0)
    options = parser.parse_args()
    burners = [_spawn.Process(target=compute, daemon=True) for _ in range(options.busy)]
    for burner in burners:
        burner.start()
    try:
        for name in CONTENDERS:
            tell(name, *run(name, options.seconds))
    finally:
        for burner in burners:
            burner.kill()


if __name__ == "__main__":
    main()
