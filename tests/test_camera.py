"""Cameras as users have them: streams from a server in its own process, files and images; frozen, gone and back."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mjpeg_server import CORNERS, MjpegServer, corners_of, draw, number_of

from tactus.hal.camera import CameraConfig
from tactus.hal.camera.source import capture_stamp_ns, kind_of, shown, video_devices
from tactus.hal.config import ConfigError
from tactus.hal.rig import RigConfig
from tactus.hal.rig.image_skew import ImageSkew
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import IMAGES
from tactus.testing import RobotConformance

pytestmark = pytest.mark.realtime

SIZE: dict[str, Any] = {"width": 160, "height": 120}
TOP = f"{IMAGES}top"


def camera(source: int | str, **changes: Any) -> Robot:
    return CameraConfig(**({"source": source, "name": "top", **SIZE} | changes)).make()


def until(true: Callable[[], bool], timeout_s: float = 10.0) -> float:
    """Wait for it; the seconds it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < timeout_s, "it did not come true"
        time.sleep(0.005)
    return time.monotonic() - started


def age_s(robot: Robot) -> float:
    return (time.monotonic_ns() - robot.observe().stamps_ns[TOP]) / 1e9


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Numbers 0 … 11 as shot_008.png … shot_019.png."""
    for number in range(12):
        bgr = cv2.cvtColor(draw(number, 160, 120), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(tmp_path / f"shot_{number + 8:03d}.png"), bgr)
    return tmp_path


@pytest.fixture
def film(images: Path) -> Path:
    path = images / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (160, 120))
    for number in range(12):
        writer.write(cv2.cvtColor(draw(number, 160, 120), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


class TestStillCamera(RobotConformance):
    deterministic = False

    @pytest.fixture
    def robot(self, tmp_path: Path) -> Iterator[Robot]:
        cv2.imwrite(str(tmp_path / "still.png"), draw(5, 160, 120))
        with camera(str(tmp_path / "*.png")) as robot:
            yield robot


@pytest.mark.slow
def test_a_stream_gives_fresh_rgb_right_side_up() -> None:
    with MjpegServer() as server, camera(server.url()) as robot:
        picture = robot.observe().arrays[TOP]
        robot.spec.observations[TOP].check(TOP, picture)
        assert corners_of(picture) == CORNERS
        ages_ms, numbers = [], set()
        for _ in range(40):
            time.sleep(0.02)
            seen = robot.observe()
            ages_ms.append((time.monotonic_ns() - server.taken_ns(seen.arrays[TOP])) / 1e6)
            stamped_late_ns = seen.stamps_ns[TOP] - server.taken_ns(seen.arrays[TOP])
            assert 0 < stamped_late_ns < 500_000_000, "stamped at arrival"
            numbers.add(number_of(seen.arrays[TOP]))
        assert len(numbers) > 15, "new frames come"
        assert np.median(ages_ms) < 60
        counters = robot.counters()
        assert 20 < counters["fps"] < 40 and counters["age_p50_ms"] <= counters["age_p95_ms"]
        assert counters["frozen"] == counters["reopened"] == 0


@pytest.mark.parametrize(
    "rotation, order", [(0, [0, 1, 2, 3]), (90, [2, 0, 3, 1]), (180, [3, 2, 1, 0]), (270, [1, 3, 0, 2])]
)
def test_rotation_is_clockwise(images: Path, rotation: int, order: list[int]) -> None:
    turned = {"width": 120, "height": 160} if rotation in (90, 270) else {}
    with camera(str(images / "*.png"), rotation=rotation, **turned) as robot:
        picture = robot.observe().arrays[TOP]
        assert corners_of(picture) == [CORNERS[i] for i in order]
        assert picture.flags.c_contiguous


def test_a_frame_is_converted_when_read_and_once(images: Path) -> None:
    with camera(str(images / "shot_008*"), loop=False, give_up_s=60) as robot:
        first, second = robot.observe(), robot.observe()
        assert first.arrays[TOP] is second.arrays[TOP]
        with pytest.raises(ValueError, match="read-only"):
            first.arrays[TOP][0] = 0


@pytest.mark.parametrize("pattern", ["shot_*.png", "shot_%03d.png"])
def test_images_come_in_order_at_the_pace_of_a_camera_and_again(images: Path, pattern: str) -> None:
    with camera(str(images / pattern), fps=100) as robot:
        numbers: list[int] = []
        until(lambda: _note(numbers, number_of(robot.observe().arrays[TOP])) >= 30)
        steps = np.diff(numbers) % 12
        assert (steps >= 1).all() and np.median(steps) <= 2
        assert 60 < robot.counters()["fps"] < 140


def _note(numbers: list[int], number: int) -> int:
    if not numbers or numbers[-1] != number:
        numbers.append(number)
    return len(numbers)


@pytest.mark.slow
def test_a_film_is_paced_loops_or_ends(film: Path) -> None:
    with camera(str(film)) as robot:
        assert corners_of(robot.observe().arrays[TOP]) == CORNERS
        numbers: list[int] = []
        until(lambda: _note(numbers, number_of(robot.observe().arrays[TOP])) >= 20)
        assert max(numbers) < 12 and 20 < robot.counters()["fps"] < 40
    with camera(str(film), loop=False, give_up_s=0.5) as robot:
        until(lambda: number_of(robot.observe().arrays[TOP]) == 11)
        time.sleep(0.6)
        with pytest.raises(RobotError, match=r"camera top: no new frame for .* the file has ended"):
            robot.observe()
        assert "the file has ended" in robot.events()


def test_another_size_is_an_error_and_never_resized(images: Path) -> None:
    words = r"camera top: http://127.0.0.1:\d+/0 gives 160x120, configured is 640x480; set width: 160 and height: 120"
    with MjpegServer() as server, pytest.raises(RobotError, match=words):
        camera(server.url(), width=640, height=480).connect()
    words = "gives 120x160 after turning it by 90 degrees, configured is 160x120; set width: 120 and height: 160"
    with pytest.raises(RobotError, match=words):
        camera(str(images / "*.png"), rotation=90).connect()


@pytest.mark.slow
def test_a_stream_that_comes_back_in_another_size_is_an_error() -> None:
    server = MjpegServer()
    other = MjpegServer(width=320, height=240)
    other.port = server.port
    with server, camera(server.url()) as robot:
        server.stop()
        with other, pytest.raises(RobotError, match="gives 320x240, configured is 160x120"):
            until(lambda: robot.observe() is None)


@pytest.mark.slow
@pytest.mark.parametrize("returns", [False, True])
def test_a_picture_that_changes_its_size_in_mid_stream_is_never_passed_on(returns: bool) -> None:
    """It is told and the stream is opened anew: if that sets it right, all goes on; else the camera is gone."""
    with MjpegServer() as server, camera(server.url()) as robot:
        said: list[str] = []
        server.double()

        def told() -> bool:
            assert robot.observe().arrays[TOP].shape == (120, 160, 3)
            said.extend(robot.events())
            if returns and said:
                server.double(False)
            return any("frames again" in line for line in said)

        if returns:
            until(told)
        else:
            with pytest.raises(RobotError, match="gives 320x240, configured is 160x120"):
                until(told)
        assert "gives 320x240, configured is 160x120" in said[0] and "opening it anew" in said[0]


@pytest.mark.parametrize(
    "source, words",
    [
        (97, r"/dev/video97 does not exist; found (no /dev/video\* at all|/dev/video)"),
        ("/dev/v4l/by-id/none", r"/dev/v4l/by-id/none does not exist; found"),
        ("http://127.0.0.1:9/", r"http://127.0.0.1:9/ cannot be opened as a stream .* is its server running"),
        ("/nowhere/film.mp4", r"no such file: /nowhere/film.mp4"),
        ("/nowhere/*.png", r"no file matches /nowhere/\*.png"),
    ],
)
def test_a_source_that_is_not_there(source: int | str, words: str) -> None:
    with pytest.raises(RobotError, match=f"camera top: {words}"):
        camera(source).connect()


def test_a_source_that_is_no_camera(tmp_path: Path) -> None:
    text = tmp_path / "letter.mp4"
    text.write_text("not a video")
    with pytest.raises(RobotError, match="cannot be opened as a video"):
        camera(str(text)).connect()
    (tmp_path / "letter.png").write_text("not a picture")
    with pytest.raises(RobotError, match="letter.png is not an image that OpenCV reads"):
        camera(str(tmp_path / "*.png")).connect()
    with pytest.raises(RobotError, match=r"cannot be opened as a camera; another program may be using it .* found"):
        camera("/dev/null").connect()
    with pytest.raises(RobotError, match="backend: found 'nonesuch'; this OpenCV has .*V4L2"):
        camera("http://127.0.0.1:9/", backend="nonesuch").connect()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(RobotError, match="camera top: "):
            camera(f"http://127.0.0.1:{silent.getsockname()[1]}/", open_timeout_s=0.5).connect()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rotation": 45}, "rotation: found 45; accepted: 0, 90, 180, 270"),
        ({"fps": 0}, "fps: found 0; must be positive"),
        ({"fps": 5}, "max_age_ms: found 200; at 5 frames per s it must be at least 400"),
        ({"fourcc": "MJPEG"}, "fourcc: found 'MJPEG'; string should have at most 4 characters"),
        ({"name": "top left"}, "name: found 'top left'; it becomes part of"),
    ],
)
def test_unusable_settings_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CameraConfig(**changes)


@pytest.mark.slow
def test_a_frozen_stream_is_reported_reopened_and_never_waited_for() -> None:
    with MjpegServer() as server, camera(server.url(), reopen_after_s=0.5) as robot:
        server.freeze()
        slowest_s, oldest_s = 0.0, 0.0
        frozen_at = time.monotonic()
        while time.monotonic() - frozen_at < 3:
            began = time.perf_counter()
            seen = robot.observe()
            picture = seen.arrays[TOP]
            slowest_s = max(slowest_s, time.perf_counter() - began)
            oldest_s = max(oldest_s, (time.monotonic_ns() - server.taken_ns(picture)) / 1e9)
            time.sleep(1 / 30)
        assert slowest_s < 0.1
        assert oldest_s > 2.5 and age_s(robot) > 2.5, "its true age"
        events = robot.events()
        assert any("max_age_ms is 200" in line for line in events)
        assert "no new frame for 0.5 s; opening it anew" in events
        assert robot.counters()["frozen"] == 1 and robot.counters()["stale"] > 30
        server.thaw()
        assert until(lambda: age_s(robot) < 0.2) < 2
        assert any(line.startswith("frames again, after ") for line in robot.events())
        assert robot.counters()["reopened"] == 1
        until(lambda: threading.active_count() < 10)


@pytest.mark.slow
def test_a_server_process_that_stands_still_is_recovered_from() -> None:
    with MjpegServer() as server, camera(server.url(), reopen_after_s=0.5) as robot:
        kill(server.pid, signal.SIGSTOP)
        until(lambda: age_s(robot) > 1.5)
        kill(server.pid, signal.SIGCONT)
        assert until(lambda: age_s(robot) < 0.2) < 2


@pytest.mark.slow
def test_a_server_that_goes_comes_back_on_its_own() -> None:
    with MjpegServer() as server, camera(server.url()) as robot:
        server.stop()
        until(lambda: age_s(robot) > 1.5)
        assert "the stream has ended; opening it anew" in robot.events()
        server.start()
        assert until(lambda: age_s(robot) < 0.2) < 2
        assert robot.counters()["frozen"] == 0 and robot.counters()["reopened"] == 1


@pytest.mark.slow
def test_a_camera_that_stays_away_is_an_error_in_the_end() -> None:
    with MjpegServer() as server, camera(server.url(), give_up_s=1.0) as robot:
        server.stop()
        with pytest.raises(
            RobotError, match=r"camera top: no new frame for 1.\d s \(give_up_s: 1\): .*cannot be opened"
        ):
            until(lambda: robot.observe() is None)
        server.start()
        assert until(lambda: _observes(robot)) < 2, "and still mends itself"


def _observes(robot: Robot) -> bool:
    try:
        return age_s(robot) < 0.2
    except RobotError:
        return False


@pytest.mark.slow
def test_closing_is_prompt_and_ends_the_threads() -> None:
    before = threading.active_count()
    with MjpegServer() as server:
        robot = camera(server.url(), reopen_after_s=0.5)
        for frozen in (False, True):
            robot.connect()
            if frozen:
                server.freeze()
                time.sleep(0.7)
            started = time.monotonic()
            robot.close()
            assert time.monotonic() - started < 1.0
            until(lambda: threading.active_count() <= before)
    with pytest.raises(RobotError, match="camera top: not connected"):
        robot.observe()


@pytest.mark.slow
def test_three_streams_side_by_side() -> None:
    with MjpegServer(streams=3) as server:
        robots = [camera(server.url(i), name=f"c{i}") for i in range(3)]
        for robot in robots:
            robot.connect()
        server.freeze(1)
        time.sleep(1.0)
        ages_s = [(time.monotonic_ns() - next(iter(r.observe().stamps_ns.values()))) / 1e9 for r in robots]
        for robot in robots:
            robot.close()
        assert ages_s[1] > 0.8 and max(ages_s[0], ages_s[2]) < 0.5


@pytest.mark.slow
def test_a_rig_measures_skew_and_refuses_it_above_a_limit() -> None:
    with MjpegServer(streams=2) as server:
        parts: dict[str, Any] = {
            name: CameraConfig(source=server.url(i), name=name, **SIZE) for i, name in enumerate(("top", "wrist"))
        }
        with RigConfig(parts=parts).make() as free, RigConfig(parts=parts, max_skew_ms=400).make() as strict:
            for _ in range(5):
                assert set(free.observe().stamps_ns) == set(strict.observe().stamps_ns) == {TOP, f"{IMAGES}wrist"}
                time.sleep(0.03)
            assert 0 < free.counters()["skew_p95_ms"] <= free.counters()["skew_max_ms"] < 400
            server.freeze(0)
            with pytest.raises(RobotError, match=r"images.top was taken \d+ ms before observation.images.wrist"):
                until(lambda: strict.observe() is None)
            until(lambda: bool(free.observe()) and free.counters()["skew_max_ms"] > 400)
            assert "top.fps" in free.counters()
            assert any(line.startswith("top: the newest frame is ") for line in free.events())


def test_skew_is_among_images_that_have_a_stamp() -> None:
    skew = ImageSkew(limit_ms=50)
    assert skew.counters() == {}
    skew.check({TOP: 5_000_000_000, "observation.state": 1, f"{IMAGES}unstamped": 0})
    assert skew.counters() == {}
    for late_ms in (10, 30, 50):
        skew.check({TOP: 5_000_000_000, f"{IMAGES}wrist": 5_000_000_000 - late_ms * 1_000_000})
    assert skew.counters() == {"skew_p95_ms": 48.0, "skew_max_ms": 50.0}
    with pytest.raises(RobotError, match="max_skew_ms is 50"):
        skew.check({TOP: 5_000_000_000, f"{IMAGES}wrist": 4_949_000_000})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_rtsp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushed by ffmpeg to OpenCV, which listens: the same demuxer and decoder as for a camera that is asked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"rtsp://127.0.0.1:{probe.getsockname()[1]}/live"
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_flags;listen")
    push = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "color=red:size=160x120:rate=30", "-g", "15"]
    push += ["-c:v", "mpeg4", "-f", "rtsp", "-rtsp_transport", "tcp", url]
    pushing: list[subprocess.Popen] = []

    def start() -> None:
        time.sleep(0.5)
        pushing.append(subprocess.Popen(push, stdin=subprocess.DEVNULL))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        with camera(url, open_timeout_s=15) as robot:
            red = robot.observe().arrays[TOP].reshape(-1, 3).mean(0)
            assert red[0] > 240 and red[1] < 15 and red[2] < 15
            first = robot.observe().stamps_ns[TOP]
            until(lambda: robot.observe().stamps_ns[TOP] > first)
    finally:
        thread.join()
        for process in pushing:
            process.kill()
            process.wait()


@given(st.integers(10**12, 10**15), st.integers(0, 999_000_000))
def test_a_drivers_stamp_is_used_if_it_is_on_our_clock(now_ns: int, lag_ns: int) -> None:
    assert abs(capture_stamp_ns((now_ns - lag_ns) / 1e6, now_ns) - (now_ns - lag_ns)) <= 1000
    for elsewhere_ms in (0.0, -1.0, (now_ns + 1_000_000) / 1e6, (now_ns - 2_000_000_000) / 1e6, 1.7e12 + now_ns):
        assert capture_stamp_ns(elsewhere_ms, now_ns) == now_ns


def test_what_a_source_is() -> None:
    kinds = {0: "device", "2": "device", "/dev/v4l/by-id/usb-cam": "device", "http://h/?a=*": "stream"}
    kinds |= {"rtsp://u:p@h/1": "stream", "a/*.png": "images", "a_%04d.jpg": "images", "a.mp4": "file"}
    assert {source: kind_of(source) for source in kinds} == kinds
    assert shown("rtsp://user:secret@host:554/a") == "rtsp://…@host:554/a"
    assert all(path.startswith("/dev/video") for path in video_devices())
