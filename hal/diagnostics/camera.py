"""Facts and findings about cameras: whether they open, their rate and delay. All at once, as a rig uses them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tactus.hal.camera import CameraConfig
from tactus.hal.camera.robot import Camera
from tactus.hal.camera.source import Device, kind_of, shown
from tactus.hal.diagnostics.finding import Finding, Level
from tactus.hal.robot import RobotError
from tactus.hal.spec import IMAGES

MEASURE_S = 2.0
LOOK_S = 0.01
SHORTFALL = 0.9
"""A camera that gives less than this share of its configured rate is told of."""


@dataclass(frozen=True)
class CameraFacts:
    """What was measured of one camera.

    trouble: why it could not be opened or observed. given: the device's own format, e.g. `MJPG 640x480 at 30`; empty
    for what is no device. fps: new frames per s over MEASURE_S. ages_ms: of the newest frame, at regular intervals.
    """

    source: str
    width: int
    height: int
    fps_wanted: float
    fourcc: str = ""
    max_age_ms: float = 200.0
    opened_s: float = 0.0
    given: str = ""
    trouble: str = ""
    fps: float = 0.0
    ages_ms: tuple[float, ...] = ()
    said: tuple[str, ...] = field(default=())


def measure_cameras(cameras: Mapping[str, CameraConfig], seconds: float = MEASURE_S) -> dict[str, CameraFacts]:
    """Open every camera, observe all of them for `seconds` (they share the USB bus), close them."""
    about: dict[str, dict] = {}
    opened: dict[str, Camera] = {}
    try:
        for name, config in cameras.items():
            about[name] = {}
            camera = Camera(config)
            started_s = time.perf_counter()
            try:
                camera.connect()
            except RobotError as error:
                about[name]["trouble"] = str(error)
                continue
            opened[name] = camera
            about[name]["opened_s"] = time.perf_counter() - started_s
        for name, found in _look({n: (c, cameras[n]) for n, c in opened.items()}, seconds).items():
            about[name] |= found
    finally:
        for camera in opened.values():
            camera.close()
    for name in opened:
        about[name]["given"] = _given(cameras[name])
    return {name: _facts(config, about[name]) for name, config in cameras.items()}


def _look(cameras: Mapping[str, tuple[Camera, CameraConfig]], seconds: float) -> dict[str, dict]:
    stamps: dict[str, list[int]] = {name: [] for name in cameras}
    ages_ms: dict[str, list[float]] = {name: [] for name in cameras}
    troubles: dict[str, str] = {}
    until_s = time.monotonic() + seconds
    while cameras and time.monotonic() < until_s:
        for name, (camera, config) in cameras.items():
            if name in troubles:
                continue
            try:
                stamp_ns = camera.observe().stamps_ns[IMAGES + config.name]
            except RobotError as error:
                troubles[name] = str(error)
                continue
            ages_ms[name].append((time.monotonic_ns() - stamp_ns) / 1e6)
            if not stamps[name] or stamps[name][-1] != stamp_ns:
                stamps[name].append(stamp_ns)
        time.sleep(LOOK_S)
    found = {}
    for name, (camera, _) in cameras.items():
        seen = stamps[name]
        span_s = (seen[-1] - seen[0]) / 1e9 if len(seen) > 1 else 0.0
        found[name] = {
            "fps": (len(seen) - 1) / span_s if span_s else 0.0,
            "ages_ms": tuple(ages_ms[name]),
            "said": tuple(camera.events()),
            "trouble": troubles.get(name, ""),
        }
    return found


def _facts(config: CameraConfig, about: dict) -> CameraFacts:
    return CameraFacts(
        shown(config.source),
        config.width,
        config.height,
        config.fps,
        config.fourcc if kind_of(config.source) == "device" else "",
        config.max_age_ms,
        **about,
    )


def _given(config: CameraConfig) -> str:
    """The format that a device gives when asked as the Camera asks it."""
    if kind_of(config.source) != "device":
        return ""
    try:
        device = Device(config)
    except RobotError:
        return ""
    try:
        return device.format
    finally:
        device.release()


def diagnose_camera(part: str, facts: CameraFacts) -> list[Finding]:
    """Whether it can be used, and how well. Pure."""
    expected = f"{facts.width}x{facts.height} at {facts.fps_wanted:g} per s"
    if facts.trouble:
        return [Finding(part, "camera", "fault", facts.trouble, expected)]
    if not facts.ages_ms or not facts.fps:
        fix = "is it frozen? unplug it, or restart its server"
        return [Finding(part, "camera", "fault", f"{facts.source} gave one frame and no more", expected, fix)]
    p50, p95 = np.percentile(facts.ages_ms, [50, 95])
    given = f" as {facts.given}" if facts.given else ""
    found = f"{facts.source}: {facts.width}x{facts.height}{given}, open in {facts.opened_s:.1f} s"
    findings = [Finding(part, "camera", "ok", found)]
    if facts.given and not facts.given.startswith(facts.fourcc):
        fix = f"it may not have {facts.fourcc} at this size: `v4l2-ctl -d {facts.source} --list-formats-ext`"
        findings.append(Finding(part, "format", "note", facts.given, facts.fourcc, fix))
    slow = facts.fps < SHORTFALL * facts.fps_wanted
    fix = "too dark for its exposure (`v4l2-ctl -c exposure_dynamic_framerate=0`)? USB shared with others? its fps key?"
    level: Level = "note" if slow else "ok"
    findings.append(
        Finding(part, "rate", level, f"{facts.fps:.1f} frames per s", f"{facts.fps_wanted:g}", fix if slow else "")
    )
    found, limit = f"age of the newest frame p50 {p50:.0f}, p95 {p95:.0f} ms", f"below {facts.max_age_ms:g} ms"
    if p95 > facts.max_age_ms:
        findings.append(
            Finding(part, "age", "fault", found, limit, "a nearer camera, a faster rate, a smaller picture")
        )
    else:
        findings.append(Finding(part, "age", "ok", found))
    findings += [Finding(part, "camera", "note", line) for line in facts.said]
    return findings


def diagnose_devices(devices: Mapping[str, str]) -> list[Finding]:
    """What cameras this machine has; devices: as `video_devices` gives them."""
    if not devices:
        fix = "cameras that are streams (http://, rtsp://) need none; is a USB camera plugged in?"
        return [Finding("machine", "cameras", "note", "no /dev/video*", "", fix)]
    return [Finding("machine", "cameras", "ok", f"{path} ({name})" if name else path) for path, name in devices.items()]
