"""The guardian process against emulated servos on real serial ports: what it does when the robot's process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twins import RunningTwin, running_twin

from tactus.hal.governor.guardian import confirms, crc16, dynamixel_packet, feetech_packet, off_packets
from tactus.hal.governor.guardian_process import GuardianProcess
from tactus.hal.robot import RobotError

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

ROOT = Path(__file__).parents[1]
IDS = [1, 2, 3, 4, 5, 6]
KINDS = {"feetech": "so101", "dynamixel": "koch"}
GUARDIAN = [sys.executable, "-I", "-S", str(ROOT / "hal" / "governor" / "guardian.py")]

GOVERNED = """
import signal, sys, time
import numpy as np
from tactus.hal.arm import KochConfig, So100Config
from tactus.hal.governor.config import GovernorConfig
kind, port, calibration, on_stop = sys.argv[1:]
make = {"so101": So100Config, "koch": KochConfig}[kind]
park = {"elbow_flex": 0.0}
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background processes ignore
robot = make(port=port, calibration=calibration, governor=GovernorConfig(on_stop=on_stop, park_pose=park)).make()
robot.connect()
try:
    robot.reset(0, 0)
    at = robot.observe().arrays["observation.state"]
    for tick in range(3000):
        robot.act(at + np.float32(0.2) * np.float32(np.sin(tick / 10)))
        if tick == 5:
            print("moving", flush=True)
        time.sleep(1 / 30)
finally:
    robot.close()
    print("closed", flush=True)
"""


@pytest.fixture(scope="module", params=KINDS)
def arm(request, tmp_path_factory) -> Iterator[tuple[str, RunningTwin]]:
    """A protocol, and a twin with one arm `a` that speaks it."""
    folder = tmp_path_factory.mktemp(request.param)
    with running_twin(folder, "--world=kinematic", f"--arms.a.kind={KINDS[request.param]}") as twin:
        yield request.param, twin


@pytest.fixture
def state(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "tactus" / "guardian.log"


Govern = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def govern(arm) -> Iterator[Govern]:
    """Starts processes whose Governor has the arm moving."""
    started: list[subprocess.Popen[str]] = []
    yield lambda on_stop="off", **options: started.append(_govern(*arm, on_stop, **options)) or started[-1]
    for process in started:
        process.kill()
        process.communicate()


def _govern(protocol: str, twin: RunningTwin, on_stop: str, **options: object) -> subprocess.Popen[str]:
    arguments = [KINDS[protocol], twin.port("a"), twin.about["arms"]["a"]["calibration"], on_stop]
    process = subprocess.Popen(
        [sys.executable, "-c", GOVERNED, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    )
    assert process.stdout is not None and process.stdout.readline() == "moving\n"
    return process


def torque_writes(twin: RunningTwin, since_s: float, value: int = 0) -> dict[int, float]:
    """By motor: when it first accepted this torque after since_s, in ms."""
    time.sleep(0.2)  # the log is on disk within 50 ms
    found: dict[int, float] = {}
    for write in twin.writes():
        torque = write["register"] == "Torque_Enable" and write["value"] == value and write["accepted"]
        if torque and write["t"] > since_s:
            found.setdefault(write["id"], (write["t"] - since_s) * 1e3)
    return found


def wait_for_torque_off(twin: RunningTwin, since_s: float, timeout_s: float = 5.0) -> dict[int, float]:
    until_s = time.monotonic() + timeout_s
    while len(found := torque_writes(twin, since_s)) < 6:
        assert time.monotonic() < until_s, found
    return found


# a process that dies


def test_after_a_sigkill_every_torque_is_off_within_300_ms(arm, govern: Govern, state: Path) -> None:
    protocol, twin = arm
    process = govern()
    assert set(torque_writes(twin, 0.0, 1)) == set(IDS), "or switching off would show nothing"
    killed_s = time.monotonic()
    process.kill()
    process.wait()
    off_ms = wait_for_torque_off(twin, killed_s)
    print(protocol, {motor_id: round(ms) for motor_id, ms in off_ms.items()})
    assert max(off_ms.values()) < 300
    until_s = time.monotonic() + 5
    while "torque off on all 6 motors" not in (state.read_text() if state.exists() else ""):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert f"process {process.pid} is gone" in state.read_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_does_not_reach_the_guardian(arm, govern: Govern, state: Path, signum: int) -> None:
    """As a terminal's Ctrl-C does; SIGTERM kills this process, which has no handler for it."""
    _, twin = arm
    process = govern(start_new_session=True)
    sent_s = time.monotonic()
    os.killpg(process.pid, signum)
    process.wait()
    assert max(wait_for_torque_off(twin, sent_s).values()) < 300


def test_after_a_goodbye_nothing_is_written(arm, govern: Govern, state: Path) -> None:
    """on_stop is hold for this one, with a guardian started beside it by hand: torque must stay on."""
    protocol, twin = arm
    process = govern(on_stop="hold")
    order = {"port": twin.port("a"), "baudrate": 1_000_000, "protocol": protocol, "ids": IDS}
    guardian = GuardianProcess.start(order)
    assert guardian.alive
    process.send_signal(signal.SIGINT)
    process.wait()
    said_s = time.monotonic()
    guardian.disarm()
    assert time.monotonic() - said_s < 1 and not guardian.alive
    time.sleep(0.3)
    assert torque_writes(twin, said_s) == {}
    assert all(twin.arm("a")["torque_on"].values()), "it holds"
    guardian.disarm()


def test_a_guardian_without_a_goodbye_acts_when_its_pipe_closes(arm, state: Path) -> None:
    protocol, twin = arm
    order = {"port": twin.port("a"), "baudrate": 1_000_000, "protocol": protocol, "ids": IDS}
    guardian = GuardianProcess.start(order)
    left_s = time.monotonic()
    guardian.abandon()
    assert max(wait_for_torque_off(twin, left_s).values()) < 300


def test_a_lock_on_the_port_does_not_keep_the_guardian_away(arm, state: Path) -> None:
    """A child of the dead process may have inherited it."""
    import fcntl

    protocol, twin = arm
    fd = os.open(twin.port("a"), os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        order = {"port": twin.port("a"), "baudrate": 1_000_000, "protocol": protocol, "ids": IDS}
        guardian = GuardianProcess.start(order)
        left_s = time.monotonic()
        guardian.abandon()
        assert max(wait_for_torque_off(twin, left_s).values()) < 300
    finally:
        os.close(fd)


def test_one_motor_that_does_not_answer_does_not_keep_the_others_on(arm, govern: Govern, state: Path) -> None:
    _, twin = arm
    process = govern()
    twin.ask(do="fault", kind="dead", arm="a", motor=3)
    try:
        killed_s = time.monotonic()
        process.kill()
        process.wait()
        until_s = time.monotonic() + 5
        while len(off_ms := torque_writes(twin, killed_s)) < 5:
            assert time.monotonic() < until_s, off_ms
        assert set(off_ms) == {1, 2, 4, 5, 6} and max(off_ms.values()) < 300
        while "no answer from motors [3]" not in (state.read_text() if state.exists() else ""):
            assert time.monotonic() < until_s
            time.sleep(0.02)
    finally:
        twin.ask(do="clear")


# the process itself


def order(**changes: object) -> bytes:
    whole = {"port": "/dev/null", "baudrate": 1000000, "protocol": "feetech", "ids": [1], "parent": os.getpid()}
    return json.dumps(whole | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", "this is no order"),
        (b"hello\n", "this is no order"),
        (b"{}\n", "'protocol'"),
        (order(protocol="canopen"), "found 'canopen'; accepted: feetech, dynamixel"),
        (order(ids=["a"]), "this is no order"),
        (order(ids=None), "this is no order"),
    ],
    ids=["nothing", "words", "empty", "protocol", "letters", "no ids"],
)
def test_what_is_no_order_is_said_before_it_counts(text: bytes, words: str) -> None:
    out = subprocess.run(GUARDIAN, input=text, capture_output=True, timeout=10)
    assert out.returncode == 2 and words in out.stderr.decode() and out.stdout == b""


def test_a_goodbye_ends_it(tmp_path: Path) -> None:
    out = subprocess.run(GUARDIAN, input=order() + b"goodbye\n", capture_output=True, timeout=10)
    assert (out.returncode, out.stdout, out.stderr) == (0, b"ready\n", b"")


def test_it_starts_quickly_and_ignores_signals() -> None:
    began_s = time.monotonic()
    process = subprocess.Popen(GUARDIAN, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(order())
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    print(f"ready after {(time.monotonic() - began_s) * 1e3:.0f} ms")
    assert time.monotonic() - began_s < 2
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(signum)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.communicate(b"goodbye\n", timeout=5)
    assert process.returncode == 0


def test_a_guardian_that_cannot_start_is_an_error(state: Path, capfd) -> None:
    with pytest.raises(RobotError, match="the guardian process did not start"):
        GuardianProcess.start({"port": "/dev/null", "baudrate": 1, "protocol": "semaphore", "ids": [1]})


# packets


def test_packets_are_the_vendors() -> None:
    """Examples from Feetech's protocol manual and ROBOTIS' e-Manual."""
    assert feetech_packet(1, 0x01, b"") == bytes.fromhex("ffff010201fb")
    assert dynamixel_packet(1, 0x01, b"") == bytes.fromhex("fffffd00010300" + "01" + "194e")
    goal_512 = bytes.fromhex("7400" + "00020000")
    assert dynamixel_packet(1, 0x03, goal_512) == bytes.fromhex("fffffd00010900" + "03740000020000" + "ca89")
    at_once, single = off_packets("feetech", [1, 2], (40, 1))
    assert at_once == bytes.fromhex("fffffe0883" + "2801" + "01000200" + "4a")
    assert single[2] == bytes.fromhex("ffff020403" + "2800" + "ce")


def test_only_the_motors_own_whole_answer_confirms() -> None:
    good = feetech_packet(3, 0x00, b"")
    overloaded = feetech_packet(3, 0x20, b"")
    assert confirms("feetech", 3, b"\x00\xff" + good) and confirms("feetech", 3, overloaded)
    assert not confirms("feetech", 4, good) and not confirms("feetech", 3, good[:-1])
    assert not confirms("feetech", 3, good[:-1] + b"\x00")

    def status(motor_id: int, error: int) -> bytes:
        packet = bytes.fromhex("fffffd00") + bytes([motor_id, 4, 0, 0x55, error])
        return packet + crc16(packet).to_bytes(2, "little")

    assert confirms("dynamixel", 3, b"\x00" + status(3, 0)) and confirms("dynamixel", 3, status(3, 0x80))
    assert not confirms("dynamixel", 3, status(3, 7)), "it refused"
    assert not confirms("dynamixel", 4, status(3, 0)) and not confirms("dynamixel", 3, status(3, 0)[:-1])
