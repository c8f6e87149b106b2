"""What a robot comes through: a network that goes and comes, machines whose clocks differ, a node that is restarted.

Losses, duplicates and delays of single messages: test_chaos.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, state_at, synthetic
from hosts import Hosts, possible, two_hosts

from tactus.hal.spec import STATE, Observation
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.keys import make_keys
from tactus.runtime.wire.link import Link

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
DAY_S = 86_400
SPEC = synthetic().make().spec

can_shift_clocks = (
    shutil.which("unshare") is not None
    and not subprocess.run(["unshare", "--time", "--monotonic", "1", "true"], capture_output=True).returncode
)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)


def wait_for(text: str, log: Path, within_s: float = 40) -> str:
    until_s = time.monotonic() + within_s
    while text not in log.read_text():
        assert time.monotonic() < until_s, f"no {text!r} in {log.read_text()}"
        time.sleep(0.05)
    return log.read_text()


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if not possible():
        pytest.skip("network namespaces need root and iproute2")
    with two_hosts() as made:
        yield made


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("away_s", [1.0, 6.0])
def test_a_network_that_goes_and_comes_back(hosts: Hosts, tmp_path: Path, away_s: float) -> None:
    """Two machines with keys; the cable is pulled in mid-episode. 6 s: longer than connections are kept."""
    for name in ("policy", "robot"):
        make_keys(tmp_path, name)
    (tmp_path / "robots").mkdir()
    (tmp_path / "robot.key").rename(tmp_path / "robots" / "robot.key")
    policy = ["--policy.type=ticker", "--policy.width=2", "--policy.horizon=10"]
    curve = [f"--curve.key={tmp_path}/policy.key_secret", f"--curve.authorized={tmp_path}/robots"]
    address = f"--connect=tcp://{hosts.address_a}:5555"
    node = start(hosts.at(hosts.a, *TACTUS, "serve", *policy, *curve, address), tmp_path / "node.log")
    try:
        wait_for(" at tcp://", tmp_path / "node.log")
        steps = int((away_s + 8) * 30)
        robot = ["--robot.type=synthetic", "--robot.width=2", f"--robot.steps={steps}", "--episodes=2"]
        robot += [f"--output_dir={tmp_path}/out", "--request_timeout_s=0.5", "--lost_after_s=30"]
        curve = [f"--curve.key={tmp_path}/robot.key_secret", f"--curve.server={tmp_path}/policy.key"]
        ran = start(hosts.at(hosts.b, *TACTUS, "run", *robot, *curve, address), tmp_path / "robot.log")
        try:
            wait_for("robot synthetic", tmp_path / "node.log")
            time.sleep(2)
            hosts.pull()
            time.sleep(away_s)
            hosts.plug()
            assert ran.wait(120) == 0, (tmp_path / "robot.log").read_text()
        finally:
            end(ran)
    finally:
        end(node)
    rows = [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in rows] == [0, 1]
    starved = rows[0]["timeline"]["starved"]
    assert rows[0]["ticks"] == steps
    # it starves once, from when its queue is empty until soon after the cable is back; a busy machine skips ticks
    longest = max(len(run) for run in "".join("x" if t in {*starved} else " " for t in range(steps)).split())
    skipped = rows[0]["skipped_ticks"] / 30
    assert away_s - 10 / 30 - 0.5 - skipped < longest / 30 < away_s + 3.5


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not can_shift_clocks, reason="time namespaces need root and unshare")
def test_clocks_that_differ_by_a_day_change_nothing(tmp_path: Path) -> None:
    found = {}
    for shift_s in (0, DAY_S, -600):
        folder = tmp_path / str(shift_s)
        folder.mkdir()
        address = f"--connect=ipc://{folder}/node"
        shifted = ["unshare", "--time", f"--monotonic={shift_s}"] if shift_s else []
        policy = ["--policy.type=ticker", "--policy.width=2", "--policy.horizon=10"]
        node = start([*shifted, *TACTUS, "serve", *policy, address], folder / "node.log")
        try:
            wait_for(" at ipc://", folder / "node.log")
            robot = ["--robot.type=synthetic", "--robot.width=2", "--robot.steps=60", "--episodes=3"]
            latency = "--latency=lognormal:2,drop=0.1,reorder=0.1"
            subprocess.run(
                [*TACTUS, "eval", *robot, latency, address, f"--output_dir={folder}/out"],
                cwd=ROOT, check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            found[shift_s] = (folder / "out" / "episodes.jsonl").read_bytes()
            link = Link(f"ipc://{folder}/node")
            link.hello(synthetic(width=2).make().spec, 10, real_time=True)
            link.reset(0, 0, "")
            link.request(Observation({STATE: np.zeros(2, np.float32)}, {STATE: 0}), 0, 0)
            replies = []
            while not replies:
                link.wait(0.1)
                replies = link.poll()
            link.close()
            assert abs(link._offset_ns / 1e9 - shift_s) < 1
            assert 0 <= replies[0].uplink_ms + 5 < 1000 and 0 <= replies[0].downlink_ms + 5 < 1000
        finally:
            end(node)
    assert found[DAY_S] == found[0] and found[-600] == found[0]


def test_a_lost_reset_is_noticed_and_sent_again(serve: Serve) -> None:
    """The first RESET never comes: the observation that follows is not answered as part of another episode."""
    policy = FunctionPolicy(count)
    node = serve(policy)
    link = Link(node.endpoint)
    link.hello(SPEC, 5)
    for episode in (0, 1):
        send = link._send
        link._send = lambda message, send=send: message.kind != codec.RESET and send(message)  # type: ignore[method-assign]
        link.reset(episode, 100, "")
        link._send = send  # type: ignore[method-assign]
        assert answered(link, 5) == 5
    assert [session.seed for session in policy.opened] == [100, 101] and link.repeated == 4
    link.close()


def test_what_comes_twice_is_answered_once(serve: Serve) -> None:
    policy = FunctionPolicy(count)
    node = serve(policy)
    link = Link(node.endpoint)
    link.hello(SPEC, 5)
    send = link._send

    def twice(message: Message) -> bool:
        return send(message) and send(message)

    link._send = twice  # type: ignore[method-assign]
    link.reset(0, 100, "")
    for tick in range(5):
        assert answered(link, tick) == tick
    assert len(policy.opened) == 1 and len(policy.batches) == 5
    until_s = time.monotonic() + 5
    while node.counters.repeated < 6 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert node.counters.repeated == 6, "a RESET and five observations"
    assert link.poll() == [], "an answer that comes twice counts once"
    link.close()


def test_an_answer_that_is_lost_is_given_again_without_thinking_again(serve: Serve) -> None:
    policy = FunctionPolicy(count)
    node = serve(policy)
    link = Link(node.endpoint)
    link.hello(SPEC, 5)
    link.reset(0, 100, "")
    lost = []
    chunk = link._chunk
    link._chunk = lambda message: lost.append(message.seq) if not lost else chunk(message)  # type: ignore
    began_s = time.monotonic()
    assert answered(link, 3) == 3
    assert time.monotonic() - began_s < 5 and len(policy.batches) == 1 and lost
    link.close()


def answered(link: Link, tick: int) -> int:
    """The start of the answer to an observation at `tick`."""
    link.request(state_at(tick), 0, 0)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        link.wait(0.02)
        for reply in link.poll():
            assert reply.chunk is not None, reply.error
            return reply.chunk.start
    raise TimeoutError
