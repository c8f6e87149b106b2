"""What the page costs the control loop, and how long its stop takes to torque off, against the terminal's key.

    python tests/bench/page.py [--stops=5] [--seconds=20]

Stops: `tactus teleop` of an emulated SO-101 (its bus at register level, joints without gravity), a page in headless
Chromium. The moment of the click is the browser's own stamp of the event; that of the key, when it is written to the
terminal; that of torque off, when the twin's servo that was last to be told was told. The two take turns.

Cost: a robot node at 30 Hz in a process of its own, seven joints, two cameras of 640x480, as in monitoring.py; without
a page, with one that nobody looks at, and with two visitors who watch both cameras, in slices of 5 s that take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from monitoring import FPS, SLICE_S, Robot, Timed, serve
from pages import open_browser
from person import Person
from twins import RunningTwin, running_twin
from visitors import URL, look, off_s, text_of, torque_on, until

from tactus.runtime.page.run_state import RunState
from tactus.runtime.page.server import PageServer
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import Watcher
from tactus.runtime.wire.link import Link

LOOPS = ("no page", "nobody looks", "two look")
STAMPED = """
window.pressed = 0;
addEventListener("pointerdown", event => { window.pressed = performance.timeOrigin + event.timeStamp; }, true);
"""


def stop_ms(twin: RunningTwin, browser: Any, folder: Path, by_page: bool) -> float:
    """One run, stopped while it moves."""
    calibration = twin.about["arms"]["arm"]["calibration"]
    robot = ["--robot.type=so100", f"--robot.port={twin.port('arm')}", f"--robot.calibration={calibration}"]
    keys = [*robot, "--teleop.type=keyboard", "--page=0", f"--output_dir={folder}"]
    with Person("teleop", *keys) as person:
        person.waits_for("emergency stop")
        found = URL.search(person.said)
        assert found, person.said
        look(browser, found[1], 1280)
        until(lambda: "running" in text_of(browser, "phase") and all(torque_on(twin)), lambda: person.said)
        browser.execute_script(STAMPED)
        time.sleep(1.0)
        if by_page:
            browser.find_element("id", "stop").click()
            until(lambda: not any(torque_on(twin)))
            wall_s = browser.execute_script("return window.pressed") / 1000
            at_s = wall_s - time.time() + time.monotonic()
        else:
            at_s = time.monotonic()
            person.presses(" ")
            until(lambda: not any(torque_on(twin)))
        assert person.status() == 1, person.said
        time.sleep(0.2)  # the twin's log is on disk
        return (off_s(twin, at_s) - at_s) * 1000


def stops(count: int) -> None:
    took: dict[bool, list[float]] = {True: [], False: []}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        twin = stack.enter_context(running_twin(folder / "twin", "--world=kinematic", "--arms.arm.kind=so101"))
        browser = open_browser(folder / "chromium")
        stack.callback(browser.quit)
        for turn in range(2 * count):
            by_page = turn % 2 == 0
            took[by_page].append(stop_ms(twin, browser, folder / f"out{turn}", by_page))
    page, key = np.median(took[True]), np.median(took[False])
    print(f"click to torque off, {count} stops: median {page:.1f} ms, worst {max(took[True]):.1f} ms; terminal's key "
          f"median {key:.1f} ms, worst {max(took[False]):.1f} ms; ratio {page / key:.2f}")  # fmt: skip


def visit(url: str, cameras: list[str]) -> None:
    """Somebody who looks, as the page's script does, in a process of his own."""
    from aiohttp import ClientSession

    async def state(session: ClientSession) -> None:
        last = -1
        async with session.ws_connect(f"{url}state", origin=url[:-1]) as peer:
            while True:
                await peer.send_json({"next": last})
                rows = json.loads((await peer.receive()).data)["rows"]
                last = rows[-1][0] if rows else last

    async def pictures(session: ClientSession) -> None:
        async with session.ws_connect(f"{url}pictures", origin=url[:-1]) as peer:
            for camera in cameras:
                await peer.send_json({"camera": camera, "after": 0})
            while True:
                data = (await peer.receive()).data
                about = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
                await peer.send_json({"camera": about["camera"], "after": about["number"]})

    async def both() -> None:
        async with ClientSession() as session:
            await asyncio.gather(state(session), pictures(session))

    with contextlib.suppress(Exception):  # the page was closed
        asyncio.run(both())


@contextlib.contextmanager
def paged(robot: Robot, visitors: int) -> Iterator[Watcher]:
    context = multiprocessing.get_context("spawn")
    state = RunState(0.1)
    server = PageServer("127.0.0.1", 0, None, 10.0, state)
    server.show(robot, "ticker")
    cameras = state.about["cameras"]
    looking = [context.Process(target=visit, args=(server.url, cameras), daemon=True) for _ in range(visitors)]
    for one in looking:
        one.start()
    until(lambda: len(server._visitors["pictures"]) == visitors)
    yield state
    for one in looking:
        one.terminate()
        one.join()
    server.close()


def cost(seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    policy_node = context.Process(target=serve, args=(there,), daemon=True)
    policy_node.start()
    link = Link(here.recv())
    policy = link.hello(Robot().spec, 30)
    late: dict[str, list[float]] = {name: [] for name in LOOPS}
    taken: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(max(1, round(seconds / SLICE_S))):
        for name in LOOPS:
            robot = Robot()
            with contextlib.ExitStack() as stack:
                watching = []
                if name != "no page":
                    watching.append(stack.enter_context(paged(robot, 2 if name == "two look" else 0)))
                timed = Timed(watching)
                node = RobotNode(robot, policy, link, RealClock(FPS), LoopConfig(start_timeout_s=10))
                late[name] += node.run_episode(0, 0, [timed]).lateness_ms
                taken[name] += timed.ticks_us
    link.close()
    policy_node.terminate()
    alone = np.percentile(late["no page"], 99)
    for name in LOOPS:
        p50, p99 = np.percentile(late[name], [50, 99])
        us50, us99 = np.percentile(taken[name], [50, 99])
        print(f"{name:13s} a tick begins late by p50 {p50:.3f} p99 {p99:.3f} ms ({p99 / alone:.2f} of no page's); it "
              f"takes p50 {us50:.1f} p99 {us99:.1f} µs of it")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=5, help="of each kind")
    parser.add_argument("--seconds", type=float, default=20.0, help="per loop")
    options = parser.parse_args()
    stops(options.stops)
    cost(options.seconds)


if __name__ == "__main__":
    main()
