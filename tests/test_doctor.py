"""`tactus doctor`: what it makes of facts, and what it finds on emulated arms and streams."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mjpeg_server import MjpegServer
from person import ROOT
from twins import RunningTwin, running_twin

from tactus.hal.arm import KochConfig, So100Config
from tactus.hal.arm.joints import KOCH, SO100
from tactus.hal.diagnostics.arm import ArmFacts, measure_arm
from tactus.hal.diagnostics.camera import CameraFacts, diagnose_camera, diagnose_devices
from tactus.hal.diagnostics.diagnose_arm import diagnose_arm
from tactus.hal.diagnostics.finding import Finding
from tactus.hal.diagnostics.ports import PortFacts, diagnose_port, holders, inspect_port
from tactus.hal.diagnostics.rate import BUSY, RATES, diagnose_rate, propose_rate
from tactus.hal.diagnostics.scan import Group, diagnose_scan, discover
from tactus.hal.servo.calibration import JointCalibration
from tactus.hal.servo.registers import MODELS
from tactus.hal.spec import STATE
from tactus.runtime.commands.doctor import KINDS
from tactus.runtime.diagnosis.robot_facts import robot_facts

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

CALIBRATION = {name: JointCalibration(joint.id, 0, 10, 1000, 3000) for name, joint in SO100.items()}


def each(value: int) -> dict[str, int]:
    return dict.fromkeys(SO100, value)


REGISTERS = {
    "Homing_Offset": each(10),
    "Min_Position_Limit": each(1000),
    "Max_Position_Limit": each(3000),
    "Present_Position": each(2000),
    "Present_Temperature": each(30),
    "Torque_Enable": each(0),
    "Return_Delay_Time": each(0),
    "Min_Voltage_Limit": each(40),
    "Max_Voltage_Limit": each(140),
    "Present_Voltage": each(121),
    "Max_Temperature_Limit": each(70),
    "Status": each(0),
}
WELL = ArmFacts(
    "feetech",
    "/dev/ttyACM0",
    1_000_000,
    SO100,
    answering={joint.id: 777 for joint in SO100.values()},
    firmware=dict.fromkeys(SO100, "3.10"),
    registers=REGISTERS,
    calibration=CALIBRATION,
    calibration_path="mine.json",
    read_ms=(3.0,) * 200,
)


def with_register(register: str, **values: int) -> ArmFacts:
    return replace(WELL, registers={**REGISTERS, register: {**REGISTERS[register], **values}})


def graver(findings: list[Finding]) -> dict[str, Finding]:
    """Notes and faults by what they are about."""
    return {finding.about: finding for finding in findings if finding.level != "ok"}


# what is made of facts


def test_an_arm_that_is_well_is_well() -> None:
    findings = diagnose_arm("arm", WELL)
    assert {finding.level for finding in findings} == {"ok"}
    assert {finding.part for finding in findings} == {"arm"}
    assert {f.about for f in findings} >= {"motors", "firmware", "voltage", "temperature", "errors", "torque", "bus"}


SILENT = {joint.id: 777 for name, joint in SO100.items() if name not in ("elbow_flex", "wrist_flex")}
CASES: dict[str, tuple[ArmFacts, str, str, str, str]] = {
    "first silent motor": (
        replace(WELL, answering=SILENT),
        "motors",
        "fault",
        "elbow_flex (id 3) does not answer at 1000000 baud; silent too: wrist_flex",
        "check the cable from shoulder_lift to elbow_flex",
    ),
    "the very first": (
        replace(WELL, answering={i: 777 for i in range(2, 7)}),
        "motors",
        "fault",
        "shoulder_pan (id 1) does not answer",
        "from the adapter to shoulder_pan",
    ),
    "a motor has another id": (
        replace(WELL, answering={**SILENT, 4: 777, 9: 777}),
        "motors",
        "fault",
        "elbow_flex (id 3) does not answer at 1000000 baud; ids that belong to no joint: 9 (sts3215)",
        "its id",
    ),
    "one more": (replace(WELL, answering={**WELL.answering, 9: 2825}), "motors", "note", "9 (sts3250)", "another arm"),
    "another model": (
        replace(WELL, answering={**WELL.answering, 3: 2825}),
        "motors",
        "fault",
        "elbow_flex (id 3) is a sts3250",
        "correct the model",
    ),
    "other ids": (replace(WELL, answering={21: 777}), "motors", "fault", "other ids answer: 21", "another arm"),
    "another baud rate": (
        replace(WELL, answering={}, elsewhere=(Group("feetech", 115_200, {1: 777}),)),
        "motors",
        "fault",
        "found feetech at 115200 baud: ids 1 (sts3215)",
        "baudrate: 115200, or the motors' Baud_Rate set to 1000000",
    ),
    "another protocol": (
        replace(WELL, answering={}, elsewhere=(Group("dynamixel", 57_600, {1: 1060}),)),
        "motors",
        "fault",
        "found dynamixel at 57600 baud",
        "another type or bus: dynamixel, with baudrate: 57600",
    ),
    "no power": (replace(WELL, answering={}, registers={}), "motors", "fault", "no motor answers", "motors' power on"),
    "two with one id": (replace(WELL, trouble="two motors have the same id"), "motors", "fault", "the same id", ""),
    "mixed firmware": (
        replace(WELL, firmware={**WELL.firmware, "gripper": "3.9"}),
        "firmware",
        "note",
        "gripper 3.9",
        "update them",
    ),
    "7.4 V servos on 12 V": (
        with_register("Max_Voltage_Limit", **each(80)),
        "voltage",
        "fault",
        "12.1 V (all)",
        "unplug the power: this is a supply for stronger servos; these take 7.4 V",
    ),
    "12 V servos on less": (
        with_register("Present_Voltage", **each(50)),
        "voltage",
        "note",
        "5.0 V (all), and the servos are set for up to 14.0 V",
        "servos for 12 V are weak on less",
    ),
    "a weak supply": (
        with_register("Present_Voltage", gripper=35),
        "voltage",
        "fault",
        "gripper 3.5 V",
        "strong enough",
    ),
    "hot": (with_register("Present_Temperature", gripper=66), "temperature", "fault", "gripper 66 °C", "let it cool"),
    "warm": (with_register("Present_Temperature", gripper=56), "temperature", "note", "gripper 56 °C", "let it cool"),
    "error flags": (replace(WELL, errors={"gripper": "overload"}), "errors", "fault", "gripper: overload", "power off"),
    "torque": (with_register("Torque_Enable", gripper=1), "torque", "note", "on: gripper", "hold it by hand"),
    "no calibration": (
        replace(WELL, calibration=None, no_calibration="no calibration at mine.json"),
        "calibration",
        "fault",
        "no calibration at mine.json",
        "tactus calibrate --keys",
    ),
    "another calibration": (
        with_register("Homing_Offset", gripper=11),
        "calibration",
        "fault",
        "mine.json: gripper: Homing_Offset is 11, the calibration has 10",
        "tactus calibrate --from=mine.json --keys",
    ),
    "far outside": (
        with_register("Present_Position", gripper=3500),
        "positions",
        "fault",
        "gripper at 3500, range 1000 to 3000",
        "by hand",
    ),
    "a little outside": (
        with_register("Present_Position", gripper=3100),
        "positions",
        "note",
        "gripper at 3100",
        "start",
    ),
    "return delay": (
        with_register("Return_Delay_Time", **each(250)),
        "return delay",
        "note",
        "500 µs (all): 3.0 ms a read",
        "nothing: tactus run sets it",
    ),
    "slow adapter": (replace(WELL, read_ms=(17.0,) * 200), "bus", "note", "p50 17.0", "latency timer to 1 ms"),
    "retries": (replace(WELL, retries=3), "bus", "note", "3 answers asked for again", "check cables"),
    "losses": (replace(WELL, failures=3), "bus", "fault", "3 never came", "check cables"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_trouble_has_its_finding_and_its_fix(case: str) -> None:
    facts, about, level, found, fix = CASES[case]
    findings = graver(diagnose_arm("arm", facts, "--keys"))
    assert findings[about].level == level
    assert found in findings[about].found and fix in findings[about].fix
    alone = {"no power": {"motors"}}.get(case, {about})
    assert set(findings) == alone, "and nothing else is said to be wrong"


def test_a_koch_arms_two_supplies_are_judged_motor_by_motor() -> None:
    volts = {name: 120 if joint.model == "xl430-w250" else 50 for name, joint in KOCH.items()}
    most = {name: 140 if joint.model == "xl430-w250" else 70 for name, joint in KOCH.items()}
    least = {name: 60 if joint.model == "xl430-w250" else 35 for name, joint in KOCH.items()}
    registers = {"Present_Input_Voltage": volts, "Max_Voltage_Limit": most, "Min_Voltage_Limit": least}
    answering = {joint.id: MODELS[joint.model].number for joint in KOCH.values()}
    facts = ArmFacts("dynamixel", "p", 1_000_000, KOCH, answering=answering, registers=registers)
    assert "voltage" not in graver(diagnose_arm("arm", facts))
    twelve = replace(facts, registers={**registers, "Present_Input_Voltage": dict.fromkeys(KOCH, 120)})
    finding = graver(diagnose_arm("arm", twelve))["voltage"]
    assert finding.level == "fault" and finding.found == "elbow_flex, wrist_flex, wrist_roll, gripper 12.0 V"
    assert "these take 5 V" in finding.fix


PORTS = [
    (PortFacts("p", exists=False, others=("/dev/ttyUSB0 (FTDI)",)), "fault", "there are: /dev/ttyUSB0 (FTDI)", "plug"),
    (PortFacts("p", allowed=False, group="dialout"), "fault", "no permission", "sudo usermod -aG dialout $USER"),
    (PortFacts("p", holders=("python (process 12)",)), "fault", "in use by python (process 12)", "end that program"),
    (PortFacts("p", latency_timer_ms=16), "note", "16 ms", 'ATTR{latency_timer}="1"'),
    (PortFacts("/dev/ttyACM0", modem_manager=True), "note", "ModemManager", "systemctl disable --now ModemManager"),
]


@pytest.mark.parametrize("facts, level, found, fix", PORTS)
def test_a_port_that_cannot_be_used_well_is_told_why(facts: PortFacts, level: str, found: str, fix: str) -> None:
    [finding] = graver(diagnose_port("arm", facts)).values()
    assert finding.level == level and found in finding.found and fix in finding.fix


CAMERA = CameraFacts("/dev/video0", 640, 480, 30.0, "MJPG", given="MJPG 640x480 at 30", fps=30.0, ages_ms=(10.0,) * 50)
CAMERAS = [
    (replace(CAMERA, trouble="camera top: /dev/video0 does not exist"), "camera", "fault", "does not exist"),
    (replace(CAMERA, fps=0.0), "camera", "fault", "one frame and no more"),
    (replace(CAMERA, fps=15.0), "rate", "note", "15.0 frames per s"),
    (replace(CAMERA, ages_ms=(300.0,) * 50), "age", "fault", "p95 300 ms"),
    (replace(CAMERA, given="YUYV 640x480 at 30"), "format", "note", "YUYV"),
]


@pytest.mark.parametrize("facts, about, level, found", CAMERAS)
def test_a_camera_that_is_not_as_configured_is_told(facts: CameraFacts, about: str, level: str, found: str) -> None:
    finding = graver(diagnose_camera("top", facts))[about]
    assert finding.level == level and found in finding.found
    assert not graver(diagnose_camera("top", CAMERA))


def test_devices_are_listed() -> None:
    assert diagnose_devices({"/dev/video0": "HD Webcam"})[0].found == "/dev/video0 (HD Webcam)"
    assert diagnose_devices({})[0].level == "note"


positive = st.floats(0.01, 500)


@given(
    st.dictionaries(st.text(max_size=3), positive, max_size=3),
    st.dictionaries(st.text(max_size=3), positive, max_size=3),
)
def test_a_proposed_rate_fits_every_bus_and_camera(busy_ms: dict[str, float], camera_fps: dict[str, float]) -> None:
    rate = propose_rate(busy_ms, camera_fps)
    assert (rate is None) == (not busy_ms and not camera_fps)
    if rate is not None and rate > RATES[0]:
        assert sum(busy_ms.values()) * rate <= BUSY * 1000 * (1 + 1e-9)
        assert all(rate <= fps * 1.03 * (1 + 1e-9) for fps in camera_fps.values())


@pytest.mark.parametrize(
    "fps, busy, camera, level, fix",
    [
        (30, 5.0, 30.0, "ok", ""),
        (30, 40.0, 30.0, "fault", "--robot.fps=15"),
        (30, 25.0, 30.0, "note", "--robot.fps=20"),
        (30, 5.0, 15.0, "note", "--robot.fps=15"),
        (30, 5.0, 29.5, "ok", ""),
    ],
)
def test_the_configured_rate_is_compared(fps: float, busy: float, camera: float, level: str, fix: str) -> None:
    [finding] = diagnose_rate(fps, {"arm": busy}, {"top": camera}, "--robot.fps")
    assert finding.level == level and fix in finding.fix


def test_what_a_scan_found_becomes_keys() -> None:
    so100 = Group("feetech", 1_000_000, {joint.id: 777 for joint in SO100.values()})
    koch = Group("dynamixel", 1_000_000, {joint.id: MODELS[joint.model].number for joint in KOCH.values()})
    other = Group("dynamixel", 57_600, {1: 1060, 7: 4711})
    assert "--robot.type=so100 --robot.port=p --robot.baudrate=1000000" in diagnose_scan("p", [so100], KINDS)[0].fix
    assert "--robot.type=koch" in diagnose_scan("p", [koch], KINDS)[0].fix
    findings = diagnose_scan("p", [so100, other], KINDS)
    assert "a joint table" in findings[1].fix and "7 (unknown model number 4711)" in findings[1].found
    assert findings[2].level == "fault" and "different baud rates" in findings[2].found
    assert diagnose_scan("p", [], KINDS)[0].level == "note"


# on emulated arms


@pytest.fixture(scope="module")
def module_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    arms = ["--arms.so.kind=so101", "--arms.koch.kind=koch", "--arms.slow.kind=so101", "--arms.slow.baudrate=500000"]
    raw = ["--arms.raw.kind=so101", "--arms.raw.calibrated=false"]
    with running_twin(tmp_path_factory.mktemp("twin"), "--world=kinematic", *arms, *raw) as twin:
        yield twin


@pytest.fixture
def twin(module_twin: RunningTwin) -> Iterator[RunningTwin]:
    yield module_twin
    module_twin.ask(do="clear")


def config_of(twin: RunningTwin, arm: str) -> So100Config | KochConfig:
    kind = KochConfig if twin.about["arms"][arm]["kind"] == "koch" else So100Config
    return kind(port=twin.port(arm), calibration=twin.about["arms"][arm]["calibration"])


BOTH = pytest.mark.parametrize("arm", ["so", "koch"])


@BOTH
@pytest.mark.parametrize("torque", [0, 1])
def test_observing_an_arm_for_a_policy_writes_nothing_and_leaves_torque_as_it_is(
    twin: RunningTwin, arm: str, torque: int
) -> None:
    config = config_of(twin, arm)
    with config.make_bus() as bus:
        bus.write("Torque_Enable", dict.fromkeys(bus.motors, torque))
    time.sleep(0.2)
    before = len(twin.writes())
    facts = robot_facts(config, observed=True)
    time.sleep(0.2)
    assert not facts.error and len(facts.seen) == 3 and facts.seen[0][STATE].shape == (6,)
    assert twin.writes()[before:] == []
    with config.make_bus() as bus:
        assert {*bus.read("Torque_Enable").values.values()} == {torque}
        bus.write("Torque_Enable", dict.fromkeys(bus.motors, 0))
    time.sleep(0.2)  # until the log has it


@BOTH
def test_looking_writes_nothing_to_any_servo(twin: RunningTwin, arm: str) -> None:
    before = len(twin.writes())
    facts = measure_arm(config_of(twin, arm), reads=50)
    time.sleep(0.2)
    assert twin.writes()[before:] == []
    assert set(facts.answering) == {1, 2, 3, 4, 5, 6} and not facts.trouble and len(facts.read_ms) == 50
    findings = graver(diagnose_arm("arm", facts))
    assert set(findings) - {"bus"} == {"return delay"}, "the servos' factory setting"
    assert "500 µs (all)" in findings["return delay"].found


@BOTH
@pytest.mark.parametrize(
    "kind, about, words",
    [
        ("dead", "motors", "elbow_flex (id 3) does not answer"),
        ("wrong_model", "motors", "elbow_flex (id 3) is a "),
        ("duplicate_id", "motors", "two motors have the same id"),
        ("under_voltage", "voltage", "elbow_flex 3."),
        ("over_temperature", "temperature", "elbow_flex 75 °C"),
        ("overload", "errors", "overload"),
    ],
)
def test_what_ails_a_motor_is_a_fault(twin: RunningTwin, arm: str, kind: str, about: str, words: str) -> None:
    twin.ask(do="fault", kind=kind, arm=arm, motor="elbow_flex")
    faults = [f for f in diagnose_arm("arm", measure_arm(config_of(twin, arm), reads=5)) if f.level == "fault"]
    assert any(fault.about == about and words in fault.found for fault in faults), faults


@pytest.mark.long
def test_an_arm_at_another_baud_rate_or_of_another_protocol_is_found(twin: RunningTwin) -> None:
    facts = measure_arm(replace(config_of(twin, "slow"), baudrate=1_000_000), reads=5)
    assert facts.elsewhere == (Group("feetech", 500_000, {i: 777 for i in range(1, 7)}),)
    facts = measure_arm(KochConfig(port=twin.port("so"), calibration=twin.about["arms"]["so"]["calibration"]), reads=5)
    assert [group.protocol for group in facts.elsewhere] == ["feetech"]


@pytest.mark.long
def test_a_scan_names_every_motor(twin: RunningTwin) -> None:
    [group] = discover(twin.port("slow"))
    assert group == Group("feetech", 500_000, {i: 777 for i in range(1, 7)})
    [group] = discover(twin.port("koch"), ("dynamixel",))
    assert group.motors == {joint.id: MODELS[joint.model].number for joint in KOCH.values()}


def test_an_uncalibrated_arm_needs_a_calibration(twin: RunningTwin, tmp_path: Path) -> None:
    config = So100Config(port=twin.port("raw"), calibration=str(tmp_path / "none.json"))
    finding = graver(diagnose_arm("arm", measure_arm(config, reads=5), "--robot.type=so100"))["calibration"]
    assert finding.level == "fault" and finding.fix == "tactus calibrate --robot.type=so100"
    other = So100Config(port=twin.port("raw"), calibration=twin.about["arms"]["so"]["calibration"])
    finding = graver(diagnose_arm("arm", measure_arm(other, reads=5)))["calibration"]
    assert "Homing_Offset is 0" in finding.found and "tactus calibrate --from=" in finding.fix


def test_an_ftdi_adapter_as_it_comes_is_noticed(tmp_path: Path) -> None:
    with running_twin(tmp_path / "twin", "--world=kinematic", "--arms.so.kind=so101", "--usb_latency_ms=16") as twin:
        finding = graver(diagnose_arm("arm", measure_arm(config_of(twin, "so"), reads=30)))["bus"]
        assert "latency timer" in finding.fix


def test_whoever_has_the_port_is_named_and_the_twin_is_not(twin: RunningTwin) -> None:
    assert inspect_port(twin.port("so")).holders == ()
    code = "import sys, time; line = open(sys.argv[1], 'rb'); print('open', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, twin.port("so")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        [holder] = holders(twin.port("so"))
        assert f"(process {process.pid})" in holder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# the command


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tactus", "doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
        timeout=120,
    )


@pytest.mark.long
def test_a_rig_is_looked_at_as_a_whole(twin: RunningTwin, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with MjpegServer(streams=2, fps=30) as server:
        rig = ["--config_path", "launch/so100.yaml", "--json", str(report)]
        arm = twin.about["arms"]["so"]
        keys = [f"--robot.parts.arm.port={arm['port']}", f"--robot.parts.arm.calibration={arm['calibration']}"]
        size = [f"--robot.parts.{name}.{key}" for name in ("top", "wrist") for key in ("width=160", "height=120")]
        sources = [f"--robot.parts.{name}.source={server.url(i)}" for i, name in enumerate(("top", "wrist"))]
        done = doctor(*rig, *keys, *size, *sources)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(report.read_text())
        assert found["faults"] == 0 and found["proposed_fps"] <= 30
        assert found["cameras"]["top"]["fps"] == pytest.approx(30, abs=3)
        assert found["cameras"]["wrist"]["age_p95_ms"] < 500
        assert found["arms"]["arm"]["read_p50_ms"] > 0
        parts = {finding["part"] for finding in found["findings"]}
        assert parts == {"arm", "top", "wrist", "rig"}

        server.freeze(1)
        twin.ask(do="fault", kind="dead", arm="so", motor="gripper")
        done = doctor(*rig, *keys, *size[:2], *sources)
        assert done.returncode == 1
        faults = [f for f in json.loads(report.read_text())["findings"] if f["level"] == "fault"]
        assert {fault["part"] for fault in faults} == {"arm", "wrist"}
        assert "gripper (id 6) does not answer" in done.stdout and "check the cable from wrist_roll" in done.stdout


def test_a_leader_is_looked_at_too(twin: RunningTwin) -> None:
    so, koch = twin.about["arms"]["so"], twin.about["arms"]["koch"]
    robot = ["--robot.type=so100", f"--robot.port={so['port']}", f"--robot.calibration={so['calibration']}"]
    leader = ["--teleop.arm.type=koch", f"--teleop.arm.port={koch['port']}", "--teleop.arm.calibration=/none.json"]
    done = doctor(*robot, *leader)
    assert done.returncode == 1
    assert "teleop.arm" in done.stdout and "no calibration at /none.json" in done.stdout


@pytest.mark.parametrize(
    "keys, words",
    [
        (["--robot.type=so100"], "robot.port: not given"),
        (["--robot.type=so100", "--robot.port=/dev/ttyNONE"], "/dev/ttyNONE does not exist; there are:"),
    ],
)
def test_a_port_that_is_none_is_a_fault(keys: list[str], words: str) -> None:
    done = doctor(*keys)
    assert done.returncode == 1 and words in done.stdout and "Traceback" not in done.stderr


@pytest.mark.long
def test_without_a_config_it_lists_what_is_plugged_in(twin: RunningTwin) -> None:
    done = doctor()
    assert done.returncode == 0 and "machine" in done.stdout
    done = doctor("--scan", "--robot.type=so100", f"--robot.port={twin.port('so')}", "--robot.calibration=/none.json")
    assert f"--robot.type=so100 --robot.port={twin.port('so')} --robot.baudrate=1000000" in done.stdout


def test_a_port_in_use_is_left_alone(twin: RunningTwin) -> None:
    with open(twin.port("so"), "rb") as line:
        fcntl.ioctl(line, termios.TIOCEXCL)
        done = doctor("--robot.type=so100", f"--robot.port={twin.port('so')}")
        fcntl.ioctl(line, termios.TIOCNXCL)
    assert done.returncode == 1 and "is in use by" in done.stdout and f"(process {os.getpid()})" in done.stdout


@pytest.mark.parametrize("kind", [So100Config, KochConfig])
def test_the_unit_is_named_with_what_older_policies_need(kind: type[So100Config] | type[KochConfig]) -> None:
    for unit, fix in (("degrees", "needs --robot.unit=range_m100_100"), ("range_m100_100", "")):
        arm = kind(unit=unit)
        facts = ArmFacts(arm.bus, "/dev/ttyACM0", 1_000_000, arm.joints, governor=arm.governor)
        [finding] = [one for one in diagnose_arm("", facts) if one.about == "units"]
        assert finding.level == "ok" and unit in finding.found and finding.fix.endswith(fix)
