"""A policy node that dies while its robot moves: the next one goes on, in time and without a jump; and back again."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Serve
from doubles import HORIZON, FunctionPolicy, synthetic
from hardware import FPS, VELOCITY, RecordingHardware
from processes import ROOT, episodes, serving, start

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.spec import PolicySpec
from tactus.policies.policy import Request
from tactus.runtime.commands.stop import stop
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.fallback_links import ERRORS, FallbackLinks
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import Merged, TickView, Watcher
from tactus.runtime.wire.link import Link, Stopped

pytestmark = pytest.mark.realtime

NODE = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import numpy as np
from dataclasses import replace
from doubles import FunctionPolicy
from hardware import RecordingHardware
from tactus.runtime.policy_node.node import PolicyNode
robot = RecordingHardware().spec
policy = FunctionPolicy(lambda request: np.full(({horizon}, 3), {value}, np.float32))
policy._spec = replace(policy.spec, name={name!r}, inputs=robot.observations, action=robot.action, horizon={horizon})
print("up", flush=True)
PolicyNode(policy, {bind!r}).run()
"""


@contextmanager
def constant(bind: str, name: str, value: float, horizon: int) -> Iterator[subprocess.Popen[str]]:
    """A process that serves a policy whose actions are all of this value."""
    code = NODE.format(root=str(ROOT), tests=str(ROOT / "tests"), bind=bind, name=name, value=value, horizon=horizon)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class Drivers(Watcher):
    """Who drives: (monotonic s, identity) of each chunk; starved ticks."""

    def __init__(self) -> None:
        self.merges: list[tuple[float, str]] = []
        self.starved: list[int] = []

    def merged(self, merged: Merged) -> None:
        assert merged.reply.chunk is not None
        self.merges.append((time.monotonic(), merged.reply.chunk.policy.partition("@")[0]))

    def before(self, view: TickView) -> None:
        if view.starved:
            self.starved.append(view.tick)


def test_the_first_is_killed_and_comes_back_while_the_robot_moves() -> None:
    one, two = free_address(), free_address()
    hardware = RecordingHardware()
    robot = Governor(hardware, GovernorConfig(guardian=False))
    robot.connect()
    seen, said = Drivers(), []
    killed_s = back_s = 0.0
    with constant(one, "first", 20, 30) as first, constant(two, "second", 80, 12):
        numbers = itertools.count(1)
        links = FallbackLinks([Link(a, numbers=numbers) for a in (one, two)], 0.3, 1.5, 1.0)
        policy = links.hello(robot.spec, 20.0)
        node = RobotNode(robot, policy, links, RealClock(FPS), LoopConfig(max_ticks=int(FPS * 12)), say=said.append)

        def kill() -> None:
            nonlocal killed_s, back_s
            time.sleep(2.0)
            first.send_signal(signal.SIGKILL)
            killed_s = time.monotonic()
            time.sleep(2.0)
            with constant(one, "first", 20, 30):
                back_s = time.monotonic()
                done.wait(20)

        done = threading.Event()
        killer = threading.Thread(target=kill)
        killer.start()
        stats = node.run_episode(0, 1, [seen])
        done.set()
        killer.join()
        links.close()
    robot.close()
    taken_s = next(at_s for at_s, name in seen.merges if name == "second")
    assert 0.3 <= taken_s - killed_s < 0.3 + 0.3, "the deadline, a ping's and one inference"
    returned_s = next(at_s for at_s, name in seen.merges if name == "first" and at_s > taken_s)
    assert 1.5 < returned_s - back_s < 4.0
    assert [name for name, _ in itertools.groupby(seen.merges, key=lambda each: each[1])] == [
        "first",
        "second",
        "first",
    ]
    assert not seen.starved, "a chunk of one second covered the gap"
    news = [line for line in said if "goes on" in line]
    assert [why for _, why in stats.handovers] == [line.partition(": ")[2] for line in news]
    assert re.search(r"tick \d+: .* has been silent for 0\.3\d s; .* goes on", news[0]) and "has answered" in news[1]
    acts = [(at_s, np.array(target)) for at_s, what, target in hardware.log if what == "act"]
    for (before_s, before), (after_s, after) in itertools.pairwise(acts):
        step = np.abs(after - before)
        assert (step <= VELOCITY * max(after_s - before_s, 1 / FPS) * 1.2 + 1e-6).all(), "no jump"


def linked(serve: Serve, *policies: FunctionPolicy, overdue_s: float = 5.0) -> tuple[FallbackLinks, PolicySpec]:
    numbers = itertools.count(1)
    links = FallbackLinks([Link(serve(each).endpoint, numbers=numbers) for each in policies], 0.3, 0.5, overdue_s)
    return links, links.hello(synthetic().make().spec, 5.0)


def named(name: str, answer: Callable[[Request], np.ndarray]) -> FunctionPolicy:
    policy = FunctionPolicy(answer)
    policy._spec = replace(policy.spec, name=name)
    return policy


def zeros(request: Request) -> np.ndarray:
    return np.zeros((HORIZON, 3), np.float32)


def play(links: FallbackLinks, policy: PolicySpec, steps: int = 100) -> tuple[Drivers, list[str]]:
    robot, seen, said = synthetic(steps=steps).make(), Drivers(), []
    robot.connect()
    RobotNode(robot, policy, links, RealClock(50), LoopConfig(error_retry_s=0.02), said.append).run_episode(
        0, 1, [seen]
    )
    links.close()
    return seen, said


def test_errors_in_a_row_hand_over_too(serve: Serve) -> None:
    calls = itertools.count()

    def failing(request: Request) -> np.ndarray:
        if next(calls) >= 3:
            raise RuntimeError("out of ideas")
        return zeros(request)

    seen, said = play(*linked(serve, named("first", failing), named("second", zeros)))
    assert seen.merges[0][1] == "first" and "second" in {name for _, name in seen.merges}
    assert any(f"has reported {ERRORS} errors in a row" in line for line in said)


def test_a_policy_that_thinks_for_ever_but_answers_pings_hands_over(serve: Serve) -> None:
    calls, stuck = itertools.count(), threading.Event()

    def sticking(request: Request) -> np.ndarray:
        if next(calls) == 2:
            stuck.wait(8)
        return zeros(request)

    links, policy = linked(serve, named("first", sticking), named("second", zeros), overdue_s=0.5)
    seen, said = play(links, policy)
    stuck.set()
    assert {name for _, name in seen.merges[3:]} >= {"second"} and any("answers pings, and has owed" in s for s in said)


def test_nobody_polls_for_a_while_and_nothing_is_made_of_it(serve: Serve) -> None:
    links, _ = linked(serve, named("first", zeros), named("second", zeros))
    links.reset(0, 1, "")
    for _ in range(3):
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:
            links.wait(0.01)
            assert not any(reply.again for reply in links.poll())
        time.sleep(1.0)
    links.close()


def test_a_stop_at_the_spare_stops_the_robot(serve: Serve) -> None:
    nodes = [serve(named(name, zeros)) for name in ("first", "second")]
    numbers = itertools.count(1)
    links = FallbackLinks([Link(node.endpoint, numbers=numbers) for node in nodes], 0.3, 0.5, 5.0)
    links.hello(synthetic().make().spec, 5.0)
    links.reset(0, 1, "")
    found: list[tuple[int, int]] = []
    asking = threading.Thread(target=lambda: found.append(stop(nodes[1].endpoint, "enough", 5.0)))
    asking.start()
    with pytest.raises(Stopped, match="enough"):
        for _ in range(500):
            links.wait(0.02)
            links.poll()
    asking.join()
    links.close()
    assert found == [(1, 1)]


@pytest.mark.long
def test_at_the_terminal(tmp_path: Path) -> None:
    """The first of two is killed; the run ends as it would have, and its results say who drove."""
    policy = ["--policy.type=ticker", "--policy.width=3"]
    with (
        serving(tmp_path / "a.log", *policy) as (first, a),
        serving(tmp_path / "b.log", *policy, "--policy.horizon=20") as (_, b),
    ):
        line = ["--robot.type=synthetic", "--robot.width=3", f"--connect=[{a},{b}]", "--max_ticks=240", "--episodes=1"]
        run = start("run", [*line, f"--output_dir={tmp_path / 'out'}"], tmp_path / "run.log")
        until_s = time.monotonic() + 30
        while "session" not in (tmp_path / "b.log").read_text() and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(2.0)
        first.kill()
        assert run.wait(60) == 0, (tmp_path / "run.log").read_text()
    [row] = episodes(tmp_path / "out")
    assert len(row["chunks_of"]) == 2 and not row["starved_ticks"] and len(row["handovers"]) == 1
    assert "goes on" in (tmp_path / "run.log").read_text()
