"""Emergency stops: over the wire, by a signal, by a key; and how errors of a robot end a run."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq
from conftest import Serve
from doubles import FunctionPolicy, count, slow_count, synthetic
from hardware import RecordingHardware

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.robot import Command, Robot, RobotError
from tactus.hal.spec import STATE, Observation, PolicySpec
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.policies.scripted.ticker import TickerPolicy
from tactus.runtime.commands import main
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import RealClock, VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link, Stopped

pytestmark = pytest.mark.realtime

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
TICKER = ["--policy.type=ticker", "--policy.width=3", "--policy.horizon=8"]
ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=100000"]


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        started.append(subprocess.Popen([*TACTUS, *arguments], cwd=ROOT, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


class Told(SyntheticRobot):
    """A synthetic robot that keeps what it is told."""

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self.commands: list[Command] = []
        self.stops: list[str] = []
        self.lines: list[str] = []
        self.rests = 0

    def follow(self, command: Command) -> np.ndarray:
        self.commands.append(command)
        self.lines.append(f"line {len(self.commands)}")
        return super().follow(command)

    def stop(self, reason: str) -> None:
        self.stops.append(reason)

    def events(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def counters(self) -> dict[str, float]:
        return {"commands": float(len(self.commands))}

    def rest(self) -> None:
        self.rests += 1


def play(node: PolicyNode, robot: Robot, latency: str = "fixed:0", said: list[str] | None = None, **config: object):
    link, clock = Link(node.endpoint), VirtualClock(robot.spec.fps)
    try:
        policy = link.hello(robot.spec, timeout_s=5)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=5)
        say = (said if said is not None else []).append
        return RobotNode(robot, policy, delayed, clock, LoopConfig(**config), say=say).run_episode(0, seed=1)
    finally:
        link.close()


# what the node tells the robot, and the robot the node


def test_a_command_carries_the_age_of_its_decision(serve: Serve) -> None:
    robot = Told(synthetic())  # 50 Hz, chunks of 8
    stats = play(serve(FunctionPolicy(count)), robot, latency="fixed:3", chunk_size_threshold=0.0)
    assert len(robot.commands) == stats.ticks == 40
    for tick, (command, source) in enumerate(zip(robot.commands, stats.sources, strict=True)):
        assert command.starved == (source < 0)
        if not command.starved:
            assert command.age_s == pytest.approx((tick - source) / 50)
    ages = [round(command.age_s * 50) for command in robot.commands[:14]]
    assert ages == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 3, 4, 5], "a held command grows old"
    assert [command.starved for command in robot.commands[7:12]] == [False, True, True, True, False]


class Frozen(Told):
    """In wall time, with a picture that has been the same for two seconds."""

    wall_time = True

    def observe(self) -> Observation:
        seen = super().observe()
        return replace(seen, stamps_ns=dict.fromkeys(seen.arrays, time.monotonic_ns() - 2_000_000_000))


def test_what_was_decided_on_an_old_picture_is_as_old(serve: Serve) -> None:
    robot = Frozen(synthetic())
    stats = play(serve(FunctionPolicy(count)), robot, chunk_size_threshold=0.0)
    for tick, (command, source) in enumerate(zip(robot.commands, stats.sources, strict=True)):
        assert command.age_s == pytest.approx((tick - source) / 50 + 2, abs=0.2)


def test_events_are_told_with_their_tick_and_counters_kept(serve: Serve) -> None:
    robot, said = Told(synthetic(steps=3)), []
    stats = play(serve(FunctionPolicy(count)), robot, said=said)
    assert said == ["tick 0: line 1", "tick 1: line 2", "tick 2: line 3"]
    assert stats.counters == {"commands": 3.0} and robot.rests == 1


def test_a_robot_that_fails_ends_the_episode_after_its_events(serve: Serve) -> None:
    class Failing(Told):
        def follow(self, command: Command) -> np.ndarray:
            sent = super().follow(command)
            if len(self.commands) == 5:
                raise RobotError("wrist_flex does not answer")
            return sent

    said: list[str] = []
    with pytest.raises(RobotError, match="wrist_flex does not answer"):
        play(serve(FunctionPolicy(count)), Failing(synthetic()), said=said)
    assert said[-1] == "tick 4: line 5"


# over the wire


@pytest.mark.slow
def test_a_stop_reaches_every_robot_and_is_confirmed_while_the_policy_thinks(serve: Serve, capsys) -> None:
    node = serve(FunctionPolicy(slow_count(0.3)))
    robots = [Told(synthetic(steps=100000)) for _ in range(2)]
    errors: list[BaseException] = []

    def run(robot: Told) -> None:
        link, clock = Link(node.endpoint), RealClock(50.0)
        try:
            policy = link.hello(robot.spec, timeout_s=5)
            RobotNode(robot, policy, link, clock, LoopConfig(), say=lambda line: None).run_episode(0, 1)
        except Stopped as error:
            errors.append(error)
        finally:
            link.close()

    threads = [threading.Thread(target=run, args=(robot,)) for robot in robots]
    for thread in threads:
        thread.start()
    while not all(robot.commands for robot in robots):
        time.sleep(0.01)
    assert main(["stop", f"--connect={node.endpoint}", "--reason=a hand in the way"]) == 0
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert [robot.stops for robot in robots] == [["a hand in the way"]] * 2
    assert [str(error) for error in errors] == ["stopped: a hand in the way"] * 2
    assert "stopped 2 of the 2 robots" in capsys.readouterr().out


def test_a_stopped_link_stays_stopped(serve: Serve) -> None:
    node = serve(FunctionPolicy(count))
    link = Link(node.endpoint)
    link.hello(synthetic().make().spec, timeout_s=5)
    done = threading.Thread(target=main, args=(["stop", f"--connect={node.endpoint}"],))
    done.start()
    with pytest.raises(Stopped, match="stopped: tactus stop by"):
        while True:
            link.wait(0.1)
            link.poll()
    done.join()
    with pytest.raises(Stopped):
        link.poll()
    link.close()


@pytest.mark.slow
def test_a_robot_that_went_without_a_word_is_not_counted_as_stopped(serve: Serve, capsys) -> None:
    node = serve(FunctionPolicy(count))
    link = Link(node.endpoint)
    link.hello(synthetic().make().spec, timeout_s=5)
    link._socket.close(0)  # no BYE
    assert main(["stop", f"--connect={node.endpoint}", "--timeout_s=0.5"]) == 1
    out = capsys.readouterr()
    assert "stopped 0 of the 1 robots" in out.out and "did not answer" in out.err


def test_nobody_to_stop_is_said(serve: Serve, capsys) -> None:
    assert main(["stop", f"--connect={serve(FunctionPolicy(count)).endpoint}"]) == 1
    assert "serves no robot" in capsys.readouterr().err
    assert main(["stop", "--connect=tcp://127.0.0.1:9", "--timeout_s=0.3"]) == 1
    assert "no policy node answered within 0.3 s" in capsys.readouterr().err
    assert main(["stop", "--connect=nonsense"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("meta", [{}, {"reason": 3}, {"reason": ""}, {"reason": "x" * 201}, {"reason": ["a"]}])
def test_a_malformed_stop_is_refused_and_stops_nobody(serve: Serve, meta: dict) -> None:
    node = serve(FunctionPolicy(count))
    link = Link(node.endpoint)
    link.hello(synthetic().make().spec, timeout_s=5)
    link.reset(0, 1, "")
    peer = zmq.Context.instance().socket(zmq.DEALER)
    peer.setsockopt(zmq.LINGER, 0)
    peer.connect(node.endpoint)
    peer.send_multipart(codec.encode(Message(codec.STOP, meta=meta)))
    assert peer.poll(2000)
    assert codec.decode(peer.recv_multipart()).meta["code"] == "wire_header"
    for by in (None, 3, "zz", "ab" * 300):
        peer.send_multipart(codec.encode(Message(codec.STOPPED, meta={"by": by})))
        assert peer.poll(2000), "from a stranger"
        assert codec.decode(peer.recv_multipart()).meta["code"] == "unknown_session"
        link._send(Message(codec.STOPPED, link.session, meta={"by": by}))
    peer.close()
    time.sleep(0.1)
    link.poll()
    link.ping()
    assert link.wait(2)
    link.poll()
    link.close()


def test_a_stop_is_heard_while_the_robot_goes_to_its_start(serve: Serve) -> None:
    hardware = RecordingHardware()
    spec = hardware.spec
    policy_spec = PolicySpec("p", {STATE: spec.observations[STATE]}, spec.action, 8)
    node = serve(TickerPolicy(dict(policy_spec.inputs), spec.action, 8))
    governor = Governor(hardware, GovernorConfig(start_pose={"shoulder_pan": 90.0}, ramp_velocity=0.01))
    link, clock = Link(node.endpoint), RealClock(spec.fps)
    link.hello(spec, timeout_s=5)
    governor.connect()
    threading.Timer(0.3, lambda: main(["stop", f"--connect={node.endpoint}"])).start()
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="emergency stop: tactus stop by"):
        RobotNode(governor, policy_spec, link, clock, LoopConfig(), say=lambda line: None).run_episode(0, 1)
    assert time.monotonic() - began_s < 5, "the way takes 50 s"
    assert 0 < hardware.position[0] < 10
    governor.close()
    link.close()
    assert not hardware.torque


# processes


def ready(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    while words not in (line := process.stdout.readline()):
        assert line, process.stderr.read() if process.stderr else "it ended"
    return line


def first_tick(folder: Path) -> None:
    """A run has begun when its results folder is there; then it needs a moment to its first tick."""
    until_s = time.monotonic() + 30
    while not (folder / "config.json").exists():
        assert time.monotonic() < until_s
        time.sleep(0.02)
    time.sleep(1.0)


@pytest.mark.slow
def test_stop_between_real_processes(background, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/node"
    ready(background("serve", f"--connect={endpoint}", *TICKER), endpoint)
    run = background("run", f"--connect={endpoint}", *ROBOT, f"--output_dir={tmp_path}/run")
    first_tick(tmp_path / "run")
    stop = background("stop", f"--connect={endpoint}", "--reason=the test")
    out, err = stop.communicate(timeout=30)
    assert stop.returncode == 0 and "stopped 1 of the 1 robots" in out, err
    out, err = run.communicate(timeout=30)
    assert run.returncode == 1 and "tactus run: stopped: the test" in err, (out, err)
    assert "Traceback" not in err


@pytest.mark.slow
def test_sigusr1_is_an_emergency_stop(background, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/node"
    ready(background("serve", f"--connect={endpoint}", *TICKER), endpoint)
    run = background("run", f"--connect={endpoint}", *ROBOT, f"--output_dir={tmp_path}/run")
    first_tick(tmp_path / "run")
    run.send_signal(signal.SIGUSR1)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 1 and "tactus run: stopped: signal SIGUSR1" in err, (out, err)


KEYS = """
import sys, time
from tactus.runtime.commands.terminal_keys import stop_keys
pressed = []
with stop_keys(pressed.append) as listening:
    print("listening" if listening else "deaf", flush=True)
    until_s = time.monotonic() + 10
    while listening and not pressed and time.monotonic() < until_s:
        time.sleep(0.01)
print("pressed", pressed, flush=True)
"""


@pytest.mark.parametrize("key, name", [(b" ", "space"), (b"q", "q"), (b"\x1b", "Esc"), (b"xyq", "q")])
def test_keys_stop_and_the_terminal_is_as_it_was(key: bytes, name: str) -> None:
    master, terminal = pty.openpty()
    before = termios.tcgetattr(master)
    process = subprocess.Popen(
        [sys.executable, "-c", KEYS],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    said = b""

    def wait_for(words: bytes) -> None:
        nonlocal said
        until_s = time.monotonic() + 20
        while words not in said:
            assert time.monotonic() < until_s and select.select([master], [], [], 20)[0], said
            said += os.read(master, 1024)

    wait_for(b"listening")
    assert termios.tcgetattr(master)[3] & termios.ICANON == 0
    if key == b"\x1b":
        os.write(master, b"\x1b[A")  # an arrow is not Esc
        time.sleep(0.2)
        assert b"pressed" not in said
    os.write(master, key)
    wait_for(f"pressed ['key {name}']".encode())
    assert termios.tcgetattr(master)[3] == before[3]
    process.wait(10)
    os.close(master)
    os.close(terminal)


def test_without_a_terminal_nothing_is_listened_to() -> None:
    out = subprocess.run(
        [sys.executable, "-c", KEYS], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert out.stdout == "deaf\npressed []\n", out.stderr
