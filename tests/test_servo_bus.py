"""Servo buses against the twin: emulated servos in a process of their own, behind real pseudo-terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dynamixel_sdk
import pytest
import scservo_sdk

from tactus.hal.servo import calibration
from tactus.hal.servo.bus import BusError, Motor, PortLost
from tactus.hal.servo.dynamixel import DynamixelBus
from tactus.hal.servo.feetech import FeetechBus
from tactus.hal.servo.registers import MODELS, TABLES
from tactus.hal.servo.serial_bus import SerialBus
from tactus.hal.twin.control import TwinControl

pytestmark = pytest.mark.realtime

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ARMS = {"feetech": "so", "dynamixel": "koch", "fast": "koch"}


@dataclass
class Twin:
    folder: Path
    about: dict

    def ask(self, **request):
        with TwinControl(self.folder) as control:
            return control.ask(**request)

    def registers(self, arm: str) -> dict[str, dict[str, int]]:
        return self.ask(do="state")["arms"][arm]["registers"]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    folder = tmp_path_factory.mktemp("twin")
    arms = ["--arms.so.kind=so101", "--arms.koch.kind=koch", "--arms.new.kind=so101", "--arms.new.calibrated=false"]
    command = [sys.executable, "-m", "tactus", "twin", f"--folder={folder}", "--world=kinematic", *arms]
    process = subprocess.Popen([*command, f"--parent={os.getpid()}"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line == "twin: ready\n" for line in process.stdout)
        yield Twin(folder, json.loads((folder / "twin.json").read_text()))
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(autouse=True)
def no_faults(twin: Twin) -> Iterator[None]:
    yield
    twin.ask(do="clear")
    for arm, state in twin.ask(do="state")["arms"].items():
        if not state["plugged"]:
            twin.ask(do="fault", kind="replug", arm=arm)


def make(twin: Twin, kind: str, **settings) -> SerialBus:
    arm = twin.about["arms"][ARMS.get(kind, kind)]
    motors = {name: Motor(m["id"], m["model"]) for name, m in arm["motors"].items()}
    if arm["protocol"] == "feetech":
        return FeetechBus(arm["port"], motors, **settings)
    return DynamixelBus(arm["port"], motors, fast=kind == "fast", **settings)


@pytest.fixture(params=["feetech", "dynamixel", "fast"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def arm(kind: str) -> str:
    return ARMS[kind]


@pytest.fixture
def bus(twin: Twin, kind: str) -> Iterator[SerialBus]:
    with make(twin, kind) as bus:
        bus.check()
        assert not bus.write_each("Torque_Enable", dict.fromkeys(NAMES, 0))
        assert not bus.write_each("Return_Delay_Time", dict.fromkeys(NAMES, 0))
        if kind == "fast":
            assert bus.fast  # type: ignore[attr-defined]
        for name in NAMES:
            bus.counters[name].__init__()
        yield bus


def follow(bus: SerialBus, goal: int) -> dict[str, int]:
    """Write a number into every motor, and what comes back when it is read; what does not come back is missing."""
    bus.write("Goal_Position", dict.fromkeys(NAMES, goal))
    readings = bus.read("Goal_Position")
    assert set(readings.values) | set(readings.failed) == set(NAMES)
    assert not set(readings.values) & set(readings.failed)
    return dict(readings.values)


@pytest.mark.slow
def test_what_is_read_and_written_is_what_the_servos_hold(twin: Twin, bus: SerialBus, arm: str) -> None:
    held = twin.registers(arm)
    for register in ("Present_Position", "Homing_Offset", "Max_Position_Limit", "Present_Temperature", "Model_Number"):
        readings = bus.read(register)
        assert readings.values == {name: held[name][register] for name in NAMES}, register
        assert not readings.failed and not readings.errors
        assert abs(time.monotonic_ns() - readings.stamp_ns) < 5e9
    assert bus.read("Present_Position", ["gripper", "elbow_flex"]).values.keys() == {"gripper", "elbow_flex"}
    assert bus.read("Present_Position", []).values == {}

    goals = {name: 1500 + 100 * i for i, name in enumerate(NAMES)}
    bus.write("Goal_Position", goals)
    assert bus.read("Goal_Position").values == goals
    assert not bus.write_each("Goal_Position", {"gripper": 1534})
    assert twin.registers(arm)["gripper"]["Goal_Position"] == 1534
    assert all(counters == type(counters)() for counters in bus.counters.values())


def test_negative_values_survive_the_wire(twin: Twin, bus: SerialBus, arm: str) -> None:
    wanted = {name: 40 * i - 100 for i, name in enumerate(NAMES)}
    before = bus.read("Homing_Offset").values
    if bus.protocol == "feetech":
        assert not bus.write_each("Lock", dict.fromkeys(NAMES, 0))
    try:
        assert not bus.write_each("Homing_Offset", wanted)
        assert bus.read("Homing_Offset").values == wanted
        assert {name: twin.registers(arm)[name]["Homing_Offset"] for name in NAMES} == wanted
    finally:
        assert not bus.write_each("Homing_Offset", before)


@pytest.mark.slow
def test_everybody_is_found(bus: SerialBus, twin: Twin) -> None:
    assert bus.scan() == {motor.id: MODELS[motor.model].number for motor in bus.motors.values()}
    assert bus.ping(1) == MODELS[bus.motors["shoulder_pan"].model].number
    assert bus.ping(77) is None


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["lost", "corrupt", "truncated", "noise"])
def test_a_damaged_answer_is_mended_by_a_retry_and_counted(
    twin: Twin, bus: SerialBus, arm: str, kind: str, fault: str
) -> None:
    for k in range(8):
        twin.ask(do="fault", kind=fault, arm=arm, motor="elbow_flex", count=1, seed=k)
        assert follow(bus, 2000 + k) == dict.fromkeys(NAMES, 2000 + k)
    struck = bus.counters["elbow_flex"]
    if fault == "lost" and kind != "fast":
        assert (struck.retries, struck.timeouts, struck.corrupt) == (8, 8, 0)
    elif fault != "noise":
        assert struck.retries == 8 and struck.corrupt == 8
    assert all(counters.failures == 0 for counters in bus.counters.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, motor, count, delay_ms",
    [("stuck", "wrist_flex", 1, 80), ("stuck", "all", 6, 80), ("late", "wrist_flex", 6, 20), ("late", "all", 40, 60)],
)
def test_a_late_answer_is_never_taken_for_the_next(
    twin: Twin, bus: SerialBus, arm: str, fault: str, motor: str, count: int, delay_ms: int
) -> None:
    """Each read follows a write of a new number: an old one in an answer is a stale answer."""
    twin.ask(do="fault", kind=fault, arm=arm, motor=motor, count=count, delay_ms=delay_ms)
    behind = {"wrist_flex", "wrist_roll", "gripper"} if motor == "wrist_flex" else set(NAMES)
    complete = 0
    for k in range(60):
        values = follow(bus, 1500 + k)
        assert set(values.values()) <= {1500 + k}
        assert {name for name in NAMES if name not in values} <= behind
        complete += len(values) == len(NAMES)
    assert complete >= 30
    assert bus.counters["wrist_flex"].timeouts + bus.counters["wrist_flex"].corrupt > 0
    assert follow(bus, 2500) == dict.fromkeys(NAMES, 2500)


@pytest.mark.slow
def test_what_lies_unread_on_the_line_is_forgotten(bus: SerialBus) -> None:
    assert follow(bus, 1600) == dict.fromkeys(NAMES, 1600)
    time.sleep(1.1)  # from here on without the longer answers that a late one could be told by
    goal = TABLES[bus.protocol]["Goal_Position"]
    for k in range(5):
        for motor in bus.motors.values():
            bus.wire.sdk.readTx(bus.wire.handler, motor.id, goal.address, goal.size)
            bus.wire.handler.is_using = False
            time.sleep(0.03)
        assert follow(bus, 1700 + k) == dict.fromkeys(NAMES, 1700 + k)


def hiccup(twin: Twin, duration_s: float) -> None:
    """The adapter and all behind it stand still for a moment; then everything asked meanwhile is answered."""
    os.kill(twin.about["pid"], signal.SIGSTOP)
    threading.Timer(duration_s, os.kill, (twin.about["pid"], signal.SIGCONT)).start()


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [0.04, 0.08, 0.3])
def test_after_a_hiccup_answers_are_fresh(twin: Twin, bus: SerialBus, duration_s: float) -> None:
    complete = 0
    for k in range(60):
        if k == 5:
            hiccup(twin, duration_s)
        values = follow(bus, 1500 + k)
        assert set(values.values()) <= {1500 + k}
        complete += len(values) == len(NAMES)
    assert complete >= 30
    assert follow(bus, 2500) == dict.fromkeys(NAMES, 2500)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("request_", ["write", "read", "write_each"])
def test_an_interrupt_within_a_request_is_not_the_next_ones(
    bus: SerialBus, monkeypatch: pytest.MonkeyPatch, request_: str, sent: bool
) -> None:
    """Ctrl-C arrives while the control loop writes; the next request may be the one that stops the arm."""
    handler = bus.wire.handler
    write = handler.writePort

    def interrupted(packet: list[int]) -> int:
        monkeypatch.undo()
        if sent:
            write(packet)
        raise KeyboardInterrupt

    monkeypatch.setattr(handler, "writePort", interrupted)
    with pytest.raises(KeyboardInterrupt):
        if request_ == "read":
            bus.read("Goal_Position")
        else:
            getattr(bus, request_)("Goal_Position", dict.fromkeys(NAMES, 1900))
    assert follow(bus, 1901) == dict.fromkeys(NAMES, 1901)


@pytest.mark.slow
def test_what_an_interrupted_read_asked_for_is_not_taken_for_the_next(
    twin: Twin, bus: SerialBus, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.write("Goal_Position", dict.fromkeys(NAMES, 1500))
    time.sleep(1.1)  # from here on without the longer answers that a late one could be told by
    twin.ask(do="fault", kind="late", arm=arm, motor="all", count=40, delay_ms=15)

    def interrupted(deadline: float, length: int = 4096) -> bytes:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(bus.wire.handler, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.read("Present_Position")
    values = bus.read("Goal_Position").values
    assert set(values.values()) <= {1500}
    twin.ask(do="clear")
    assert 1500 not in bus.read("Present_Position").values.values(), "or the one could not be told from the other"
    assert follow(bus, 2500) == dict.fromkeys(NAMES, 2500)


def test_after_a_hiccup_feetechs_sdk_takes_old_answers_for_new(twin: Twin) -> None:
    """What the tests above would see if the bus did nothing about it."""
    port = scservo_sdk.PortHandler(twin.about["arms"]["so"]["port"])
    handler = scservo_sdk.PacketHandler(0)
    reader = scservo_sdk.GroupSyncRead(port, handler, 42, 2)
    for motor_id in range(1, 7):
        reader.addParam(motor_id)
    assert port.openPort()
    try:
        found = []
        for k in range(60):
            if k == 5:
                hiccup(twin, 0.08)
            handler.write2ByteTxOnly(port, scservo_sdk.BROADCAST_ID, 42, 1500 + k)
            if reader.txRxPacket() == scservo_sdk.COMM_SUCCESS:
                found.append(reader.getData(6, 42, 2) - 1500 - k)
        assert len(found) > 30 and min(found) < 0
    finally:
        port.closePort()


@pytest.mark.slow
def test_a_dead_motor_fails_alone(twin: Twin, bus: SerialBus, arm: str) -> None:
    twin.ask(do="fault", kind="dead", arm=arm, motor="shoulder_lift")
    others = [name for name in NAMES if name != "shoulder_lift"]
    readings = bus.read("Present_Position")
    assert set(readings.values) == set(others)
    assert set(readings.failed) == {"shoulder_lift"}
    assert "no status packet" in readings.failed["shoulder_lift"]
    assert bus.counters["shoulder_lift"].failures == 1
    # from now on it is asked last and once: it costs the others one wait, not three
    retries = {name: bus.counters[name].retries for name in others}
    timeouts = bus.counters["shoulder_lift"].timeouts
    for k in range(5):
        assert set(follow(bus, 1500 + k)) == set(others)
    assert {name: bus.counters[name].retries for name in others} == retries
    assert bus.counters["shoulder_lift"].timeouts == timeouts + 5
    failed = bus.write_each("Torque_Enable", dict.fromkeys(NAMES, 0))
    assert set(failed) == {"shoulder_lift"}
    twin.ask(do="clear")
    assert set(follow(bus, 2000)) == set(NAMES)


def test_a_motor_in_overload_does_not_keep_the_torque_of_the_others_on(twin: Twin, bus: SerialBus, arm: str) -> None:
    assert not bus.write_each("Torque_Enable", dict.fromkeys(NAMES, 1))
    assert all(twin.ask(do="state")["arms"][arm]["torque_on"].values())
    twin.ask(do="fault", kind="overload", arm=arm, motor="shoulder_lift")
    deadline = time.monotonic() + 5
    while "shoulder_lift" not in (readings := bus.read("Present_Position")).errors:
        assert time.monotonic() < deadline
    assert set(readings.values) == set(NAMES) and set(readings.errors) == {"shoulder_lift"}
    words = bus.describe_error(readings.errors["shoulder_lift"])
    assert ("overload" if bus.protocol == "feetech" else "Hardware_Error_Status") in words
    # the flag in the answer tells the motor's condition; the order itself was carried out
    assert bus.write_each("Torque_Enable", dict.fromkeys(NAMES, 0)) == {}
    assert not any(twin.ask(do="state")["arms"][arm]["torque_on"].values())
    assert bus.counters["shoulder_lift"].errors > 0 and bus.counters["gripper"].errors == 0
    if isinstance(bus, DynamixelBus):
        assert "overload" in bus.describe_hardware_error(bus.read("Hardware_Error_Status").values["shoulder_lift"])
        twin.ask(do="clear")
        twin.ask(do="fault", kind="brown_out", arm=arm, duration_s=0.05)  # only a restart ends a shutdown
        time.sleep(0.3)


@pytest.mark.parametrize("kind", ["dynamixel"])
def test_a_refused_write_is_a_failure_in_words_and_is_not_repeated(twin: Twin, bus: SerialBus, arm: str) -> None:
    assert not bus.write_each("Torque_Enable", {"gripper": 1})
    failed = bus.write_each("Drive_Mode", dict.fromkeys(NAMES, 0))
    assert set(failed) == {"gripper"}
    assert "refused" in failed["gripper"] and "torque" in failed["gripper"]
    assert bus.counters["gripper"].errors == 1
    failed = bus.write_each("Present_Position", {"elbow_flex": 1})
    assert "read-only" in failed["elbow_flex"]


@pytest.mark.slow
def test_missing_motors_are_named_with_their_cable(twin: Twin, bus: SerialBus, arm: str) -> None:
    for name in ("elbow_flex", "gripper"):
        twin.ask(do="fault", kind="dead", arm=arm, motor=name)
    with pytest.raises(BusError) as error:
        bus.check()
    assert str(error.value).startswith("motor elbow_flex (id 3, ")
    assert "cable from shoulder_lift to it" in str(error.value)
    assert "silent too: gripper" in str(error.value)


@pytest.mark.slow
def test_an_id_that_belongs_to_nobody_is_told(twin: Twin, kind: str) -> None:
    whole = make(twin, kind)
    motors = {name: Motor(9 if motor.id == 3 else motor.id, motor.model) for name, motor in whole.motors.items()}
    with type(whole)(whole.port, motors) as bus, pytest.raises(BusError) as error:
        bus.check()
    model = whole.motors["elbow_flex"].model
    assert "motor elbow_flex (id 9" in str(error.value)
    assert f"ids that answer but belong to no motor: 3 ({model})" in str(error.value)


def test_another_model_is_named(twin: Twin, bus: SerialBus, arm: str) -> None:
    twin.ask(do="fault", kind="wrong_model", arm=arm, motor="wrist_roll")
    with pytest.raises(BusError, match=r"motor wrist_roll \(id 5\).* is a \S+, expected"):
        bus.check()


def test_two_motors_with_one_id_are_told(twin: Twin, bus: SerialBus, arm: str) -> None:
    twin.ask(do="fault", kind="duplicate_id", arm=arm, motor="wrist_flex")
    with pytest.raises(BusError, match=r"motor wrist_flex \(id 4.*same id"):
        bus.check()


@pytest.mark.slow
def test_another_baud_rate_is_found(twin: Twin, kind: str) -> None:
    with make(twin, kind, baudrate=57_600, latency_ms=2) as bus:
        with pytest.raises(BusError) as error:
            bus.check()
        assert "at 57600 baud, but some do at 1000000" in str(error.value)
        assert bus.baudrate == bus.wire.handler.baudrate == 57_600
        assert bus.read("Present_Position", retries=0).values == {}


@pytest.mark.slow
def test_a_bus_without_power_is_told(twin: Twin, kind: str, arm: str) -> None:
    twin.ask(do="fault", kind="dead", arm=arm)
    with make(twin, kind, latency_ms=2) as bus, pytest.raises(BusError, match=r"no motor answers .* power on"):
        bus.check()


@pytest.mark.slow
def test_a_motor_that_was_not_heard_at_first_is_asked_once_more(twin: Twin, kind: str, arm: str) -> None:
    """As where the machine stood still while it was asked."""
    with make(twin, kind, latency_ms=2) as bus:
        twin.ask(do="fault", kind="lost", arm=arm, motor="shoulder_pan", count=3)
        bus.check()
        twin.ask(do="fault", kind="lost", arm=arm, motor="shoulder_pan")
        with pytest.raises(BusError, match=r"shoulder_pan .* does not answer"):
            bus.check()


def test_unplugged_and_plugged_in_again(twin: Twin, bus: SerialBus, arm: str) -> None:
    twin.ask(do="fault", kind="lost", arm=arm, motor="gripper", count=1)
    bus.read("Present_Position")
    twin.ask(do="fault", kind="unplug", arm=arm)
    for _ in range(2):
        with pytest.raises(PortLost, match="is lost"):
            bus.read("Present_Position")
        with pytest.raises(PortLost, match="is lost"):
            bus.write("Goal_Position", {"gripper": 2000})
        with pytest.raises(PortLost, match="is lost"):
            bus.write_each("Torque_Enable", {"gripper": 0})
    with pytest.raises(BusError, match="no serial port"):
        bus.open()
    twin.ask(do="fault", kind="replug", arm=arm)
    bus.open()
    assert follow(bus, 2222) == dict.fromkeys(NAMES, 2222)
    assert bus.counters["gripper"].retries == 1  # a port that comes back is no new beginning
    bus.close()
    with pytest.raises(BusError, match="is not open"):
        bus.read("Present_Position")


@pytest.mark.slow
def test_unplugged_while_waiting(twin: Twin, bus: SerialBus, arm: str) -> None:
    """The port goes between request and answer, and the wait ends at once."""
    twin.ask(do="fault", kind="late", arm=arm, delay_ms=5000)
    bus.wire.handler.latency_ms = 8000
    threading.Timer(0.3, lambda: twin.ask(do="fault", kind="unplug", arm=arm)).start()
    start = time.monotonic()
    with pytest.raises(PortLost):
        bus.read("Present_Position", retries=0)
    assert time.monotonic() - start < 4


def test_a_brown_out_is_survived(twin: Twin, bus: SerialBus, arm: str) -> None:
    twin.ask(do="fault", kind="brown_out", arm=arm, duration_s=0.2)
    assert bus.read("Present_Position", retries=0).values == {}
    deadline = time.monotonic() + 5
    while len(bus.read("Present_Position").values) < len(NAMES):
        assert time.monotonic() < deadline


def test_a_port_is_nobody_elses(twin: Twin, bus: SerialBus, kind: str) -> None:
    with pytest.raises(BusError, match="in use by another program"):
        make(twin, kind).open()


def test_ports_that_are_none(tmp_path: Path) -> None:
    motors = {"a": Motor(1, "sts3215")}
    with pytest.raises(BusError, match=r"no serial port .*; found: "):
        FeetechBus(str(tmp_path / "ttyUSB9"), motors).open()
    (tmp_path / "file").write_text("")
    with pytest.raises(BusError, match="is not a serial port"):
        FeetechBus(str(tmp_path / "file"), motors).open()
    with pytest.raises(BusError, match="baud rate 123 is none.*1000000"):
        FeetechBus(str(tmp_path / "file"), motors, baudrate=123).open()


@pytest.mark.parametrize(
    "motors, words",
    [
        ({}, "no motors"),
        ({"a": Motor(1, "sts3215"), "b": Motor(1, "sts3215")}, "a and b are both configured with id 1"),
        ({"a": Motor(254, "sts3215")}, "motor a has id 254; accepted: 0 to 252"),
        ({"a": Motor(1, "xl330-m288")}, "'xl330-m288', which is no feetech model; accepted: sts3215"),
        ({"a": Motor(1, "toaster")}, "'toaster'"),
    ],
)
def test_motors_that_cannot_be(motors: dict[str, Motor], words: str) -> None:
    with pytest.raises(BusError) as error:
        FeetechBus("none", motors)
    assert words in str(error.value)


def test_mistakes_of_the_caller_write_nothing(twin: Twin, bus: SerialBus, arm: str) -> None:
    before = twin.registers(arm)
    with pytest.raises(ValueError, match="no register 'Goal'"):
        bus.write("Goal", {"gripper": 1})
    with pytest.raises(ValueError, match="no motor hand"):
        bus.write("Goal_Position", {"gripper": 1, "hand": 1})
    for write in (bus.write, bus.write_each):
        with pytest.raises(ValueError, match="Goal_Position of elbow_flex: 99999999999 does not fit"):
            write("Goal_Position", {"gripper": 77, "elbow_flex": 99_999_999_999})
    assert {n: r["Goal_Position"] for n, r in twin.registers(arm).items()} == {
        n: r["Goal_Position"] for n, r in before.items()
    }


@pytest.mark.slow
def test_threads_do_not_mix_their_answers(bus: SerialBus) -> None:
    truth = {register: dict(bus.read(register).values) for register in ("Model_Number", "ID", "Max_Position_Limit")}
    wrong: list[object] = []

    def work(register: str) -> None:
        for _ in range(30):
            readings = bus.read(register)
            if readings.values != truth[register]:
                wrong.append((register, readings))
            wrong.extend(bus.write_each("Goal_Position", {"gripper": 2000}).items())

    threads = [threading.Thread(target=work, args=(register,)) for register in truth]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
def test_mixed_firmware_and_slow_answers_are_warned_of(bus: SerialBus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.check()
    assert bus.warnings() == []
    assert not bus.write_each("Return_Delay_Time", {"gripper": 250})
    versions = bus.read_firmware() | {"gripper": "1.0"}
    monkeypatch.setattr(bus, "read_firmware", lambda: versions)
    bus.check()
    firmware, delay = bus.warnings()
    assert "different firmware" in firmware and "gripper 1.0" in firmware
    assert "gripper 500 µs" in delay and "Return_Delay_Time to 0" in delay


def test_the_adapters_latency_timer_is_warned_of(bus: SerialBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tactus.hal.servo.motor_check.latency_timer_ms", lambda port: 16)
    bus.check()
    assert any("latency timer of 16 ms" in warning and "udev" in warning for warning in bus.warnings())


@pytest.mark.slow
def test_a_calibration_is_written_and_stays(twin: Twin) -> None:
    bus = make(twin, "new")
    with bus:
        raw = bus.read("Present_Position").values
        joints = {
            name: calibration.JointCalibration(
                bus.motors[name].id, 0, calibration.half_turn_homing(raw[name], "feetech"), 1000 + i, 3000 + i
            )
            for i, name in enumerate(NAMES)
        }
        assert calibration.differences(joints, calibration.read_registers(bus))
        calibration.apply(bus, joints)
        assert calibration.differences(joints, calibration.read_registers(bus)) == []
        assert set(bus.read("Present_Position").values.values()) == {2047}
        twin.ask(do="fault", kind="brown_out", arm="new", duration_s=0.0)
        time.sleep(0.1)
        assert calibration.differences(joints, calibration.read_registers(bus)) == []
        twin.ask(do="fault", kind="dead", arm="new", motor="gripper")
        with pytest.raises(calibration.RobotError, match=r"not taken .*gripper"):
            calibration.apply(bus, joints)


@pytest.mark.parametrize("kind", ["feetech", "dynamixel"])
def test_lerobot_reads_the_same(twin: Twin, kind: str, arm: str) -> None:
    from lerobot.motors.dynamixel import DynamixelMotorsBus
    from lerobot.motors.feetech import FeetechMotorsBus
    from lerobot.motors.motors_bus import Motor as TheirMotor
    from lerobot.motors.motors_bus import MotorCalibration, MotorNormMode

    bus = make(twin, kind)
    joints = calibration.load(Path(twin.about["arms"][arm]["calibration"]), bus.motors)
    units = {name: "range_0_100" if name == "gripper" else "degrees" for name in NAMES}
    with bus:
        raw = bus.read("Present_Position").values
        assert calibration.differences(joints, calibration.read_registers(bus)) == []
    modes = {"degrees": MotorNormMode.DEGREES, "range_0_100": MotorNormMode.RANGE_0_100}
    theirs = (FeetechMotorsBus if kind == "feetech" else DynamixelMotorsBus)(
        bus.port,
        {name: TheirMotor(motor.id, motor.model, modes[units[name]]) for name, motor in bus.motors.items()},
        {name: MotorCalibration(**vars(joint)) for name, joint in joints.items()},
    )
    theirs.connect()
    try:
        assert theirs.is_calibrated
        assert theirs.sync_read("Present_Position", normalize=False, num_retry=3) == raw
        scaled = theirs.sync_read("Present_Position", num_retry=3)
    finally:
        theirs.disconnect()
    scale = calibration.Scale.of(joints, bus.motors, units)
    assert scale.to_units(list(raw.values())).tolist() == list(scaled.values())


@pytest.mark.slow
def test_a_late_packet_within_a_fast_sync_read(twin: Twin) -> None:
    """The SDK takes a motor's own, late packet for the reply of all and runs off its end; ours waits for the reply."""

    def disturb(port, handler, read) -> None:
        """Ask a motor whose answer comes 20 ms late, and read meanwhile."""
        twin.ask(do="fault", kind="late", arm="koch", motor="shoulder_pan", count=1, delay_ms=20)
        handler.readTx(port, 1, 132, 4)
        port.is_using = False
        end = time.monotonic() + 0.04
        while time.monotonic() < end:
            read()

    def told(readings) -> None:
        assert not readings.failed and set(readings.values.values()) == {2100}

    with make(twin, "fast") as bus:
        bus.check()
        assert bus.fast  # type: ignore[attr-defined]
        bus.write("Goal_Position", dict.fromkeys(NAMES, 2100))
        time.sleep(1.1)  # from here on without the longer answers that a late one could be told by
        for _ in range(10):
            disturb(bus.wire.handler, bus.wire.sdk, lambda: told(bus.read("Goal_Position")))
        assert bus.counters["gripper"].timeouts == 0
        twin.ask(do="fault", kind="dead", arm="koch", motor="gripper")
        readings = bus.read("Present_Position")
        assert set(readings.failed) == {"gripper"} and len(readings.values) == 5
        twin.ask(do="clear")

    port, handler = dynamixel_sdk.PortHandler(bus.port), dynamixel_sdk.PacketHandler(2.0)
    reader = dynamixel_sdk.GroupSyncRead(port, handler, 132, 4)
    for motor_id in range(1, 7):
        reader.addParam(motor_id)
    assert port.openPort()
    try:
        with pytest.raises(IndexError):
            for _ in range(30):
                disturb(port, handler, reader.fastSyncRead)
    finally:
        port.closePort()
