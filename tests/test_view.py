"""What --view records, read back with Rerun's own reader and looked at in its own viewer."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from rerun.chunk import RrdReader

from tactus.hal.gym import PushTConfig
from tactus.hal.robot import Outcome
from tactus.hal.spec import STATE, Feature, Mode, RobotSpec, image
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.scripted.replay import read_actions
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.lab.timeline import depth
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.watcher import Beginning, TickView
from tactus.runtime.view.entities import Entities
from tactus.runtime.view.layout import CHUNK, DEPTH, STARVED
from tactus.runtime.view.live_view import PICTURES, View
from tactus.runtime.view.rerun_recording import RerunRecording
from tactus.runtime.view.viewer import Viewer, ViewError

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
TICKER = ["--policy.type=ticker", "--policy.width=3", "--policy.horizon=8"]
ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=60"]
PUSHT = ["--robot.type=pusht", "--latency=fixed:4", "--starvation=skip", "--chunk_size_threshold=0.2"]
TICKS, EVERY, SEED = 60, 4, 1000
GOAL = (144, 238, 144)
"""RGB of the place where the T belongs, in PushT's pictures."""
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync", "--window-size=1400,1000",
    "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip

Rows = dict[str, dict[int, Any]]
"""Entity -> tick -> what stands there."""


def read(file: Path) -> Rows:
    found: Rows = defaultdict(dict)
    for chunk in RrdReader(str(file)).stream():
        batch = chunk.to_record_batch().to_pydict()
        for component in ("Scalars:scalars", "EncodedImage:blob", "TextLog:text"):
            if component in batch and not chunk.is_static:
                values = [value[0] if len(value) == 1 else value for value in batch[component]]
                found[chunk.entity_path] |= dict(zip(batch["tick"], values, strict=True))
    return found


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A policy node for PushT, whose actions say which tick they are for."""
    spec = PushTConfig().make().spec
    policy = TickerPolicy({STATE: spec.observations[STATE]}, spec.action, 10)
    node = PolicyNode(policy, f"ipc://{tmp_path_factory.mktemp('node')}/node")
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    yield node.endpoint
    node.stop()
    thread.join()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> tuple[Rows, Path]:
    """Two episodes of PushT with late chunks and a disturbed robot; the recording, and the run's folder."""
    folder = tmp_path_factory.mktemp("view")
    keys = [
        f"--connect={endpoint}", f"--robot.max_steps={TICKS}", "--episodes=2", f"--seed={SEED}", *PUSHT,
        "--action_noise=0.05", "--record_actions", f"--output_dir={folder}/out", f"--view={folder}/run.rrd",
        "--view_hz=2.5",
    ]  # fmt: skip
    out = subprocess.run([*TACTUS, "eval", *keys], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stderr
    assert f"view: {folder}/run.rrd\n" in out.stdout
    return read(folder / "run.rrd"), folder


def test_every_tick_is_there_as_it_was_sent(recorded: tuple[Rows, Path]) -> None:
    rows, folder = recorded
    offset = 0
    for episode in range(2):
        sent, _ = read_actions(folder / "out" / "actions" / f"episode_{episode:05d}.npz")
        assert len(sent) == TICKS
        for axis, name in enumerate("xy"):
            commands = rows[f"/joints/{name}/commands"]
            found = np.array([commands[offset + tick] for tick in range(TICKS)])
            np.testing.assert_array_equal(found[:, 1].astype(np.float32), sent[:, axis])
            assert not np.array_equal(found[:, 0], found[:, 1]), "the noise comes between requested and sent"
            assert found[0, 0] == 0 and len(np.unique(found[:, 0])) > 20, "the ticker says which tick an action is for"
        offset += TICKS + 2
    assert len(rows["/joints/x/commands"]) == 2 * TICKS


def test_the_queue_is_what_the_results_say(recorded: tuple[Rows, Path]) -> None:
    rows, folder = recorded
    lines = [json.loads(line) for line in (folder / "out" / "episodes.jsonl").read_text().splitlines()]
    starved, chunks, offset = set(), {}, 0
    for row in lines:
        timeline = row["timeline"]
        left = depth(timeline, TICKS)
        found = [rows["/queue/depth"][offset + tick] for tick in range(TICKS)]
        assert found == [max(0, depth - 1) for depth in left]
        starved |= {offset + tick for tick in timeline["starved"]}
        chunks |= {offset + asked + late: left[asked + late] for asked, late, *_ in timeline["chunks"]}
        offset += TICKS + 2
    assert starved and set(rows["/queue/starved"]) == starved
    chunks = {tick: value for tick, value in chunks.items() if tick in rows["/queue/depth"]}
    assert rows["/queue/chunk"] == chunks
    assert set(rows["/latency/round_trip"]) == set(rows["/latency/inference"]) == set(chunks)
    assert all(value > 0 for value in rows["/latency/round_trip"].values())
    assert rows["/latency/age"][4] == pytest.approx(400)


def test_pictures_and_measurements_are_the_robots_own(recorded: tuple[Rows, Path]) -> None:
    rows, folder = recorded
    assert set(rows["/cameras/image"]) == {
        offset + tick for offset in (0, TICKS + 2) for tick in [*range(0, TICKS, EVERY), TICKS]
    }
    sent, _ = read_actions(folder / "out" / "actions" / "episode_00001.npz")
    turns = {"upside down": np.s_[::-1], "mirrored": np.s_[:, ::-1], "BGR": np.s_[..., ::-1]}
    right, wrong = dict.fromkeys(turns, 0.0), dict.fromkeys(turns, 0.0)
    with PushTConfig(max_steps=TICKS).make() as robot:
        robot.reset(1, SEED)
        for tick in range(TICKS + 1):
            seen, at = robot.observe().arrays, TICKS + 2 + tick
            if at in rows["/joints/x/measured"]:
                measured = [rows[f"/joints/{name}/measured"][at] for name in "xy"]
                np.testing.assert_array_equal(measured, seen[STATE])
            if at in rows["/cameras/image"]:
                jpeg = np.array(rows["/cameras/image"][at], np.uint8)
                found = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(float)
                there = seen["observation.image"].astype(float)
                for way, turned in turns.items():
                    telling = np.abs(there[turned] - there).max(axis=2) > 60
                    right[way] += np.abs(found - there)[telling].sum()
                    wrong[way] += np.abs(found[turned] - there)[telling].sum()
            if tick < TICKS:
                robot.act(sent[tick])
    assert {*range(TICKS)} <= set(rows["/joints/x/measured"])
    assert all(right[way] < 0.3 * wrong[way] for way in turns), f"as it is {right}, turned {wrong}"


def test_words_stand_at_their_ticks(recorded: tuple[Rows, Path]) -> None:
    log = recorded[0]["/log"]
    assert log[0] == "episode 0" and log[TICKS + 2] == "episode 1"
    assert log[TICKS] == f"episode 0: failure after {TICKS} ticks"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["--view"], "view: no display for Rerun's viewer; --view=web for a browser, --view=FILE.rrd for a file"),
        (["--view=film.mp4"], "view: found 'film.mp4'; accepted: viewer, web, FILE.rrd"),
        (["--view={folder}/there.rrd"], "there.rrd exists already; give another name"),
        (["--view=/proc/there.rrd"], "view: /proc/there.rrd cannot be written: "),
        (["--view=web", "--view_hz=0"], "view_hz: found 0; must be positive"),
        (["--view=web", "--workers=2"], "view: is for one worker without a sweep"),
        (["--view=web", "--sweep"], "view: is for one worker without a sweep"),
    ],
)
def test_what_cannot_be_is_said(keys: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "there.rrd").touch()
    keys = [key.format(folder=tmp_path) for key in keys]
    hidden = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    serve = [*TACTUS, "serve", f"--connect=ipc://{tmp_path}/node", *TICKER]
    command = [*TACTUS, "eval", f"--connect=ipc://{tmp_path}/node", *ROBOT, f"--output_dir={tmp_path}/out", *keys]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=hidden)
        node.terminate()
    assert out.returncode == 2
    assert words in out.stderr
    assert not (tmp_path / "out" / "episodes.jsonl").exists()


def test_without_rerun_the_cure_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['rerun'] = None\nfrom tactus.runtime.commands import main\nsys.exit(main())"
    serve = [*TACTUS, "serve", f"--connect=ipc://{tmp_path}/node", *TICKER]
    command = [sys.executable, "-c", code, "eval", f"--connect=ipc://{tmp_path}/node", *ROBOT, "--view=web"]
    with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        out = subprocess.run([*command, f"--output_dir={tmp_path}/out"], cwd=ROOT, capture_output=True, text=True)
        node.terminate()
    assert out.returncode == 2
    assert "view: needs rerun; install it: pip install 'tactus[view]'" in out.stderr


class Slow:
    """A canvas that takes its time."""

    def __init__(self, spec: RobotSpec, picture_s: float) -> None:
        self.entities = Entities.of(spec)
        self.drawn: list[tuple[int, int]] = []
        self.ticks_drawn = 0
        self.closed = False
        self._picture_s = picture_s

    def ticks(self, ticks: list[Any]) -> None:
        self.ticks_drawn += len(ticks)

    def picture(self, when: Any, camera: str, rgb: np.ndarray) -> None:
        time.sleep(self._picture_s)
        self.drawn.append((when.tick, int(rgb[0, 0, 0])))

    def log_line(self, when: Any, line: str, level: str) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("real_time", [True, False])
def test_what_falls_behind_loses_its_oldest_pictures_on_a_real_clock_alone(real_time: bool) -> None:
    robot = SyntheticConfig(cameras=1, image_size=(8, 8), width=2, steps=1000).make()
    canvas, said = Slow(robot.spec, 0.002 if not real_time else 0.02), []
    view = View(canvas, robot, robot.spec.fps, real_time, said.append)  # type: ignore[arg-type]
    action, ticks = np.zeros(2, np.float32), 200
    robot.reset(0, 0)
    view.begin(Beginning(0, 0, ""))
    for tick in range(ticks):
        view.before(TickView(tick, action, False, 0, robot.observe))
        view.after(tick, robot.act(action), Outcome(False, tick == ticks - 1, 0.0))
        time.sleep(0.0005)
    view.end(TickView(ticks, action, False, 0, robot.observe))
    view.close()
    view.close()
    assert canvas.closed and canvas.ticks_drawn == ticks
    assert all(value == tick % 256 for tick, value in canvas.drawn), "each picture at its own tick"
    assert sorted(canvas.drawn) == canvas.drawn and canvas.drawn[-1][0] == ticks
    assert len(canvas.drawn) + view.dropped == ticks + 1
    if real_time:
        assert view.dropped > 0 and len(canvas.drawn) >= PICTURES
        told = [int(line.split()[1]) for line in said]
        assert sum(told) == view.dropped and "a lower --view_hz helps" in said[0]
    else:
        assert view.dropped == 0 and said == []


def test_a_view_that_fails_says_so_and_the_run_goes_on() -> None:
    robot = SyntheticConfig(cameras=1, image_size=(8, 8), width=2).make()
    canvas, said = Slow(robot.spec, 0.0), []
    canvas.ticks = lambda ticks: (_ for _ in ()).throw(OSError(28, "No space left on device"))  # type: ignore
    view = View(canvas, robot, 10.0, False, said.append)  # type: ignore[arg-type]
    action = np.zeros(2, np.float32)
    for episode in range(2):
        view.begin(Beginning(episode, 0, ""))
        for tick in range(5000):
            view.before(TickView(tick, action, False, 0, robot.observe))
            view.after(tick, action, None)
        view.end(TickView(5000, action, False, 0, robot.observe))
    view.close()
    assert len(said) == 1 and "the run goes on without it" in said[0] and "No space left" in said[0]


def test_commands_are_compared_with_what_measures_them() -> None:
    modes: tuple[Mode, ...] = ("absolute", "delta", "absolute", "binary")
    action = Feature((4,), "float32", ("deg", "deg", "px", "1"), ("a.pos", "b", "x", "grip"), mode=modes)
    state = Feature((4,), "float32", ("deg", "deg", "px", "mm"), ("a.pos", "b", "agent.x", "arm.grip"))
    cameras = {"observation.images.top": image(4, 4), "observation.depth": Feature((4, 4, 1), "uint16")}
    what = Entities.of(RobotSpec("robot", 30, {STATE: state, **cameras}, action))
    assert what.cameras == {"top": "observation.images.top"}
    assert [joint.measured for joint in what.joints] == [0, None, 2, None]
    assert [joint.title for joint in what.joints] == ["a.pos [deg]", "b [deg]", "x [px]", "grip"]
    assert what.state == {"b": 1, "arm.grip": 3}
    bare = Entities.of(RobotSpec("robot", 30, {}, Feature((2,), "float32")))
    assert [joint.name for joint in bare.joints] == ["0", "1"] and not bare.cameras and not bare.state


def test_the_web_viewer_and_its_data_are_on_loopback_alone_and_end_with_the_view(tmp_path: Path) -> None:
    """Live, on a real clock: what a browser would be sent is there while the run goes on."""
    spec = SyntheticConfig(width=3).make().spec
    canvas = RerunRecording("web", spec, real_time=True)
    try:
        children = [child for child in psutil.Process().children() if "rerun" in child.name()]
        assert len(children) == 1
        listening = {one.laddr for one in children[0].net_connections() if one.status == psutil.CONN_LISTEN}
        assert len(listening) == 2 and {address.ip for address in listening} == {"127.0.0.1"}
        assert canvas.place.startswith("http://127.0.0.1:") and "url=rerun%2Bhttp" in canvas.place
        with urllib.request.urlopen(canvas.place, timeout=10) as page:
            assert b"rerun" in page.read().lower()
    finally:
        canvas.close()
    assert not children[0].is_running()


def test_a_viewer_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tactus.runtime.view.viewer._free_port", lambda wanted: 1 << 16)
    with pytest.raises(ViewError, match="(?s)viewer did not start: .*--view=FILE.rrd writes a file instead"):
        Viewer(web=True)


def test_a_run_that_is_killed_leaves_no_viewer_behind(tmp_path: Path, endpoint: str) -> None:
    run, page = live(endpoint, tmp_path)
    with run:
        assert urllib.request.urlopen(page, timeout=10).status == 200
        [viewer] = [child for child in psutil.Process(run.pid).children() if "rerun" in child.name()]
        run.kill()
        viewer.wait(timeout=10)


def live(endpoint: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A run on the real clock that is watched on the web, and its page."""
    keys = [f"--connect={endpoint}", "--episodes=50", *PUSHT, f"--output_dir={folder}/out", "--view=web"]
    run = subprocess.Popen([*TACTUS, "run", *keys], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    page = next(line.split()[1] for line in run.stdout if line.startswith("view: "))
    return run, page


class _Files(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


def look(browser: Any, page: str, picture: Path) -> None:
    """Until the camera's picture, above the plots, and every kind of mark are on the screen."""
    browser.get(page)
    wanted = {"goal": GOAL, "depth": DEPTH, "chunk": CHUNK, "starved": STARVED}
    end = time.monotonic() + 240  # a browser without a GPU, beside other tests
    while True:
        browser.save_screenshot(str(picture))
        screen = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB).astype(int)
        found = {name: np.argwhere(np.abs(screen - colour).max(axis=2) < 12) for name, colour in wanted.items()}
        if all(len(pixels) > 30 for pixels in found.values()):
            break
        counts = {name: len(pixels) for name, pixels in found.items()}
        assert time.monotonic() < end, f"pixels of each colour: {counts}; see {picture}"
        time.sleep(1)
    assert found["goal"][:, 0].mean() < found["depth"][:, 0].mean()


@pytest.mark.slow
@pytest.mark.long
def test_a_recorded_run_is_a_picture_in_the_web_viewer(
    recorded: tuple[Rows, Path], tmp_path: Path, browser: Any
) -> None:
    """In headless Chromium, without a GPU."""
    handler = functools.partial(_Files, directory=str(recorded[1]))
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    viewer = Viewer(web=True)
    try:
        page = viewer.page.split("?")[0]
        look(browser, f"{page}?url=http://127.0.0.1:{files.server_port}/run.rrd", tmp_path / "screen.png")
    finally:
        viewer.close()
        files.shutdown()
        files.server_close()


@pytest.mark.slow
@pytest.mark.long
def test_a_run_is_seen_while_it_goes_on(tmp_path: Path, endpoint: str, browser: Any) -> None:
    run, page = live(endpoint, tmp_path)
    with run:
        try:
            look(browser, page, tmp_path / "screen.png")
            assert run.poll() is None
        finally:
            run.terminate()
    assert run.returncode == 130
