"""The robot's page: in a real browser on runs of an emulated arm, and from another host, with and without the key."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from doubles import synthetic
from hosts import possible, two_hosts
from pages import complaints, requests
from processes import ROOT, episodes, start
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from twins import RunningTwin, running_twin
from visitors import (
    CONTRASTS,
    asked,
    look,
    off_s,
    origin_of,
    picking,
    picture_of,
    running,
    text_of,
    ticking,
    torque_on,
    until,
)

from tactus.hal.spec import STATE, Observation
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.runtime.page.access import Access, key_for
from tactus.runtime.page.connections import MAX_STRANGERS
from tactus.runtime.page.pictures import Pictures
from tactus.runtime.page.run_state import ROWS, RunState, row_json
from tactus.runtime.robot_node.watcher import Beginning, TickView

pytestmark = [pytest.mark.realtime, pytest.mark.slow]

CAMERAS = ("top", "wrist")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    config = f"--config_path={ROOT / 'launch' / 'so100.twin.yaml'}"
    with running_twin(tmp_path_factory.mktemp("twin"), config) as twin:
        yield twin


# in a browser


@pytest.fixture(scope="class")
def at_work(twin: RunningTwin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulated arm that picks up cubes, for a class: its port is others' afterwards."""
    with picking(twin, tmp_path_factory.mktemp("run"), "--episodes=1000") as (run, _):
        yield run.url


class TestAtWork:
    @pytest.mark.parametrize("width, theme", [*itertools.product((390, 1280), ("light", "dark"))])
    def test_it_shows_what_the_robot_does(self, at_work: str, browser: Any, width: int, theme: str) -> None:
        look(browser, at_work, width, theme)
        until(lambda: "running" in text_of(browser, "phase"), lambda: text_of(browser, "phase"))
        for camera in CAMERAS:
            first = until(lambda camera=camera: picture_of(browser, camera))
            assert first[:2] == [320, 240] and len(set(first[2:])) > 10
            until(lambda camera=camera, first=first: picture_of(browser, camera) != first)
        until(lambda: " of " in text_of(browser, "starved") and int(text_of(browser, "left")) > 0)
        until(lambda: "ms" in text_of(browser, "run") and "of 30 Hz" in text_of(browser, "run"))
        assert "so100" in text_of(browser, "title") and "pick up the red cube" in text_of(browser, "task")
        joints = browser.find_elements(By.CSS_SELECTOR, ".joint")
        assert [joint.text.split()[0] for joint in joints][::5] == ["shoulder_pan", "gripper"]
        until(lambda: "measured –" not in joints[1].find_element(By.TAG_NAME, "canvas").get_attribute("aria-label"))
        wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == width
        stop = browser.execute_script("return document.getElementById('stop').getBoundingClientRect().toJSON()")
        assert stop["top"] < 30 and stop["height"] > 60 and stop["width"] > 0.9 * width - 40
        browser.execute_script("scrollTo(0, 10000)")
        assert browser.execute_script("return document.getElementById('stop').getBoundingClientRect().top") < 30
        assert not [pair for pair in browser.execute_script(CONTRASTS) if pair[0] < 4.5]
        assert not browser.execute_script("return [...document.images].filter(one => !one.alt).length")
        assert complaints(browser) == []
        assert {url for url in requests(browser) if not url.startswith("blob:")} == {at_work}


@pytest.mark.parametrize("how", ["click", "space", "Escape, on a button", "in a reset", "the policy node hangs"])
def test_its_stop_takes_the_torque_off(twin: RunningTwin, browser: Any, tmp_path: Path, how: str) -> None:
    attended = ["--attended=true"] if how == "Escape, on a button" else []
    with picking(twin, tmp_path, *attended) as (run, node):
        look(browser, run.url, 390)
        wanted = "getting ready" if how == "in a reset" or attended else "running"
        until(lambda: wanted in text_of(browser, "phase") and any(torque_on(twin)), lambda: run.said)
        if how == "the policy node hangs":
            os.kill(node.pid, signal.SIGSTOP)
            until(lambda: "starved" in text_of(browser, "who"), lambda: text_of(browser, "who"))
        before_s = time.monotonic()
        if how == "space":
            browser.find_element(By.TAG_NAME, "body").send_keys(" ")
        elif attended:
            until(lambda: "put the scene in order" in run.said)
            browser.find_element(By.CSS_SELECTOR, "#buttons button").send_keys(Keys.ESCAPE)
        else:
            browser.find_element(By.ID, "stop").click()
        until(lambda: not any(torque_on(twin)), lambda: run.said)
        assert off_s(twin, before_s) - before_s < 5  # how quick it is: tests/bench/page.py
        os.kill(node.pid, signal.SIGCONT)
        assert run.status() == 1
        assert "emergency stop: the page, by 127.0.0.1; torque off" in run.said, run.said
        until(lambda: "Stopped by the page" in text_of(browser, "banner"), lambda: text_of(browser, "banner"))
        assert browser.execute_script("return document.getElementById('banner').getAttribute('role')") == "alert"


def test_before_there_is_a_robot_the_stop_ends_the_command(browser: Any, tmp_path: Path) -> None:
    robot = ["--robot.type=synthetic", f"--connect=ipc://{tmp_path}/nobody", f"--output_dir={tmp_path}/out"]
    with running("run", tmp_path / "log", *robot) as run:
        look(browser, run.url, 390)
        until(lambda: "starting" in text_of(browser, "phase"))
        browser.find_element(By.ID, "stop").click()
        assert run.status() == 130 and "interrupted before the first episode" in run.said


def test_its_buttons_begin_and_judge_episodes(browser: Any, tmp_path: Path) -> None:
    """Pressed with the mouse, with Enter on the button, and by the terminal's keys."""
    with ticking(tmp_path, "--attended=true", "--episodes=3") as run:
        look(browser, run.url, 1280)
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#buttons button")) == 3)
        begin, success, failure = browser.find_elements(By.CSS_SELECTOR, "#buttons button")
        page = browser.find_element(By.TAG_NAME, "body")
        for number, (one, other) in enumerate(
            [
                (begin.click, success.click),
                (lambda: begin.send_keys(Keys.ENTER), lambda: failure.send_keys(Keys.ENTER)),
                (lambda: page.send_keys(Keys.ENTER), lambda: page.send_keys("s")),
            ]
        ):
            until(lambda number=number: f"episode {number}: put the scene in order" in run.said)
            until(lambda: "put the scene in order" in text_of(browser, "latest"))
            until(begin.is_enabled)
            assert not success.is_enabled() and not failure.is_enabled()
            one()
            until(success.is_enabled)
            assert not begin.is_enabled()
            other()
        assert run.status() == 0, run.said
        until(lambda: "The run is over" in text_of(browser, "banner"))
        assert "67 % [21 %, 94 %] of 3" in text_of(browser, "run")
    assert [row["success"] for row in episodes(tmp_path / "out")] == [True, False, True]


def test_a_run_that_nobody_judges_has_no_buttons_but_stop(browser: Any, tmp_path: Path) -> None:
    with ticking(tmp_path, cameras=1) as run:
        look(browser, run.url, 390)
        until(lambda: "running" in text_of(browser, "phase"))
        assert [each.get_attribute("id") for each in browser.find_elements(By.TAG_NAME, "button")] == ["stop"]
        code, text = asked(f"{run.url}key", "POST", b'{"key": "s"}', Origin=origin_of(run.url))
        assert code == 400 and "nobody judges this run" in text


def test_it_says_so_when_it_cannot_stop_the_robot(browser: Any, tmp_path: Path) -> None:
    with ticking(tmp_path) as run:
        look(browser, run.url, 390)
        until(lambda: "running" in text_of(browser, "phase"))
        os.kill(run.process.pid, signal.SIGSTOP)
        try:
            until(lambda: "this page cannot stop it now" in text_of(browser, "banner"))
            assert not [pair for pair in browser.execute_script(CONTRASTS) if pair[0] < 4.5]
        finally:
            os.kill(run.process.pid, signal.SIGCONT)
        until(lambda: not text_of(browser, "banner"))


# who may

OWN = {"Host": "127.0.0.1:9", "Origin": "http://127.0.0.1:9"}
KEY = "0123456789abcdef_the-key"


def refusal(access: Access, method: str = "GET", path: str = "/", key: str | None = None, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    cookies = {access.cookie: key} if key is not None else {}
    return access.refusal(method, path, named, cookies, None)


@pytest.mark.parametrize(
    "method, headers, allowed",
    [
        ("GET", {"Host": "127.0.0.1:9"}, True),
        ("GET", {"Host": "localhost:8080"}, True),  # through a tunnel
        ("GET", {"Host": "[::1]:9"}, True),
        ("GET", {"Host": "evil.example:9"}, False),  # rebinding
        ("GET", {"Host": "127.0.0.1.evil.example:9"}, False),
        ("GET", {"Host": "192.168.1.7:9"}, False),
        ("GET", {"Host": "[::1"}, False),
        ("GET", {}, False),
        ("POST", OWN, True),
        ("POST", {"Host": "127.0.0.1:9"}, False),  # not even a browser of ours
        ("POST", {**OWN, "Origin": "null"}, False),
        ("POST", {**OWN, "Origin": "http://evil.example"}, False),
        ("POST", {**OWN, "Origin": "http://127.0.0.1:10"}, False),  # another server on this machine
        ("POST", {**OWN, "Origin": "file://127.0.0.1:9"}, False),
        ("GET", {"Host": "127.0.0.1:9", "Upgrade": "websocket"}, False),
        ("GET", {**OWN, "Upgrade": "WebSocket", "Origin": "http://evil.example"}, False),
        ("GET", {**OWN, "Upgrade": "websocket"}, True),
        ("GET", {"Host": "127.0.0.1:9", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, False),
        ("GET", {"Host": "127.0.0.1:9", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, True),  # a link
        ("POST", {**OWN, "Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_who_may_without_a_key(method: str, headers: dict[str, str], allowed: bool) -> None:
    assert (not refusal(Access("", 9), method, **headers)) == allowed


def test_with_a_key_nothing_goes_without_it_and_nothing_of_other_sites_with_it() -> None:
    access = Access(KEY, 9)
    robot = {"Host": "robot.local:9", "Origin": "http://robot.local:9"}
    for method, path in (("GET", "/"), ("GET", "/state"), ("POST", "/stop"), ("GET", "/nowhere")):
        for shown in (None, "", KEY[:-1], KEY + "x", "kéy"):
            assert refusal(access, method, path, shown, **robot)
        assert not refusal(access, method, path, KEY, **robot)
    assert refusal(access, "POST", "/stop", KEY, **{**robot, "Origin": "http://evil.example"})
    assert not access.refusal("GET", "/", robot, {}, KEY)
    assert access.refusal("POST", "/stop", robot, {}, KEY) and access.refusal("GET", "/state", robot, {}, KEY)
    assert not Access("", 9).has_key("")


def test_a_key_lies_in_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "page.key"
    key = key_for("0.0.0.0", file)
    assert len(key) >= 43 and key_for("127.0.0.1", file) == key and file.stat().st_mode & 0o777 == 0o600
    assert key_for("127.0.0.1", None) == "" and key_for("10.0.0.1", None) != key_for("10.0.0.1", None)
    file.chmod(0o644)
    with pytest.raises(ValueError, match=r"page_key: others may read .*; chmod 600"):
        key_for("0.0.0.0", file)
    file.chmod(0o600)
    file.write_text("short\n")
    with pytest.raises(ValueError, match="page_key: .* holds no key"):
        key_for("0.0.0.0", file)
    with pytest.raises(ValueError, match="page_key: cannot use .*: Is a directory"):
        (tmp_path / "folder").mkdir(mode=0o700)
        key_for("0.0.0.0", tmp_path / "folder")


VISIT = """
import asyncio, json, sys
from aiohttp import ClientSession, CookieJar, WSServerHandshakeError

async def codes(session, url):
    found = {}
    for path in ("", "state", "pictures", "nowhere", "page.html"):
        async with session.get(url + path) as answer:
            found["GET /" + path] = answer.status
    for path in ("stop", "key"):
        async with session.post(url + path, data='{"key": "s"}', headers={"Origin": url[:-1]}) as answer:
            found["POST /" + path] = answer.status
    for path in ("state", "pictures"):
        try:
            async with session.ws_connect(url + path, origin=url[:-1]) as ws:
                await ws.send_str('{"next": -1}' if path == "state" else '{"camera": "camera_0", "after": 0}')
                found["WS /" + path] = len((await ws.receive(10)).data) > 100
        except WSServerHandshakeError as error:
            found["WS /" + path] = error.status
    return found

async def main(url, key):
    async with ClientSession() as session:
        print(json.dumps(await codes(session, url)))
    async with ClientSession() as session:
        async with session.get(url + "?key=wrong") as answer:
            print(answer.status, len(answer.cookies))
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        async with session.get(url + "?key=" + key) as answer:
            [cookie] = answer.history[0].cookies.values()
            print(answer.status, str(answer.url) == url, cookie["httponly"], cookie["samesite"])
        print(json.dumps(await codes(session, url)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(not possible(), reason="needs network namespaces")
def test_another_host_gets_nothing_without_the_key_and_all_with_it(tmp_path: Path) -> None:
    with two_hosts() as hosts:
        # the command itself, on host a; its policy node is reached through the file system
        wire, key = f"ipc://{tmp_path}/policy_node", tmp_path / "page.key"
        tactus = [sys.executable, "-m", "tactus"]
        robot = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=100000", "--robot.cameras=1"]
        policy = ["--policy.type=ticker", "--policy.width=3", "--policy.cameras=1"]
        page = ["--page=8765", f"--page_host={hosts.address_a}", f"--page_key={key}"]
        here = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
        with (
            subprocess.Popen([*tactus, "serve", f"--connect={wire}", *policy], **here) as node,
            subprocess.Popen(
                hosts.at(hosts.a, *tactus, "run", *robot, *page, f"--connect={wire}", f"--output_dir={tmp_path}/out"),
                **{**here, "stderr": subprocess.STDOUT},
            ) as run,
        ):
            try:
                url = f"http://{hosts.address_a}:8765/"
                assert run.stdout is not None
                until(lambda: f"page: {url}?key=" in str(run.stdout.readline()))  # type: ignore[union-attr]
                until(lambda: tmp_path.joinpath("out").exists())
                visit = hosts.at(hosts.b, sys.executable, "-c", VISIT, url, key.read_text().strip())
                done = subprocess.run(visit, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, done.stderr
                without, wrong, opened, with_key = done.stdout.splitlines()
                assert set(json.loads(without).values()) == {403} and len(json.loads(without)) == 9
                assert wrong == "403 0"
                assert opened == "200 True True Lax"
                assert json.loads(with_key) == {
                    "GET /": 200, "GET /state": 403, "GET /pictures": 403, "GET /nowhere": 404, "GET /page.html": 404,
                    "POST /stop": 200, "POST /key": 400, "WS /state": True, "WS /pictures": True,
                } | {"GET /state": 400, "GET /pictures": 400}  # fmt: skip
                assert run.wait(20) == 1 and f"stopped: the page, by {hosts.address_b}" in run.stdout.read()
            finally:
                run.kill()
                node.terminate()


def test_on_loopback_other_sites_get_nothing_and_other_addresses_lead_nowhere(tmp_path: Path) -> None:
    with ticking(tmp_path) as run:
        until(lambda: (tmp_path / "out").exists(), lambda: run.said)  # before, a stop ends the command
        own, port = origin_of(run.url), int(run.url.rstrip("/").rpartition(":")[2])
        assert asked(run.url)[0] == 200
        assert asked(run.url, Host=f"evil.example:{port}")[0] == 403
        assert asked(f"{run.url}nowhere", Host=f"evil.example:{port}") == asked(run.url, Host=f"evil.example:{port}")
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", ""):
            assert asked(f"{run.url}stop", "POST", b"", Origin=origin)[0] == 403
        assert asked(f"{run.url}stop", "POST", b"")[0] == 403
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
        key = base64.b64encode(bytes(16)).decode()
        assert asked(f"{run.url}state", Sec_WebSocket_Key=key, Origin="http://evil.example", **upgrade)[0] == 403
        assert run.process.poll() is None, "and nothing of all that has stopped it"
        address = next((one for one in psutil.net_if_addrs().get("eth0", []) if one.family == socket.AF_INET), None)
        if address is not None:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address.address, port), timeout=5)
        assert asked(f"{run.url}stop", "POST", b"", Origin=own) == (200, '{"error": ""}')
        assert run.status() == 1


# what slow, rude and absent visitors cost


def websocket(url: str, path: str) -> socket.socket:
    """A connection that has been upgraded, and no more: nobody reads."""
    host, port = origin_of(url).removeprefix("http://").split(":")
    peer = socket.create_connection((host, int(port)), timeout=10)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = base64.b64encode(os.urandom(16)).decode()
    peer.sendall(
        f"GET /{path} HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {origin_of(url)}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    assert peer.recv(12) == b"HTTP/1.1 101"
    return peer


def order(text: str) -> bytes:
    """A text message as a client sends it, masked with zeros."""
    data = text.encode()
    return struct.pack("!BB", 0x81, 0x80 | len(data)) + bytes(4) + data


@pytest.mark.long
def test_visitors_who_do_not_read_cost_no_memory_and_no_ticks(tmp_path: Path) -> None:
    with ticking(tmp_path, cameras=2, image_size=(480, 640)) as run:
        until(lambda: (tmp_path / "out").exists(), lambda: run.said)
        peers = [(websocket(run.url, path), path) for path in ("state", "pictures") for _ in range(8)]
        sent = 0
        process = psutil.Process(run.process.pid)
        time.sleep(1.0)
        before = process.memory_info().rss
        until_s = time.monotonic() + 5.0
        for peer, _ in peers:
            peer.setblocking(False)
        while time.monotonic() < until_s:
            for peer, path in peers:
                wish = '{"next": -1}' if path == "state" else f'{{"camera": "camera_{sent % 2}", "after": 0}}'
                try:
                    sent += peer.send(order(wish)) > 0
                except BlockingIOError:
                    time.sleep(0.002)
        assert sent > 1000
        assert process.memory_info().rss - before < 30e6
        assert asked(f"{run.url}stop", "POST", b"", Origin=origin_of(run.url))[0] == 200
        assert run.status() == 1
        for peer, _ in peers:
            peer.close()


def test_rude_orders_end_nothing(tmp_path: Path) -> None:
    rude = [
        *("[]", "{", '{"next": "x"}', '{"next": null}', '{"next": 1e99}', '{"next": -999999999999999}', "[" * 120),
        *('{"key": []}', '{"key": "\\u0000"}', '{"camera": {}, "after": 0}', '{"camera": "0", "after": true}'),
    ]
    with ticking(tmp_path, cameras=1) as run:
        for path in ("state", "pictures"):
            peer = websocket(run.url, path)
            for one in rude:
                peer.sendall(order(one))
            peer.sendall(b"\xff" * 40)
            peer.close()
        assert asked(f"{run.url}key", "POST", b"\xff{", Origin=origin_of(run.url))[0] == 400
        assert asked(f"{run.url}key", "POST", b"x" * 100_000, Origin=origin_of(run.url))[0] == 413
        with pytest.raises(ConnectionError):
            peer = websocket(run.url, "state")
            for _ in range(100):
                peer.sendall(order("x" * 120))
                peer.sendall(b"\xff" * 1000)
                time.sleep(0.01)
        assert asked(run.url)[0] == 200 and run.process.poll() is None


@pytest.mark.long
def test_strangers_who_only_connect_are_let_go_of(tmp_path: Path) -> None:
    with ticking(tmp_path) as run:
        host, port = origin_of(run.url).removeprefix("http://").split(":")
        files = psutil.Process(run.process.pid).num_fds()
        strangers = [socket.create_connection((host, int(port))) for _ in range(4 * MAX_STRANGERS)]
        assert asked(run.url)[0] == 200
        until(lambda: psutil.Process(run.process.pid).num_fds() <= files + MAX_STRANGERS + 4)
        for stranger in strangers:
            stranger.close()


# what is noted


def noted(cameras: int = 1, ticks: int = 10, watched: bool = True) -> tuple[RunState, SyntheticRobot]:
    robot = SyntheticRobot(synthetic(cameras=cameras, image_size=(24, 32)))
    state = RunState(0.0)
    state.watched = lambda: watched
    names = {str(index): name for index, name in enumerate(robot.spec.observations) if name != STATE}
    state.connect(robot, "policy", [], names)
    robot.connect()
    robot.reset(0, 0)
    state.begin(Beginning(0, 0, "a task"))
    for tick in range(ticks):
        action = np.full(robot.spec.action.shape, tick, robot.spec.action.dtype)
        state.before(TickView(tick, action, tick == 3, ticks - tick, robot.observe, lateness_s=0.001 * tick))
        state.after(tick, action, None)
        action[:] = -1  # it was copied
    return state, robot


def test_rows_are_whole_and_only_the_newest_are_kept() -> None:
    state, _ = noted(ticks=ROWS + 5)
    rows = state.rows(-1)
    assert [row.number for row in rows] == list(range(5, ROWS + 5))
    assert all(row.requested[0] == row.tick for row in rows)
    assert [row.number for row in state.rows(ROWS + 2)] == [ROWS + 3, ROWS + 4] and not state.rows(ROWS + 4)
    head = state.head()
    assert (head["starved"], head["ticks"], head["tick"], head["phase"]) == (1, ROWS + 5, ROWS + 4, "running")
    json.dumps(head, allow_nan=False)


def test_what_is_no_number_is_none() -> None:
    state, robot = noted(ticks=0)
    action = np.full(robot.spec.action.shape, np.nan, np.float32)
    state.before(TickView(0, action, False, 0, robot.observe))
    state.after(0, np.full_like(action, np.inf), None)
    row = row_json(state.rows(-1)[0])
    assert row[6] == row[7] == [None] * len(action) and json.dumps(row, allow_nan=False)


def test_nobody_observes_for_a_page_that_nobody_looks_at() -> None:
    state, _ = noted(watched=False)
    assert state.look() is None and state.rows(-1)[-1].state is None
    state, _ = noted(watched=True)
    seen = state.look()
    assert seen is not None and state.rows(-1)[-1].state is not None


def test_pictures_are_made_once_for_all_and_not_too_often() -> None:
    rgb = [np.zeros((480, 1280, 3), np.uint8)]
    pictures = Pictures(lambda: Observation({"a": rgb[0]}, {"a": 7}), {"top": "a"}, hz=20)
    first = pictures.after("top", 0)
    assert first is not None and first.stamp_ns == 7 and first.jpeg[:2] == b"\xff\xd8"
    assert pictures.after("top", 0) is first and pictures.after("top", first.number) is None
    rgb[0] = rgb[0] + 200
    assert pictures.after("top", 0) is first, "not before a twentieth of a second has passed"
    time.sleep(0.06)
    second = pictures.after("top", first.number)
    assert second is not None and second.number == 2
    import cv2

    shown = cv2.imdecode(np.frombuffer(second.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (240, 640, 3) and abs(int(shown.mean()) - 200) < 3


# what is wrong


@pytest.mark.parametrize(
    "keys, words",
    [
        (["--page={taken}"], "page: cannot listen at 127.0.0.1:{taken}: Address already in use; give another port"),
        (["--page=0", "--page_host=192.0.2.1"], "page_host: cannot listen at 192.0.2.1:0: "),
        (["--page=70000"], "page: found 70000; must be at most 65535"),
        (
            ["--page=0", "--page_host=0.0.0.0", "--log_format=json"],
            "page_key: not given, and a log is no place for a key",
        ),
        (["--page=0", "--page_key={folder}/none/key"], "page_key: "),
        (["--page=0", "--page_hz=0"], "page_hz: found 0; must be positive"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(tmp_path: Path, keys: list[str], words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = {"taken": server.getsockname()[1], "folder": tmp_path}
        filled = [key.format(**places) for key in keys]
        process = start("run", ["--robot.type=synthetic", f"--output_dir={tmp_path}/out", *filled], tmp_path / "log")
        assert process.wait(30) == 2
        assert words.format(**places) in (tmp_path / "log").read_text()
        assert not (tmp_path / "out").exists()


def test_without_aiohttp_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['aiohttp'] = None\nfrom tactus.runtime.commands import main\n"
    code += "sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "--robot.type=synthetic", "--page=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "page: needs aiohttp; install it: pip install 'tactus[page]'" in done.stderr
