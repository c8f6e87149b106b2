"""Writes a run into a Rerun recording: ticks, chunks, pictures and log lines, each to its entity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rerun as rr

from tactus.hal.spec import RobotSpec
from tactus.runtime.robot_node.watcher import PERSON, TickView
from tactus.runtime.view.entities import Entities
from tactus.runtime.view.layout import blueprint, path, styles
from tactus.runtime.view.viewer import SUFFIX, WEB, Viewer, ViewError
from tactus.runtime.wire.link import Reply

JPEG_QUALITY = 80
JPEG_SIDE_PX = 65500
"""A JPEG has no longer side."""
GIVE_UP_S = 5.0
"""At the end, a viewer that does not read is not waited for any longer."""


@dataclass(frozen=True)
class TimePoint:
    """tick: counted over the whole run. at_ns: unix time on a real clock, since the run's beginning on a virtual."""

    tick: int
    at_ns: int


@dataclass
class Tick:
    """sent: [A]. state: [S], None if it was not looked at. chunks: those that were merged since the last tick."""

    when: TimePoint
    view: TickView
    sent: np.ndarray
    state: np.ndarray | None
    chunks: Sequence[Reply]


class RerunRecording:
    """where: viewer, web or FILE.rrd. real_time: whether `TimePoint.at_ns` is unix time. Not thread-safe.

    Raises ViewError if there is no such place.
    """

    def __init__(self, where: str, spec: RobotSpec, real_time: bool) -> None:
        self._real_time = real_time
        self._entities = Entities.of(spec)
        self._viewer: Viewer | None = None
        self._recording = rr.RecordingStream(f"tactus {spec.name}")
        is_file = where.endswith(SUFFIX)
        plan = blueprint(self._entities, live=not is_file)
        if is_file:
            self._recording.save(_new_file(where), plan)
        else:
            self._viewer = Viewer(web=where == WEB)
            self._recording.connect_grpc(self._viewer.data_url, default_blueprint=plan)
        for entity, style in styles(self._entities).items():
            self._recording.log(entity, style, static=True)
        self.place = where if is_file else self._viewer.page if self._viewer and self._viewer.page else "Rerun's viewer"

    @property
    def entities(self) -> Entities:
        return self._entities

    def ticks(self, ticks: Sequence[Tick]) -> None:
        """Draw several at once, which costs hardly more than one."""
        if not ticks:
            return
        whens = [tick.when for tick in ticks]
        requested, sent = np.stack([t.view.action for t in ticks]), np.stack([t.sent for t in ticks])
        for joint in self._entities.joints:
            both = np.stack([requested[:, joint.index], sent[:, joint.index]], axis=1)
            self._draw(path("joints", joint.name, "commands"), whens, both)
        self._states([tick for tick in ticks if tick.state is not None])
        self._draw("queue/depth", whens, [tick.view.remaining for tick in ticks])
        self._draw("latency/age", whens, [tick.view.age_s * 1000 for tick in ticks])
        if self._real_time:
            self._draw("latency/lateness", whens, [tick.view.lateness_s * 1000 for tick in ticks])
        self._draw("queue/starved", [tick.when for tick in ticks if tick.view.starved])
        self._draw("queue/person", [tick.when for tick in ticks if tick.view.driver == PERSON])
        arrived = [(tick, reply) for tick in ticks for reply in tick.chunks]
        whens = [tick.when for tick, _ in arrived]
        self._draw("queue/chunk", whens, [tick.view.remaining + 1 for tick, _ in arrived])
        self._draw("latency/round_trip", whens, [reply.round_trip_ms for _, reply in arrived])
        self._draw("latency/inference", whens, [reply.inference_ms for _, reply in arrived])

    def _states(self, ticks: Sequence[Tick]) -> None:
        whens = [tick.when for tick in ticks]
        states = np.array([tick.state for tick in ticks], np.float64).reshape(len(ticks), -1)
        measured = {
            path("joints", j.name, "measured"): j.measured for j in self._entities.joints if j.measured is not None
        }
        others = {path("state", name): place for name, place in self._entities.state.items()}
        for entity, place in (measured | others).items():
            self._draw(entity, whens, states[:, place])

    def _draw(
        self, entity: str, whens: Sequence[TimePoint], values: Sequence[float] | np.ndarray | None = None
    ) -> None:
        """values: [N] or [N, series]; zeros if there are none."""
        if not whens:
            return
        ns = np.array([when.at_ns for when in whens], np.int64)
        time = (
            rr.TimeColumn("time", timestamp=ns.view("datetime64[ns]"))
            if self._real_time
            else rr.TimeColumn("time", duration=ns.view("timedelta64[ns]"))
        )
        scalars = np.zeros(len(whens)) if values is None else np.asarray(values, np.float64)
        ticks = rr.TimeColumn("tick", sequence=[when.tick for when in whens])
        self._recording.send_columns(entity, [ticks, time], rr.Scalars.columns(scalars=scalars))

    def picture(self, when: TimePoint, camera: str, rgb: np.ndarray) -> None:
        """rgb: uint8[H, W, 3], right side up."""
        every = -(-max(rgb.shape) // JPEG_SIDE_PX)
        bgr = cv2.cvtColor(np.ascontiguousarray(rgb[::every, ::every]), cv2.COLOR_RGB2BGR)
        good, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert good, "a uint8 picture can be a JPEG"
        self._set(when)
        image = rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg")
        self._recording.log(path("cameras", camera), image)

    def log_line(self, when: TimePoint, line: str, level: str) -> None:
        """level: INFO or WARN."""
        self._set(when)
        self._recording.log("log", rr.TextLog(line, level=level))

    def _set(self, when: TimePoint) -> None:
        self._recording.set_time("tick", sequence=when.tick)
        if self._real_time:
            self._recording.set_time("time", timestamp=np.datetime64(when.at_ns, "ns"))
        else:
            self._recording.set_time("time", duration=np.timedelta64(when.at_ns, "ns"))

    def close(self) -> None:
        """Everything drawn is where it belongs, or given up."""
        if self._viewer is None:
            self._recording.flush()
        else:
            self._recording.flush(timeout_sec=GIVE_UP_S)
        self._recording.disconnect()
        if self._viewer is not None:
            self._viewer.close()


def _new_file(where: str) -> Path:
    file = Path(where)
    if file.exists():
        raise ViewError(f"view: {file} exists already; give another name")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise ViewError(f"view: cannot write {file}: {error.strerror}") from error
    return file
