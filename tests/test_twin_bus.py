"""The twin as other programs meet it: a serial port, and LeRobot's own followers on it, as they are."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import serial
from twins import RunningTwin, running_twin

from tactus.hal.robot import RobotError
from tactus.hal.twin.control import TwinControl
from tactus.hal.twin.dynamixel_bus import EmulatedDynamixelBus, frame
from tactus.runtime.commands import main

pytestmark = pytest.mark.realtime

ARMS = {"so": "feetech", "koch": "dynamixel"}
BOTH = pytest.mark.parametrize("arm", [*ARMS])


@pytest.fixture(scope="module")
def lerobot() -> SimpleNamespace:
    """LeRobot's classes; importing them takes ten seconds."""
    from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
    from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

    return SimpleNamespace(
        so=(SO101Follower, SO101FollowerConfig),
        koch=(KochFollower, KochFollowerConfig),
        leader=(SO101Leader, SO101LeaderConfig),
    )


@pytest.fixture(scope="module")
def module_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    folder = tmp_path_factory.mktemp("twin")
    arms = ["--arms.so.kind=so101", "--arms.koch.kind=koch", "--arms.leader.role=leader"]
    with running_twin(folder, "--world=kinematic", *arms, "--arms.new.calibrated=false") as twin:
        yield twin


@pytest.fixture
def twin(module_twin: RunningTwin) -> Iterator[RunningTwin]:
    """Without faults, torque off, every arm plugged in; so again afterwards."""
    yield module_twin
    module_twin.ask(do="clear")
    for name in module_twin.about["arms"]:
        module_twin.ask(do="fault", kind="replug", arm=name)
        module_twin.ask(do="fault", kind="brown_out", arm=name, duration_s=0.0)


def robot(lerobot: SimpleNamespace, twin: RunningTwin, arm: str, **options: Any) -> Any:
    """LeRobot's own robot on the twin's port, with the twin's calibration file."""
    robot_class, config_class = vars(lerobot)[arm]
    settings = {"port": twin.port(arm), "id": arm, "calibration_dir": twin.folder / "calibration", **options}
    return robot_class(config_class(**settings))


def send(port: str, packet: bytes, wait_s: float = 0.06, baudrate: int = 1_000_000) -> bytes:
    """What a plain serial port reads within wait_s of a request."""
    with serial.Serial(port, baudrate, timeout=0) as line:
        line.write(packet)
        time.sleep(wait_s)
        return line.read(4096)


def ping(arm: str, motor_id: int) -> bytes:
    if ARMS[arm] == "dynamixel":
        return frame(motor_id, 1, b"")
    return bytes((255, 255, motor_id, 2, 1, ~(motor_id + 3) & 0xFF))


def answer(arm: str, motor_id: int, model: int = 1200) -> bytes:
    if ARMS[arm] == "dynamixel":
        return EmulatedDynamixelBus.status(motor_id, 0, model.to_bytes(2, "little") + bytes((46,)))
    return bytes((255, 255, motor_id, 2, 0, ~(motor_id + 2) & 0xFF))


@pytest.mark.slow
@BOTH
def test_lerobots_follower_connects_reads_moves_and_disconnects(
    lerobot: SimpleNamespace, twin: RunningTwin, arm: str
) -> None:
    follower = robot(lerobot, twin, arm)
    follower.connect()
    assert follower.is_calibrated
    assert all(twin.arm(arm)["torque_on"].values())
    seen = follower.get_observation()
    assert set(seen) == {f"{joint}.pos" for joint in twin.about["arms"][arm]["motors"]}
    goal = {"shoulder_pan.pos": 20.0, "elbow_flex.pos": -15.0, "wrist_roll.pos": 40.0, "gripper.pos": 70.0}
    goal = {**seen, **goal}
    follower.send_action(goal)
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        reached = follower.get_observation()
        if all(abs(reached[name] - value) < 0.2 for name, value in goal.items()):
            break
    assert reached == pytest.approx(goal, abs=0.2)
    if arm == "so":  # in degrees; the SO-101's travel is even about 0
        assert math.degrees(twin.arm(arm)["angles_rad"]["elbow_flex"]) == pytest.approx(-15.0, abs=0.2)
    follower.disconnect()
    assert not any(twin.arm(arm)["torque_on"].values())
    time.sleep(0.1)
    written = [w for w in twin.writes() if w["arm"] == arm]
    assert {w["id"] for w in written if w["register"] == "Goal_Position"} == {1, 2, 3, 4, 5, 6}
    assert all(w["accepted"] for w in written)


def test_lerobots_leader_follows_a_hand(lerobot: SimpleNamespace, twin: RunningTwin) -> None:
    leader = robot(lerobot, twin, "leader")
    leader.connect()
    before = leader.get_action()
    twin.ask(do="hand", arm="leader", angles_rad={"shoulder_pan": 0.5, "gripper": 0.2})
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        now = leader.get_action()
        if abs(now["shoulder_pan.pos"] - math.degrees(0.5)) < 0.2:
            break
    assert now["shoulder_pan.pos"] == pytest.approx(math.degrees(0.5), abs=0.2)
    assert now["elbow_flex.pos"] == before["elbow_flex.pos"]
    twin.ask(do="hand", arm="leader", angles_rad={})
    leader.disconnect()


def test_lerobots_homing_of_an_arm_from_the_factory(lerobot: SimpleNamespace, twin: RunningTwin) -> None:
    assert twin.about["arms"]["new"]["calibration"] is None
    follower = robot(lerobot, twin, "so", port=twin.port("new"))
    follower.bus.connect()
    follower.bus.disable_torque()
    follower.bus.set_half_turn_homings()
    assert set(follower.bus.sync_read("Present_Position", normalize=False).values()) == {2047}
    follower.bus.disconnect()


@BOTH
def test_lerobot_names_the_motor_that_is_dead_or_another_model(
    lerobot: SimpleNamespace, twin: RunningTwin, arm: str
) -> None:
    twin.ask(do="fault", kind="dead", arm=arm, motor="elbow_flex")
    twin.ask(do="fault", kind="wrong_model", arm=arm, motor=5)
    follower = robot(lerobot, twin, arm)
    with pytest.raises(RuntimeError, match=r"Missing motor IDs:\n  - 3 .*(?s:.*)5 \(wrist_roll\): expected"):
        follower.connect()
    follower.bus.port_handler.closePort()
    twin.ask(do="clear")
    follower.connect()
    follower.disconnect()


@BOTH
def test_an_overload_keeps_the_torque_of_the_motors_behind_it_on(
    lerobot: SimpleNamespace, twin: RunningTwin, arm: str
) -> None:
    """A documented fault of LeRobot's torque-off, which the twin has to show."""
    follower = robot(lerobot, twin, arm)
    follower.connect()
    twin.ask(do="fault", kind="overload", arm=arm, motor=2)
    time.sleep(0.05)
    with pytest.raises(RuntimeError, match="rror"):
        follower.disconnect()
    torque_on = twin.arm(arm)["torque_on"]
    assert [joint for joint, on in torque_on.items() if on] == ["elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    follower.bus.port_handler.closePort()


@BOTH
def test_unplugged_and_plugged_in_again(lerobot: SimpleNamespace, twin: RunningTwin, arm: str) -> None:
    follower = robot(lerobot, twin, arm)
    follower.connect()
    twin.ask(do="fault", kind="unplug", arm=arm)
    assert not os.path.lexists(twin.port(arm))
    with pytest.raises((termios.error, serial.SerialException)):
        follower.get_observation()
    assert follower.is_connected  # LeRobot does not notice
    with pytest.raises(serial.SerialException):
        serial.Serial(twin.port(arm), 1_000_000)
    twin.ask(do="fault", kind="replug", arm=arm)
    assert all(twin.arm(arm)["torque_on"].values())  # the arm's own supply was there all the time
    again = robot(lerobot, twin, arm)
    again.connect()
    again.get_observation()
    again.disconnect()


@BOTH
def test_a_short_unplug_mends_itself(twin: RunningTwin, arm: str) -> None:
    twin.ask(do="fault", kind="unplug", arm=arm, duration_s=0.2)
    assert not twin.arm(arm)["plugged"]
    deadline_s = time.monotonic() + 5
    while not twin.arm(arm)["plugged"]:
        assert time.monotonic() < deadline_s
    assert send(twin.port(arm), ping(arm, 3)) == answer(arm, 3)


@BOTH
def test_the_wrong_baud_rate_is_silent(twin: RunningTwin, arm: str) -> None:
    assert send(twin.port(arm), ping(arm, 3)) == answer(arm, 3)
    for baudrate in (500_000, 115_200, 57_600):
        assert send(twin.port(arm), ping(arm, 3), baudrate=baudrate) == b""
    assert send(twin.port(arm), ping(arm, 3)) == answer(arm, 3)


@pytest.mark.slow
@BOTH
def test_each_fault_on_the_wire(twin: RunningTwin, arm: str) -> None:
    """Injected through the control socket, seen by a plain serial port."""
    port, request, whole = twin.port(arm), ping(arm, 4), answer(arm, 4)
    assert send(port, request) == whole

    def one(kind: str, **more: Any) -> bytes:
        number = twin.ask(do="fault", kind=kind, arm=arm, motor=4, **more)["fault"]
        seen = send(port, request)
        other = send(port, ping(arm, 3))
        assert other == answer(arm, 3)
        twin.ask(do="clear", fault=number)
        assert send(port, request) == whole
        return seen

    assert one("lost") == b""
    assert one("dead") == b""
    truncated = one("truncated")
    assert whole.startswith(truncated) and 0 < len(truncated) < len(whole)
    corrupt = one("corrupt")
    assert len(corrupt) == len(whole) and corrupt != whole
    noise = one("noise")
    assert whole in noise and len(noise) > len(whole)
    if arm == "koch":
        assert one("wrong_model", value=1190) == answer(arm, 4, 1190)
        twin.ask(do="fault", kind="over_temperature", arm=arm, motor=4)
        time.sleep(0.02)
        twin.ask(do="clear")
        assert send(port, request) == EmulatedDynamixelBus.status(4, 0x80, whole[9:-2])  # says so until it is rebooted
        send(port, frame(4, 8, b""), wait_s=0.6)
    else:
        assert one("over_temperature")[4] == 4
        assert one("under_voltage")[4] == 1
        assert one("overload")[4] == 32
    assert send(port, request) == whole


@BOTH
def test_late_answers_and_stale_ones(twin: RunningTwin, arm: str) -> None:
    with serial.Serial(twin.port(arm), 1_000_000, timeout=0) as line:

        def first_answer(motor_id: int) -> tuple[bytes, float]:
            begin_s = time.monotonic()
            line.write(ping(arm, motor_id))
            select.select([line.fileno()], (), (), 1.0)
            took_s = time.monotonic() - begin_s
            time.sleep(0.01)
            return line.read(4096), took_s

        twin.ask(do="fault", kind="late", arm=arm, motor=4, delay_ms=60, count=1)
        seen, took_s = first_answer(4)
        assert seen == answer(arm, 4) and took_s >= 0.06
        seen, _ = first_answer(4)
        assert seen == answer(arm, 4)

        twin.ask(do="fault", kind="stuck", arm=arm, motor=4)
        line.write(ping(arm, 4))
        time.sleep(0.03)
        assert line.read(4096) == b""  # a host gives up here, and asks somebody else
        line.write(ping(arm, 3))
        time.sleep(0.3)
        assert line.read(4096) == answer(arm, 3) + answer(arm, 4)


@BOTH
def test_two_motors_with_one_id(twin: RunningTwin, arm: str) -> None:
    twin.ask(do="fault", kind="duplicate_id", arm=arm, motor=3)
    if arm == "koch":
        request = frame(3, 2, bytes((132, 0, 4, 0)))
    else:
        body = bytes((3, 4, 2, 56, 2))
        request = b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))
    seen = {send(twin.port(arm), request, wait_s=0.02) for _ in range(10)}
    twin.ask(do="clear")
    alone = send(twin.port(arm), request)
    assert alone and seen != {alone}


@pytest.mark.slow
@BOTH
def test_brown_out(twin: RunningTwin, arm: str) -> None:
    twin.ask(do="fault", kind="brown_out", arm=arm, duration_s=0.5)
    assert send(twin.port(arm), ping(arm, 3)) == b""
    time.sleep(0.6)
    assert send(twin.port(arm), ping(arm, 3)) == answer(arm, 3)


def test_requests_that_cannot_be_met(twin: RunningTwin) -> None:
    for request, complaint in [
        ({"do": "dance"}, "'dance'; accepted: fault, clear"),
        ({"do": "fault", "kind": "gremlin"}, "'gremlin'; accepted: lost"),
        ({"do": "fault", "kind": "lost", "arm": "third"}, "'third'; accepted: so, koch"),
        ({"do": "fault", "kind": "lost", "motor": 9}, "9; accepted: all, 1 [(]shoulder_pan[)]"),
        ({"do": "fault", "kind": "dead", "probability": 0.5}, "found probability; accepted"),
        ({"do": "fault", "kind": "unplug", "motor": 3}, "found motor; accepted: kind, arm, duration_s"),
        ({"do": "fault", "kind": "lost", "count": "many"}, "many"),
        ({"do": "clear", "fault": 12345}, "no fault number 12345"),
        ({"do": "hand", "arm": "so", "angles_rad": {"nose": 1}}, "joints shoulder_pan"),
        ({"do": "camera_fault", "camera": "top", "kind": "stop"}, "no cameras"),
    ]:
        with pytest.raises(RobotError, match=complaint):
            twin.ask(**request)


def test_the_log_is_on_disk_soon(twin: RunningTwin) -> None:
    before = len(twin.writes())
    body = bytes((1, 5, 3, 42, 0x34, 0x12))
    send(twin.port("so"), b"\xff\xff" + body + bytes((~sum(body) & 0xFF,)))
    deadline_s = time.monotonic() + 2
    while len(twin.writes()) == before:
        assert time.monotonic() < deadline_s
    written = twin.writes()[-1]
    assert abs(written.pop("t") - time.monotonic()) < 3
    assert written == {
        **{"arm": "so", "id": 1, "register": "Goal_Position"},
        **{"address": 42, "value": 0x1234, "accepted": True},
    }


@pytest.mark.slow
def test_an_adapter_with_its_timer_at_16_ms(tmp_path: Path) -> None:
    with running_twin(tmp_path, "--world=kinematic", "--usb_latency_ms=16") as twin:
        took_s = []
        with serial.Serial(twin.port("follower"), 1_000_000, timeout=0.2) as line:
            for _ in range(20):
                begin_s = time.monotonic()
                line.write(ping("so", 2))
                assert line.read(6) == answer("so", 2)
                took_s.append(time.monotonic() - begin_s)
        assert min(took_s) >= 0.016
        assert sorted(took_s)[5] < 0.030


@pytest.mark.slow
def test_an_idle_twin_leaves_the_processor_alone(twin: RunningTwin) -> None:
    """3 % of one core here; the bound has room for a machine half as fast."""
    process = psutil.Process(twin.process.pid)
    before = process.cpu_times()
    time.sleep(3)
    after = process.cpu_times()
    assert (after.user - before.user + after.system - before.system) / 3 < 0.10


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(["sleep", "60"])
    try:
        with running_twin(tmp_path, "--world=kinematic", f"--parent={parent.pid}") as twin:
            parent.kill()
            parent.wait()
            assert twin.process.wait(5) == 0
    finally:
        parent.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration", "ports", "writes.jsonl"]
    assert not [*(tmp_path / "ports").iterdir()]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_a_signal(tmp_path: Path, signum: int) -> None:
    with running_twin(tmp_path, "--world=kinematic") as twin:
        twin.process.send_signal(signum)
        assert twin.process.wait(5) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration", "ports", "writes.jsonl"]


@pytest.mark.slow
def test_a_folder_holds_one_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / ("deep" * 20) / ("down" * 20)  # longer than a Unix socket's path may be
    with running_twin(folder, "--world=kinematic") as twin:
        assert main(["twin", f"--folder={folder}", "--world=kinematic"]) == 2
        assert "a twin runs in" in capsys.readouterr().err
        assert twin.arm("follower")["plugged"]
        twin.process.kill()
        twin.process.wait()
    with pytest.raises(RobotError, match="no twin answers"):
        TwinControl(folder)
    with running_twin(folder, "--world=kinematic") as twin:  # what a killed one left behind is in nobody's way
        assert twin.arm("follower")["plugged"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--world=moon"], "world: found 'moon'; accepted: table, kinematic"),
        (["--arms.a.kind=so99"], "found 'so99'; accepted: so101, koch"),
        (["--arms.a.protocol=morse"], "found 'morse'; accepted: feetech, dynamixel"),
        (["--arms.a.baudrate=9600"], "found 9600; accepted: 1000000"),
        (["--arms.a.knid=koch"], "unknown key --arms.a.knid; did you mean --arms.a.kind"),
        (["--arms.a.role=boss"], "found 'boss'; accepted: follower, leader"),
        (["--usb_latency_ms=-1"], "must not be negative"),
        (["--parent=4194305", "--world=kinematic"], "there is no process"),
        (["--model=/no/such.xml"], "such.xml"),
    ],
)
def test_what_a_twin_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(["twin", f"--folder={tmp_path}", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "control").exists()


def test_a_cell_from_a_config_file_and_keys_over_it(tmp_path: Path) -> None:
    """A leader and two followers; one key of one arm from the command line."""
    file = tmp_path / "cell.yaml"
    file.write_text("world: kinematic\narms: {left: {kind: so101}, right: {kind: koch}, hand: {role: leader}}\n")
    with running_twin(tmp_path / "twin", f"--config_path={file}", "--arms.left.baudrate=500000") as twin:
        arms = twin.about["arms"]
        assert {name: (arm["protocol"], arm["role"], arm["baudrate"]) for name, arm in arms.items()} == {
            "left": ("feetech", "follower", 500_000),
            "right": ("dynamixel", "follower", 1_000_000),
            "hand": ("feetech", "leader", 1_000_000),
        }
        assert send(twin.port("left"), ping("so", 1), baudrate=500_000) == answer("so", 1)
        assert send(twin.port("right"), ping("koch", 5)) == answer("koch", 5)
        models = [motor["model"] for motor in arms["right"]["motors"].values()]
        assert models == ["xl430-w250"] * 2 + ["xl330-m288"] * 4


def test_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["twin", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("--folder", "--world", "--usb_latency_ms", "--arms"))


@pytest.mark.slow
def test_lerobots_follower_on_the_table(lerobot: SimpleNamespace, tmp_path: Path) -> None:
    """The same with physics: weight, friction and all."""
    with running_twin(tmp_path, "--world=table", "--arms.so.kind=so101", "--cameras.names=[]") as twin:
        follower = robot(lerobot, twin, "so")
        follower.connect()
        goal = dict(zip(follower.action_features, (15.0, -40.0, 30.0, 50.0, -20.0, 60.0), strict=True))
        follower.send_action(goal)
        deadline_s = time.monotonic() + 15
        reached: dict[str, float] = {}
        while time.monotonic() < deadline_s:
            reached = follower.get_observation()
            if all(abs(reached[name] - value) < 1.0 for name, value in goal.items()):
                break
        assert reached == pytest.approx(goal, abs=1.0)
        follower.disconnect()
        deadline_s = time.monotonic() + 10
        lifted = math.radians(-40.0)
        while abs(twin.arm("so")["angles_rad"]["shoulder_lift"] - lifted) < 0.2:
            assert time.monotonic() < deadline_s, "without torque an arm falls"


@pytest.mark.slow
def test_a_twin_takes_its_cameras_with_it(tmp_path: Path) -> None:
    with running_twin(tmp_path, "--world=table", "--cameras.names=[top]") as twin:
        [camera] = psutil.Process(twin.process.pid).children()
        assert twin.about["cameras"]["top"].startswith("http://127.0.0.1:")
        keys = (tmp_path / "robot.keys").read_text().splitlines()
        assert f"--robot.parts.follower.port={twin.port('follower')}" in keys
        assert f"--robot.parts.top.source={twin.about['cameras']['top']}" in keys
        twin.process.kill()
        twin.process.wait()
        with contextlib.suppress(psutil.NoSuchProcess):
            camera.wait(5)
