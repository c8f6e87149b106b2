"""Serial arms on emulated servo buses: what they give and take, what they write, and what they refuse before torque."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serial
from conftest import Serve
from faulty_arm import KINDS, scale_of
from mjpeg_server import MjpegServer
from twins import RunningTwin, running_twin

from tactus.hal.arm import ArmConfig, KochConfig, So100Config
from tactus.hal.arm.joints import SO100, Joint
from tactus.hal.arm.robot import Arm
from tactus.hal.camera import CameraConfig
from tactus.hal.config import ConfigError, encode
from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.rig import RigConfig
from tactus.hal.robot import Robot, RobotConfig, RobotError
from tactus.hal.servo.registers import DYNAMIXEL, FEETECH
from tactus.hal.spec import STATE, Feature, SpecError
from tactus.policies.scripted.replay import ReplayPolicy
from tactus.testing import RobotConformance

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

ROOT = Path(__file__).parents[1]
NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
BOTH = pytest.mark.parametrize("arm", ["so", "koch"])


@pytest.fixture(scope="module")
def module_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    arms = ["--arms.so.kind=so101", "--arms.koch.kind=koch", "--arms.other.kind=so101"]
    with running_twin(tmp_path_factory.mktemp("twin"), "--world=kinematic", *arms) as twin:
        yield twin


@pytest.fixture
def twin(module_twin: RunningTwin, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningTwin]:
    """Without faults; torque is off before and after."""
    monkeypatch.setenv("XDG_STATE_HOME", str(module_twin.folder / "state"))
    yield module_twin
    module_twin.ask(do="clear")
    for name, state in module_twin.ask(do="state")["arms"].items():
        if not state["plugged"]:
            module_twin.ask(do="fault", kind="replug", arm=name)
        if any(state["torque_on"].values()):
            module_twin.ask(do="fault", kind="brown_out", arm=name, duration_s=0.0)


def config(twin: RunningTwin, arm: str, **changes: Any) -> ArmConfig:
    """Of an arm of the twin; governor may be given as a dict."""
    about = twin.about["arms"][arm]
    changes["governor"] = GovernorConfig(**changes.pop("governor", {}))
    return KINDS[about["kind"]](**{"port": about["port"], "calibration": about["calibration"]} | changes)


@pytest.fixture
def make(twin: RunningTwin) -> Iterator[Callable[..., Robot]]:
    """Makes arms behind their Governor, connected, and closes them afterwards."""
    made: list[Robot] = []

    def connected(arm: str, **changes: Any) -> Robot:
        made.append(config(twin, arm, **changes).make())
        made[-1].connect()
        return made[-1]

    yield connected
    twin.ask(do="clear")
    for robot in made:
        robot.close()


class Log:
    """What is written to the servos from now on, but for other arms."""

    def __init__(self, twin: RunningTwin, arm: str) -> None:
        self._twin, self._arm, self._from = twin, arm, len(settled(twin))

    def writes(self) -> list[dict[str, Any]]:
        return [write for write in settled(self._twin)[self._from :] if write["arm"] == self._arm]

    def assert_no_torque(self) -> None:
        for write in self.writes():
            assert write["register"] != "Goal_Position", write
            assert write["register"] != "Torque_Enable" or write["value"] == 0, write
        assert not any(self._twin.arm(self._arm)["torque_on"].values())


def settled(twin: RunningTwin) -> list[dict[str, Any]]:
    time.sleep(0.1)  # the log is on disk within 50 ms
    return twin.writes()


def registers(twin: RunningTwin, arm: str, name: str) -> list[int]:
    found = twin.arm(arm)["registers"]
    return [found[joint][name] for joint in NAMES]


# the contract of every Robot


class TestArm(RobotConformance):
    """Alone: what the Governor, calibration and diagnosis have below them."""

    deterministic = False

    @pytest.fixture(params=["so", "koch"])
    def robot(self, request: pytest.FixtureRequest, twin: RunningTwin) -> Iterator[Robot]:
        with config(twin, request.param).hardware() as robot:
            yield robot


class TestGovernedArm(RobotConformance):
    deterministic = False

    @pytest.fixture(params=["so", "koch"])
    def robot(self, request: pytest.FixtureRequest, make: Callable[..., Robot]) -> Robot:
        return make(request.param)

    def test_act_returns_what_was_sent(self, robot: Robot) -> None:
        robot.reset(0, seed=7)
        near = robot.observe().arrays[STATE] + np.array([1, 1, -1, -1, 1, 1], np.float32)
        time.sleep(1 / robot.spec.fps)
        np.testing.assert_array_equal(robot.act(near), near)
        far = np.array(robot.spec.action.high, np.float32)
        sent = robot.act(far)
        assert (sent < far).all() and (sent >= near).all(), "on the way there"


@pytest.mark.parametrize("arm, name", [("so", "so100"), ("koch", "koch")])
def test_the_spec_has_lerobots_names_units_and_bounds(twin: RunningTwin, arm: str, name: str) -> None:
    spec = config(twin, arm).make().spec
    assert spec.name == name and spec.fps == 30
    assert spec.action.names == spec.observations[STATE].names == tuple(f"{joint}.pos" for joint in NAMES)
    assert spec.action.unit == ("deg",) * 5 + ("%",) and spec.action.mode == ("absolute",) * 6
    assert spec.action.low[5] == 0 and spec.action.high[5] == 100
    for joint, low, high in zip(NAMES[:5], spec.action.low, spec.action.high, strict=False):
        entry = json.loads(Path(twin.about["arms"][arm]["calibration"]).read_text())[joint]
        assert high == -low == pytest.approx((entry["range_max"] - entry["range_min"]) / 2 * 360 / 4095)


def test_a_unit_of_ones_own(twin: RunningTwin, make: Callable[..., Robot]) -> None:
    joints = {name: replace(joint, unit="range_m100_100") for name, joint in SO100.items()}
    robot = make("so", joints=joints)
    assert robot.spec.action.unit == ("%",) * 6
    assert robot.spec.action.low == (-100.0,) * 6 and robot.spec.action.high == (100.0,) * 6
    entries = json.loads(Path(twin.about["arms"]["so"]["calibration"]).read_text()).values()
    share = [
        (raw - entry["range_min"]) / (entry["range_max"] - entry["range_min"])
        for raw, entry in zip(registers(twin, "so", "Present_Position"), entries, strict=True)
    ]
    np.testing.assert_allclose(robot.observe().arrays[STATE], np.clip(share, 0, 1) * np.array(200) - 100, rtol=1e-6)


def test_bounds_of_ones_own_are_kept(twin: RunningTwin, make: Callable[..., Robot]) -> None:
    joints = {**SO100, "wrist_roll": replace(SO100["wrist_roll"], low=-30.0, high=20.0)}
    robot = make("so", joints=joints, governor={"gate": None})
    assert robot.spec.action.low[4] == -30 and robot.spec.action.high[4] == 20
    robot.reset(0, 0)
    target = robot.observe().arrays[STATE]
    target[4] = 90
    for _ in range(8):
        time.sleep(1 / 30)
        sent = robot.act(target)
    assert sent[4] == 20
    counts = scale_of(Path(twin.about["arms"]["so"]["calibration"]), "so101").to_raw(sent)
    assert registers(twin, "so", "Goal_Position")[4] == counts[4]


# positions


@BOTH
@pytest.mark.slow
def test_positions_are_lerobots_own(twin: RunningTwin, make: Callable[..., Robot], arm: str) -> None:
    from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    about = twin.about["arms"][arm]
    where = {"port": about["port"], "id": arm, "calibration_dir": twin.folder / "calibration", "use_degrees": True}
    robot = make(arm)
    robot.reset(0, 0)
    start = robot.observe().arrays[STATE]
    wanted = np.array([20, -60, 50, 30, -15, 40], np.float32)
    for step in range(1, 41):
        robot.act((start + (wanted - start) * min(1, step / 30)).astype(np.float32))
        time.sleep(1 / 30)
    robot.close()
    robot.connect()
    ours = robot.observe().arrays[STATE]
    assert isinstance(robot, Governor) and isinstance(robot.hardware, Arm)
    raw = robot.hardware.bus.read("Present_Position").values
    robot.close()
    np.testing.assert_allclose(ours, wanted, atol=0.3)

    theirs = SO101Follower(SO101FollowerConfig(**where)) if arm == "so" else KochFollower(KochFollowerConfig(**where))
    theirs.connect(calibrate=False)
    try:
        assert theirs.is_calibrated
        assert theirs.bus.sync_read("Present_Position", normalize=False, num_retry=5) == raw
        seen = theirs.get_observation()
    finally:
        theirs.disconnect()
    assert list(seen) == list(robot.spec.action.names)
    assert np.array([*seen.values()], np.float32).tolist() == ours.tolist()


# what is written, and when


@BOTH
def test_settings_are_written_once(twin: RunningTwin, arm: str) -> None:
    robot = config(twin, arm).make()
    robot.connect()
    robot.close()
    wanted = {(j.id, register): v for j in config(twin, arm).joints.values() for register, v in j.registers.items()}
    found = twin.arm(arm)["registers"].values()
    held = {(values["ID"], register): value for values in found for register, value in values.items()}
    assert {key: held[key] for key in wanted} == wanted
    log = Log(twin, arm)
    robot.connect()
    robot.reset(0, 0)
    robot.close()
    written = log.writes()
    assert {write["register"] for write in written} <= {"Torque_Enable", "Lock", "Goal_Position", "Bus_Watchdog"}
    table = FEETECH if arm == "so" else DYNAMIXEL
    first_volatile = table["Torque_Enable"].address
    assert written and all(write["address"] >= first_volatile for write in written), "permanent memory wears out"


def test_one_setting_that_differs_is_written_alone(twin: RunningTwin, make: Callable[..., Robot]) -> None:
    make("so").close()
    log = Log(twin, "so")
    joints = {**SO100, "elbow_flex": replace(SO100["elbow_flex"], registers={"P_Coefficient": 20})}
    make("so", joints=joints)
    settings = [w for w in log.writes() if w["register"] not in ("Torque_Enable", "Lock")]
    assert [(w["id"], w["register"], w["value"], w["accepted"]) for w in settings] == [(3, "P_Coefficient", 20, True)]


@BOTH
def test_torque_comes_on_where_the_arm_stands(twin: RunningTwin, make: Callable[..., Robot], arm: str) -> None:
    robot = make(arm)
    present = registers(twin, arm, "Present_Position")
    log = Log(twin, arm)
    robot.reset(0, 0)
    written = log.writes()
    for motor_id, position in enumerate(present, 1):
        own = [(w["register"], w["value"]) for w in written if w["id"] == motor_id]
        first_on = own.index(("Torque_Enable", 1))
        goals = [value for register, value in own[:first_on] if register == "Goal_Position"]
        assert len(goals) == 1 and abs(goals[0] - position) <= 1, own
    assert all(twin.arm(arm)["torque_on"].values())
    assert registers(twin, arm, "Present_Position") == pytest.approx(present, abs=1)


@BOTH
def test_a_dry_run_writes_nothing_at_all(twin: RunningTwin, make: Callable[..., Robot], arm: str) -> None:
    make(arm).close()
    joints = {**config(twin, arm).joints}
    joints["elbow_flex"] = replace(joints["elbow_flex"], registers={"Return_Delay_Time": 7})
    log = Log(twin, arm)
    robot = make(arm, joints=joints, governor={"dry_run": True, "start_pose": {"shoulder_lift": -60}})
    robot.reset(0, 0)
    for _ in range(3):
        robot.act(robot.observe().arrays[STATE] + np.float32(2))
        time.sleep(1 / 30)
    robot.stop("the test")
    robot.close()
    assert log.writes() == []
    events = robot.events()
    assert "dry run: would set Return_Delay_Time: elbow_flex 0, wanted 7" in events
    assert [line for line in events if line.startswith("dry run: would send shoulder_pan.pos=")]


def test_closing_leaves_the_port_to_others(twin: RunningTwin, make: Callable[..., Robot]) -> None:
    robot = make("so")
    with pytest.raises(RobotError, match=r"so is in use by another program: end it"):
        config(twin, "so").make().connect()
    robot.close()
    make("so")


def test_a_late_answer_to_whoever_had_the_port_before_is_no_second_motor(twin: RunningTwin) -> None:
    letting_go = bytes([0xFF, 0xFF, 1, 4, 3, 40, 0, ~(1 + 4 + 3 + 40) & 0xFF])  # torque off, as Feetech has it
    twin.ask(do="fault", kind="late", arm="so", motor=1, count=1, delay_ms=8)
    with serial.Serial(twin.port("so"), 1_000_000) as before:
        before.write(letting_go)
    with config(twin, "so").make() as robot:
        robot.observe()


def test_a_motor_that_falls_silent_is_told_of_and_so_is_its_return(twin, make: Callable[..., Robot]) -> None:
    robot = make("so")
    before = robot.observe()
    twin.ask(do="fault", kind="dead", arm="so", motor="wrist_flex", duration_s=0.25)
    while not (events := robot.events()):
        seen = robot.observe()
    assert events == ["wrist_flex does not answer: no status packet (read of Present_Position)"]
    assert seen.arrays[STATE].tolist() == before.arrays[STATE].tolist(), "its last position, not an invented one"
    assert seen.stamps_ns[STATE] < time.monotonic_ns() - 10_000_000, "with that one's stamp"
    while not (events := robot.events()):
        seen = robot.observe()
    assert len(events) == 1 and events[0].startswith("wrist_flex answers again after 0.")
    assert time.monotonic_ns() - seen.stamps_ns[STATE] < 50_000_000
    assert robot.counters()["bus.timeouts"] >= 1


def test_a_rare_look_is_no_silence(twin: RunningTwin, make: Callable[..., Robot]) -> None:
    robot = make("so", fault_after_s=0.3)
    robot.observe()
    time.sleep(0.5)
    twin.ask(do="fault", kind="dead", arm="so", motor="wrist_flex", duration_s=0.1)
    robot.observe()
    time.sleep(0.2)
    robot.observe()


# what is refused, with torque still off


def files(twin: RunningTwin, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> str:
    """A changed copy of the arm's calibration."""
    data = json.loads(Path(twin.about["arms"]["so"]["calibration"]).read_text())
    change(data)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(data))
    return str(file)


def table(**changes: Mapping[str, Any]) -> dict[str, Joint]:
    return {name: replace(joint, **changes.get(name, {})) for name, joint in SO100.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": 300}, "id: found 300; must be at most 252"),
        ({"velocity": 0.0}, "velocity: found 0; must be positive"),
        ({"velocity": np.nan}, "velocity: found nan; expected a finite number"),
    ],
)
def test_a_joint_that_cannot_be_is_refused_when_it_is_written(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        table(elbow_flex=changes)
    arms = {name: encode(joint) for name, joint in SO100.items()}
    with pytest.raises(ConfigError, match=rf"joints\.elbow_flex\.{words}"):
        So100Config(joints=arms | {"elbow_flex": arms["elbow_flex"] | changes})


BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "no port": ({"port": None}, r"robot.port: not given; the serial port of the so100.*(Found: |No serial port was)"),
    "no such port": ({"port": "/dev/ttyNONE"}, r"no serial port /dev/ttyNONE; found: "),
    "no calibration": ({"calibration": None}, r"robot.calibration: not given.*robot.id.*`tactus calibrate` makes one"),
    "absent": ({"calibration": "/nowhere.json"}, r"no calibration at /nowhere.json: run `tactus calibrate`"),
    "wrong baud": ({"baudrate": 500_000}, r"at 500000 baud, but some do at 1000000: set the baud rate to 1000000"),
    "no baud": ({"baudrate": 123_456}, r"baud rate 123456 is none of the servos'; accepted: 19200, "),
    "no joints": ({"joints": {}}, r"robot.joints: empty; a joint table, .* or a preset: so100, koch"),
    "same ids": ({"joints": table(gripper={"id": 1})}, r"shoulder_pan and gripper are both configured with id 1"),
    "other bus": ({"bus": "dynamixel"}, r"motor shoulder_pan is a 'sts3215', which is no dynamixel model; accepted: "),
    "other model": (
        {"joints": table(elbow_flex={"model": "sts3250"})},
        r"motor elbow_flex \(id 3\) on .* is a sts3215, expected sts3250: correct the model in the config",
    ),
    "low outside": (
        {"joints": table(elbow_flex={"low": -170.0})},
        r"robot.joints.elbow_flex.low: found -170; calibrated for -96",
    ),
    "low above high": (
        {"joints": table(elbow_flex={"low": 50.0, "high": 20.0})},
        r"robot.joints.elbow_flex: low 50 is not below high 20",
    ),
    "no register": (
        {"joints": table(gripper={"registers": {"P_Gain": 3}})},
        r"robot.joints.gripper.registers.P_Gain: no register of a sts3215; accepted: Return_Delay_Time, ",
    ),
    "torque as a setting": (
        {"joints": table(gripper={"registers": {"Torque_Enable": 1}})},
        r"robot.joints.gripper.registers.Torque_Enable: not a setting",
    ),
    "register overflow": (
        {"joints": table(gripper={"registers": {"P_Coefficient": 256}})},
        r"robot.joints.gripper.registers.P_Coefficient: found 256; it holds 0 to 255",
    ),
    "start pose of another arm": (
        {"governor": {"start_pose": {"shoulder": 0}}},
        r"governor.start_pose: there is no joint 'shoulder'; known: shoulder_pan, ",
    ),
    "start pose out of range": (
        {"governor": {"start_pose": {"elbow_flex": 130}}},
        r"governor.start_pose: elbow_flex.pos at 130 is outside its range -96",
    ),
    "park pose out of range": (
        {"governor": {"on_stop": "park", "park_pose": {"gripper": -5}}},
        r"governor.park_pose: gripper.pos at -5 is outside its range 0 to 100",
    ),
}


@pytest.mark.parametrize("change, words", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_bad_config_is_refused_with_torque_off(twin: RunningTwin, change: dict[str, Any], words: str) -> None:
    log = Log(twin, "so")
    with pytest.raises((RobotError, SpecError), match=words):
        config(twin, "so", **change).make().connect()
    log.assert_no_torque()


def test_no_port_lists_the_ports_there_are(twin: RunningTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, words in (
        (["/dev/ttyACM3 (USB Single Serial)"], r"Found: /dev/ttyACM3 \(USB Single Serial\)"),
        ([], r"No serial port was found: is the USB cable in\?"),
    ):
        monkeypatch.setattr("tactus.hal.servo.port.list_ports", lambda found=found: found)
        with pytest.raises(RobotError, match=words):
            config(twin, "so", port=None).make()


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"on_stop": "park"}, "on_stop: park needs a park_pose"),
        ({"health_s": 0}, "health_s: found 0; must be positive"),
        ({"max_action_age_s": np.nan}, "max_action_age_s: found nan; expected a finite number"),
        ({"ramp_velocity": 2}, "ramp_velocity: found 2; must be at most 1"),
        ({"start_pose": {"elbow_flex": np.nan}}, "start_pose.elbow_flex: found nan; expected a finite number"),
    ],
)
def test_a_governor_that_cannot_be(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GovernorConfig(**bad)


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"bus_watchdog_s": 0.5}, r"bus_watchdog_s: found 0.5; accepted: 0, or 0.8 \(governor.health_s and 0.3"),
        ({"bus_watchdog_s": 3}, "bus_watchdog_s: found 3; accepted: 0, or 0.8 .* to 2.54"),
        ({"bus_watchdog_s": np.nan}, "bus_watchdog_s: found nan"),
        ({"governor": GovernorConfig(health_s=1.0)}, "bus_watchdog_s: found 1; accepted: 0, or 1.3"),
        ({"fps": 0}, "fps: found 0; must be positive"),
        ({"fault_after_s": -1}, "fault_after_s: found -1; must be positive"),
        ({"reconnect_s": np.nan}, "reconnect_s: found nan; expected a finite number"),
    ],
)
def test_times_that_cannot_be(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KochConfig(**bad)


@pytest.mark.parametrize(
    "fault, words",
    [
        ({"kind": "dead", "motor": 4}, r"motor wrist_flex \(id 4, .*\) on .* does not answer at 1000000 baud; check "
         r"the cable from elbow_flex to it, and its id"),
        ({"kind": "dead"}, r"no motor answers on .* at any baud rate: is the motors' power on"),
        ({"kind": "wrong_model", "motor": 2}, r"motor shoulder_lift \(id 2\) on .*, expected .*: correct the model in"),
        ({"kind": "duplicate_id", "motor": 5}, r"motor wrist_roll \(id 5, .*\) on .*two motors have the same id.*"
         r"Connect the motors one by one"),
        ({"kind": "over_temperature", "motor": 2}, r"shoulder_lift .*torque stays off"),
        ({"kind": "under_voltage", "motor": 3}, r"elbow_flex .*voltage.*torque stays off"),
    ],
    ids=["missing id", "no power", "wrong model", "duplicate id", "hot", "low voltage"],
)  # fmt: skip
@BOTH
def test_motors_that_are_not_as_they_should_be(twin: RunningTwin, arm: str, fault: dict[str, Any], words: str) -> None:
    log = Log(twin, arm)
    twin.ask(do="fault", arm=arm, **fault)
    time.sleep(0.05)
    with pytest.raises(RobotError, match=words):
        config(twin, arm).make().connect()
    log.assert_no_torque()


def empty(data: dict[str, Any]) -> None:
    data["wrist_flex"]["range_max"] = data["wrist_flex"]["range_min"]


def homed_elsewhere(data: dict[str, Any]) -> None:
    data["wrist_flex"]["homing_offset"] += 100


@pytest.mark.parametrize(
    "change, words",
    [
        (empty, r"wrist_flex has an empty range, .*: move it while calibrating; run `tactus calibrate`"),
        (homed_elsewhere, r"is not the calibration that the servos hold: wrist_flex: Homing_Offset is .*--from="),
        (
            lambda d: d.pop("gripper"),
            r"is for another arm: found joints .*; expected .*gripper; it is left as it is",
        ),
        (lambda d: d["gripper"].update(id=9), r"is for another arm: gripper has id 9, configured is 6"),
        (lambda d: d["gripper"].update(range_max=70_000), r"gripper: Max_Position_Limit 70000 does not fit 0 to 65535"),
        (lambda d: d["gripper"].update(range_max=3e3), r"gripper has .*expected integers"),
        (lambda d: d["gripper"].pop("homing_offset"), r"gripper has .*expected integers id, drive_mode, homing_offset"),
    ],
)
def test_a_calibration_of_another_arm_is_refused(twin: RunningTwin, tmp_path: Path, change, words: str) -> None:
    log = Log(twin, "so")
    with pytest.raises(RobotError, match=words):
        config(twin, "so", calibration=files(twin, tmp_path, change)).make().connect()
    log.assert_no_torque()


def test_the_other_arms_calibration_is_refused(twin: RunningTwin) -> None:
    log = Log(twin, "so")
    with pytest.raises(RobotError, match=r"other.json is not the calibration that the servos hold: shoulder_pan: H"):
        config(twin, "so", calibration=twin.about["arms"]["other"]["calibration"]).make().connect()
    log.assert_no_torque()


def test_a_calibration_by_id_is_looked_for_where_lerobot_keeps_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_CALIBRATION", str(tmp_path))
    for kind, folder in ((So100Config, "so_follower"), (KochConfig, "koch_follower")):
        with pytest.raises(RobotError, match=rf"no calibration at {tmp_path}/robots/{folder}/mine.json: run `tactus"):
            kind(port="/dev/ttyNONE", id="mine").make()


def test_a_camera_of_another_size_leaves_the_arm_without_torque(twin: RunningTwin) -> None:
    log = Log(twin, "so")
    with MjpegServer(width=160, height=120) as server:
        camera = CameraConfig(source=server.url(0), name="top", width=320, height=240)
        parts: dict[str, RobotConfig] = {"arm": config(twin, "so"), "top": camera}
        with pytest.raises(RobotError, match=r"camera top: .* gives 160x120, configured is 320x240; set width: 160"):
            RigConfig(parts=parts).make().connect()
    log.assert_no_torque()
    with config(twin, "so").make():  # and its port to others
        log.assert_no_torque()


# the same through the command, with a policy node over ZeroMQ


@pytest.fixture
def run(twin: RunningTwin, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`tactus run` with the twin's arm, against a node at this endpoint."""

    def command(endpoint: str, *keys: str) -> subprocess.CompletedProcess[str]:
        about = twin.about["arms"]["so"]
        arm = ["--robot.type=so100", f"--robot.port={about['port']}", f"--robot.calibration={about['calibration']}"]
        here = [f"--connect={endpoint}", f"--output_dir={tmp_path}/run", "--episodes=1", "--max_ticks=10"]
        return subprocess.run(
            [sys.executable, "-m", "tactus", "run", *arm, *here, *keys],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return command


def still(action: Feature, position: list[float]) -> ReplayPolicy:
    """Has the arm stay where it is."""
    return ReplayPolicy(np.array([position], action.dtype), action, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys, status, words",
    [
        (["--robot.port=null"], 1, "tactus run: robot.port: not given; the serial port of the so100"),
        (
            ["--robot.calibration=/nowhere.json"],
            1,
            "tactus run: no calibration at /nowhere.json: run `tactus",
        ),
        (["--robot.governor.start_pose={elbow: 3}"], 2, "tactus run: governor.start_pose: there is no joint 'elbow'"),
        (["--robot.governor.start_pose={elbow_flex: 130}"], 1, "governor.start_pose: elbow_flex.pos at 130 is outside"),
        (["--robot.baudrate=500000"], 1, "but some do at 1000000: set the baud rate to 1000000"),
        (["--robot.governor.on_stop=park"], 2, "on_stop: park needs a park_pose"),
    ],
)
def test_the_command_says_what_is_wrong(twin, run, serve: Serve, keys: list[str], status: int, words: str) -> None:
    node = serve(still(config(twin, "so").make().spec.action, [0.0] * 6))
    log = Log(twin, "so")
    done = run(node.endpoint, *keys)
    assert done.returncode == status and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    log.assert_no_torque()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda f: replace(f, names=(f.names[1], f.names[0], *f.names[2:])),
            "action: names: robot / policy differ at [0] shoulder_pan.pos / shoulder_lift.pos, [1] shoulder_lift.pos",
        ),
        (lambda f: replace(f, unit="rad"), "action: unit: robot deg"),
        (lambda f: replace(f, mode=("delta",) * 6), "action: mode: robot / policy differ at [0] absolute / delta"),
        (lambda f: Feature((7,), "float32"), "action: shape: robot 6, policy 7"),
    ],
    ids=["names", "units", "modes", "number"],
)
def test_a_policy_for_another_robot_is_refused(twin: RunningTwin, run, serve: Serve, change, words: str) -> None:
    action = change(config(twin, "so").make().spec.action)
    node = serve(still(action, [0.0] * action.shape[0]))
    log = Log(twin, "so")
    done = run(node.endpoint)
    assert done.returncode == 3 and words in done.stderr, done.stderr
    assert log.writes() == []


@pytest.mark.slow
def test_the_command_moves_the_arm_and_lets_go_of_it(twin: RunningTwin, run, serve: Serve, make) -> None:
    robot = make("so")
    at = robot.observe().arrays[STATE]
    robot.close()
    node = serve(still(robot.spec.action, (at + np.array([3, 3, -3, -3, 3, 3])).tolist()))
    log = Log(twin, "so")
    done = run(node.endpoint)
    assert done.returncode == 0, done.stderr
    assert len([w for w in log.writes() if w["register"] == "Goal_Position" and w["id"] == 1]) == 11
    assert not any(twin.arm("so")["torque_on"].values())
    with config(twin, "so").hardware() as arm:
        np.testing.assert_allclose(arm.observe().arrays[STATE] - at, [3, 3, -3, -3, 3, 3], atol=0.5)
