"""The process that renders and serves the twin's cameras; hal/twin/cameras.py starts it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2

from tactus.hal.robot import RobotError
from tactus.hal.twin.mjpeg import MjpegStream, jpeg
from tactus.hal.twin.renderer import Renderer
from tactus.hal.twin.shared_poses import PoseReader


def main(settings: dict[str, Any]) -> None:
    """Serve until standard input ends. Prints one line of JSON when ready: the streams' URLs, or what is wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    cv2.setNumThreads(1)
    names = settings["names"]
    size = settings["height"], settings["width"]
    try:
        renderer = Renderer(settings["arms"], settings["model"], names, *size)
        poses = PoseReader(Path(settings["poses"]), renderer.model.nq)
        streams = {name: MjpegStream(name) for name in names}
    except (RobotError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"urls": {name: stream.url for name, stream in streams.items()}}), flush=True)
    threading.Thread(target=_inject_faults, args=(streams,), daemon=True).start()
    _render_loop(renderer, poses, streams, settings["fps"], settings["quality"])


def _inject_faults(streams: dict[str, MjpegStream]) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        stream = streams[request["camera"]]
        match request["kind"]:
            case "freeze":
                stream.frozen = True
            case "stop":
                stream.stop()
            case "start":
                stream.start()
    os._exit(0)  # the parent has gone; nothing here needs putting away


def _render_loop(
    renderer: Renderer, poses: PoseReader, streams: dict[str, MjpegStream], fps: float, quality: int
) -> None:
    """Render for ever: each camera at its own moment of the period, and only while somebody watches it.

    period     |<---- 1/fps ---->|
    top        *                 *
    side            *                 *
    wrist                *                 *
    """
    period = 1 / fps
    begin = time.monotonic()
    due = {name: begin + i * period / len(streams) for i, name in enumerate(streams)}
    while True:
        name = min(due, key=lambda key: due[key])
        now = time.monotonic()
        if due[name] > now:
            time.sleep(due[name] - now)
        # a frame that is more than a period late is skipped, not caught up with
        due[name] += period * max(1, int((time.monotonic() - due[name]) / period))
        if streams[name].watched:
            qpos, stamp_ns = poses.read()
            streams[name].publish(jpeg(renderer.draw(name, qpos), quality), stamp_ns)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
