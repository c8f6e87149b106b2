"""LeRobot's own robots and cameras behind our interfaces, on the emulated bus: what the adapter gives and mends."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from mjpeg_server import CORNERS, corners_of, draw

from tactus.testing import RobotConformance

pytest.importorskip("lerobot")

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.lerobot.camera import LeRobotCameraConfig
from tactus.hal.lerobot.config import JointLimits, LeRobotConfig
from tactus.hal.lerobot.hardware import LeRobotHardware
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import IMAGES, STATE
from tactus.hal.twin.control import TwinControl

ARMS = {"follower": "so101", "blue_left": "so101", "blue_right": "so101", "koch": "koch"}
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)
pytestmark = [pytest.mark.slow, pytest.mark.realtime]


class Twin:
    """An emulated rig of ARMS in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "tactus", "twin", f"--folder={folder}", "--world=kinematic"]
        command += [f"--arms.{name}.kind={kind}" for name, kind in ARMS.items()]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "twin: ready\n":
                break
        self.control = TwinControl(folder)

    def args(self, arm: str = "follower", **changes: Any) -> dict[str, Any]:
        return {
            "port": str(self.folder / "ports" / arm),
            "id": arm,
            "calibration_dir": str(self.folder / "calibration"),
        } | changes

    def torque(self, arm: str = "follower") -> list[bool]:
        return list(self.control.ask(do="state")["arms"][arm]["torque_on"].values())

    def registers(self, name: str, arm: str = "follower") -> list[int]:
        registers = self.control.ask(do="state")["arms"][arm]["registers"]
        return [registers[joint][name] for joint in JOINTS]

    def writes(self, arm: str = "follower") -> list[tuple[int, str, int]]:
        """Id, register and value of every write so far; the log lags behind, so wait until it is quiet."""
        log, size = self.folder / "writes.jsonl", -1
        while log.stat().st_size != size:
            size = log.stat().st_size
            time.sleep(0.5)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [(line["id"], line["register"], line["value"]) for line in lines if line["arm"] == arm]

    def close(self) -> None:
        self.control.close()
        self._process.terminate()
        assert self._process.wait(10) is not None


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    twin = Twin(tmp_path_factory.mktemp("twin"))
    yield twin
    twin.close()


@pytest.fixture
def twin(shared: Twin) -> Iterator[Twin]:
    yield shared
    shared.control.ask(do="clear")


@pytest.fixture
def follower(twin: Twin) -> Iterator[LeRobotHardware]:
    hardware = LeRobotConfig(args=twin.args()).hardware()
    hardware.connect()
    yield hardware
    twin.control.ask(do="clear")
    if any(twin.torque()):
        hardware.set_torque(False)
    hardware.close()


class TestLeRobotFollower(RobotConformance):
    deterministic = False

    @pytest.fixture
    def robot(self, follower: LeRobotHardware) -> Robot:
        return follower


def until(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < timeout_s, "it did not come true"
        time.sleep(0.01)


def test_names_units_and_limits_are_lerobots(follower: LeRobotHardware) -> None:
    spec, limits = follower.spec, follower.limits
    assert spec.action.names == spec.observations[STATE].names == NAMES
    assert spec.action.unit == ("deg",) * 5 + ("%",)
    np.testing.assert_allclose(limits.low, -limits.high * [1, 1, 1, 1, 1, 0])
    assert limits.high[5] == 100 and 90 < limits.high[0] < 120 and (limits.velocity == 180).all()
    assert spec.action.low == tuple(limits.low) and spec.details["lerobot"] == "0.6.1"
    bus = follower._buses[0].lerobot
    for end in (limits.low, limits.high):
        counts = bus._unnormalize(dict(zip(range(1, 7), end.tolist(), strict=True)))
        calibration = list(bus.calibration.values())
        edges = [c.range_min if end is limits.low else c.range_max for c in calibration]
        assert np.abs(np.array(list(counts.values())) - edges).max() <= 1


def test_connecting_leaves_torque_off_and_goals_alone(twin: Twin) -> None:
    before = len(twin.writes())
    hardware = LeRobotConfig(args=twin.args()).hardware()
    hardware.connect()
    hardware.close()
    written = twin.writes()[before:]
    assert all(value == 0 for _, register, value in written if register == "Torque_Enable")
    assert not any(register == "Goal_Position" for _, register, _ in written)
    assert any(register == "P_Coefficient" for _, register, _ in written), "LeRobot configured the motors"


def test_torque_comes_on_where_the_arm_stands_and_actions_arrive(twin: Twin, follower: LeRobotHardware) -> None:
    before = follower.measure()
    follower.set_torque(True)
    assert twin.torque() == [True] * 6
    assert twin.registers("Goal_Position") == twin.registers("Present_Position")
    action = before.astype(np.float32)
    action[0] += 6
    np.testing.assert_array_equal(follower.act(action), action)
    until(lambda: abs(follower.measure()[0] - action[0]) < 0.2)
    seen = follower.observe()
    np.testing.assert_allclose(seen.arrays[STATE], follower.measure(), atol=0.1)
    assert 0 <= time.monotonic_ns() - seen.stamps_ns[STATE] < 1_000_000_000
    follower.set_torque(False)
    assert twin.torque() == [False] * 6


def test_what_a_motor_says_of_itself(twin: Twin, follower: LeRobotHardware) -> None:
    twin.control.ask(do="fault", kind="dead", arm="follower", motor=3)
    twin.control.ask(do="fault", kind="overload", arm="follower", motor=2)
    health = follower.health()
    assert set(health) == set(JOINTS) - {"elbow_flex"}
    assert "Overload" in health["shoulder_lift"].error and health["gripper"].error == ""
    gripper = health["gripper"]
    assert gripper.voltage_v is not None and 11 < gripper.voltage_v < 13
    assert gripper.temperature_c == 30 and gripper.torque_on is False
    guardian = follower.guardian()
    assert guardian is not None and guardian["protocol"] == "feetech" and guardian["ids"] == [1, 2, 3, 4, 5, 6]


def test_one_overloaded_motor_does_not_keep_the_others_torque_on(twin: Twin, follower: LeRobotHardware) -> None:
    follower.set_torque(True)
    twin.control.ask(do="fault", kind="overload", arm="follower", motor=2)
    with pytest.raises(RuntimeError, match="Overload"):
        follower._buses[0].lerobot.disable_torque()
    assert twin.torque()[2:] == [True] * 4, "LeRobot's own way, unmended"
    follower.set_torque(False)
    assert twin.torque() == [False] * 6


def test_a_silent_motor_is_named_and_the_others_are_switched_off(twin: Twin, follower: LeRobotHardware) -> None:
    follower.set_torque(True)
    twin.control.ask(do="fault", kind="dead", arm="follower", motor=1)
    with pytest.raises(RobotError, match="could not be switched off on shoulder_pan: .*no status packet"):
        follower.set_torque(False)
    assert twin.torque() == [True] + [False] * 5


def test_a_late_answer_does_not_make_every_later_one_stale(twin: Twin, follower: LeRobotHardware) -> None:
    follower.set_torque(True)
    start = follower.measure().astype(np.float32)
    twin.control.ask(do="fault", kind="stuck", arm="follower")
    follower.measure()
    assert follower.counters()["bus.retries"] > 0, "the answer was late indeed"
    time.sleep(0.3)
    follower.act(start + np.array([9, 0, 0, 0, 0, 0], np.float32))
    time.sleep(0.6)
    for _ in range(3):
        assert abs(follower.measure()[0] - start[0] - 9) < 0.3, "where it is, not where it was"


def test_answers_that_get_lost_are_asked_for_again(twin: Twin, follower: LeRobotHardware) -> None:
    twin.control.ask(do="fault", kind="lost", arm="follower", motor=4, count=2)
    expected = follower.measure()
    np.testing.assert_allclose(follower.observe().arrays[STATE], expected, atol=0.1)
    twin.control.ask(do="fault", kind="dead", arm="follower", motor=4)
    with pytest.raises(RobotError, match=r"so101_follower \(observation\): Failed to sync read 'Present_Position'"):
        follower.observe()
    assert follower.counters()["bus.failures"] > 0 and follower.counters()["bus.retries"] > 0


def test_an_unplugged_port_is_an_error_and_comes_back(twin: Twin) -> None:
    hardware = LeRobotConfig(args=twin.args()).hardware()
    hardware.connect()
    twin.control.ask(do="fault", kind="unplug", arm="follower")
    with pytest.raises(RobotError, match="so101_follower"):
        hardware.observe()
    hardware.close()
    twin.control.ask(do="fault", kind="replug", arm="follower")
    hardware.connect()
    assert np.isfinite(hardware.measure()).all()
    hardware.close()


def test_calibration_is_checked_before_anything_is_written(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    before = twin.writes()
    with pytest.raises(RobotError, match=r"has no calibration: there is no .*follower.json; .*lerobot-calibrate"):
        LeRobotConfig(args=twin.args(calibration_dir=str(tmp_path))).hardware().connect()
    calibration = json.loads((twin.folder / "calibration" / "follower.json").read_text())
    calibration["elbow_flex"]["range_max"] -= 7
    (tmp_path / "follower.json").write_text(json.dumps(calibration))
    hardware = LeRobotConfig(args=twin.args(calibration_dir=str(tmp_path))).hardware()
    with pytest.raises(RobotError, match=r"not the calibration .*: elbow_flex range_max (\d+), in the file \d+. Is it"):
        hardware.connect()
    assert twin.writes() == before
    again = LeRobotConfig(args=twin.args()).hardware()
    again.connect()
    again.close()


def test_motors_that_are_missing_are_named(twin: Twin) -> None:
    twin.control.ask(do="fault", kind="dead", arm="follower", motor=5)
    with pytest.raises(RobotError, match=r"Missing motor IDs: - 5"):
        LeRobotConfig(args=twin.args()).hardware().connect()
    with pytest.raises(RobotError, match="Could not connect on port '/dev/nothing'"):
        LeRobotConfig(args=twin.args(port="/dev/nothing")).hardware().connect()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"robot": "so999"}, "LeRobot has no robot type 'so999'; it has .*koch_follower.*so101_follower"),
        ({"args": {"port": "/dev/null", "prot": 1}}, "LeRobot's so101_follower does not take these args: .*prot"),
        ({"args": {}}, "LeRobot's so101_follower does not take these args: .*port"),
        ({"args": {"port": "x", "cameras": {"top": {"type": "nope"}}}}, "no camera type 'nope'; it has .*opencv"),
        ({"robot": "lekiwi", "args": {"port": "x"}}, r"lekiwi takes x.vel, y.vel, theta.vel; only positions"),
        (
            {"args": {"port": "x"}, "limits": {"wirst": JointLimits()}},
            "robot.limits: no joint wirst; there are shoulder",
        ),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RobotError, match=words):
        LeRobotConfig(**changes).hardware()


def test_limits_can_be_narrower_than_the_calibration(twin: Twin) -> None:
    limits = {"wrist_roll": JointLimits(low=-30, velocity=45), "gripper.pos": JointLimits(high=60)}
    hardware = LeRobotConfig(args=twin.args(), limits=limits, velocity=90).hardware()
    assert hardware.limits.low[4] == -30 and hardware.limits.high[5] == 60
    assert hardware.limits.velocity.tolist() == [90, 90, 90, 90, 45, 90]
    with pytest.raises(RobotError, match=r"wrist_roll.pos: found 30 to -30 at 180 per s"):
        config = LeRobotConfig(args=twin.args(), limits={"wrist_roll": JointLimits(30, -30)})
        assert config.hardware().limits


def test_koch(twin: Twin) -> None:
    hardware = LeRobotConfig(robot="koch_follower", args=twin.args("koch")).hardware()
    hardware.connect()
    try:
        assert hardware.spec.action.names == NAMES and twin.torque("koch") == [False] * 6
        hardware.set_torque(True)
        goal = hardware.measure().astype(np.float32)
        goal[1] += 5
        hardware.act(goal)
        until(lambda: abs(hardware.measure()[1] - goal[1]) < 0.3)
        assert set(hardware.health()) == set(JOINTS)
        guardian = hardware.guardian()
        assert guardian is not None and guardian["protocol"] == "dynamixel"
    finally:
        hardware.set_torque(False)
        hardware.close()
    assert twin.torque("koch") == [False] * 6


def test_two_arms_in_one_robot(twin: Twin) -> None:
    sides = {f"{side}_arm_config": {"port": twin.args(f"blue_{side}")["port"]} for side in ("left", "right")}
    args = {"id": "blue", "calibration_dir": str(twin.folder / "calibration"), **sides}
    hardware = LeRobotConfig(robot="bi_so_follower", args=args).hardware()
    hardware.connect()
    try:
        assert hardware.spec.action.names == tuple(f"{side}_{name}" for side in ("left", "right") for name in NAMES)
        hardware.set_torque(True)
        goal = hardware.measure().astype(np.float32)
        goal[6] += 5
        hardware.act(goal)
        until(lambda: abs(hardware.measure()[6] - goal[6]) < 0.3)
        assert set(hardware.health()) == {f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS}
        assert hardware.guardian() is None, "one process can watch one port"
        twin.control.ask(do="fault", kind="dead", arm="blue_left", motor=1)
        with pytest.raises(RobotError, match="left_shoulder_pan"):
            hardware.set_torque(False)
        assert twin.torque("blue_right") == [False] * 6
    finally:
        twin.control.ask(do="clear")
        hardware.set_torque(False)
        hardware.close()


def test_behind_the_governor(twin: Twin) -> None:
    config = LeRobotConfig(args=twin.args(), governor=GovernorConfig(start_pose={"shoulder_pan": 4.0}))
    robot = config.make()
    assert isinstance(robot, Governor)
    robot.connect()
    try:
        assert twin.torque() == [False] * 6
        robot.reset(0, 0)
        assert twin.torque() == [True] * 6
        state = robot.observe().arrays[STATE]
        assert abs(state[0] - 4) < 5.1
        far = state + np.array([60, 0, 0, 0, 0, 0], np.float32)
        assert abs(robot.act(far)[0] - state[0]) < 30, "no faster than the velocity limit"
    finally:
        robot.close()
    assert twin.torque() == [False] * 6


@pytest.fixture
def published() -> Iterator[int]:
    """A port on which a camera is published as LeRobot's image server does it, 30 frames per s."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    picture = cv2.imencode(".jpg", draw(7, 160, 120))[1].tobytes()  # taken as BGR both there and back: RGB stays RGB
    message = json.dumps({"timestamps": {}, "images": {"head": base64.b64encode(picture).decode()}})
    over = threading.Event()

    def publish() -> None:
        while not over.wait(1 / 30):
            socket.send_string(message)

    thread = threading.Thread(target=publish)
    thread.start()
    yield port
    over.set()
    thread.join()
    context.destroy(linger=0)


def zmq_camera(port: int, **changes: Any) -> dict[str, Any]:
    size = {"server_address": "127.0.0.1", "port": port, "width": 160, "height": 120, "fps": 30}
    return {**size, "camera_name": "head", "timeout_ms": 500, **changes}


def test_a_camera_of_lerobots(published: int) -> None:
    config = LeRobotCameraConfig(camera="zmq", args=zmq_camera(published), name="head")
    with config.make() as robot:
        seen = robot.observe()
        picture = seen.arrays[f"{IMAGES}head"]
        robot.spec.observations[f"{IMAGES}head"].check("head", picture)
        assert corners_of(picture) == CORNERS
        assert 0 < time.monotonic_ns() - seen.stamps_ns[f"{IMAGES}head"] < 1_000_000_000
        assert robot.act(np.zeros(0, np.float32)).shape == (0,)
    robot.close()


def test_a_camera_of_lerobots_that_is_not_as_configured(published: int) -> None:
    absent = {"index_or_path": 97, "width": 160, "height": 120}
    for kind, args, words in [
        ("zmq", zmq_camera(published, width=640), "camera head: gives 160x120, configured is 640x120"),
        ("zmq", zmq_camera(published, width=None), "camera head: args: width and height are needed"),
        ("zmq", zmq_camera(published, color_mode="bgr"), "color_mode: found bgr; images are rgb here"),
        ("opencv", absent, r"camera head: Failed to open OpenCVCamera\(97\)"),
    ]:
        with pytest.raises(RobotError, match=words):
            LeRobotCameraConfig(camera=kind, args=args, name="head").make().connect()


def test_a_robot_with_a_camera(twin: Twin, published: int) -> None:
    cameras = {"head": {"type": "zmq", **zmq_camera(published)}}
    with LeRobotConfig(args=twin.args(cameras=cameras)).hardware() as hardware:
        seen = hardware.observe()
        assert set(seen.arrays) == set(hardware.spec.observations) == {STATE, f"{IMAGES}head"}
        assert corners_of(seen.arrays[f"{IMAGES}head"]) == CORNERS
        assert seen.stamps_ns[f"{IMAGES}head"] < seen.stamps_ns[STATE]
    cameras = {"head": {"type": "zmq", **zmq_camera(published, height=121)}}
    with pytest.raises((RobotError, ValueError), match="head"):
        LeRobotConfig(args=twin.args(cameras=cameras)).hardware().connect()
    assert twin.torque() == [False] * 6
