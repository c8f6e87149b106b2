"""Calibration: LeRobot's files, LeRobot's formulas, and register tables equal to LeRobot's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import draccus
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors import motors_bus as lerobot_bus
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.dynamixel import tables as dynamixel_tables
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.motors.feetech import tables as feetech_tables

from tactus.hal.robot import RobotError
from tactus.hal.servo import calibration as cal
from tactus.hal.servo.bus import Motor
from tactus.hal.servo.registers import BAUDRATES, DYNAMIXEL, FEETECH, MODELS, Register, model_named

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
MOTORS = {name: Motor(i + 1, "sts3215") for i, name in enumerate(NAMES)}
GOOD = {name: cal.JointCalibration(i + 1, 0, 17 * i, 700 + i, 3300 - i) for i, name in enumerate(NAMES)}

LEROBOT_UNITS = {
    "degrees": lerobot_bus.MotorNormMode.DEGREES,
    "range_m100_100": lerobot_bus.MotorNormMode.RANGE_M100_100,
    "range_0_100": lerobot_bus.MotorNormMode.RANGE_0_100,
}


def lerobot(model: str, joints: dict[str, cal.JointCalibration], units: dict[str, str]):
    """LeRobot's own bus with this calibration; never connected."""
    kind = FeetechMotorsBus if MODELS[model].protocol == "feetech" else DynamixelMotorsBus
    motors = {n: lerobot_bus.Motor(j.id, model, LEROBOT_UNITS[units[n]]) for n, j in joints.items()}
    return kind("none", motors, {n: lerobot_bus.MotorCalibration(**dataclasses.asdict(j)) for n, j in joints.items()})


joint = st.builds(
    lambda low, span, mode: cal.JointCalibration(1, mode, 0, low, low + span),
    st.integers(0, 4094),
    st.integers(1, 4095),
    st.integers(0, 1),
)
case = st.tuples(
    st.sampled_from(["sts3215", "xl330-m288"]),
    st.lists(st.tuples(joint, st.sampled_from(list(LEROBOT_UNITS))), min_size=1),
)


def scaled(model: str, entries) -> tuple[cal.Scale, object]:
    names = [f"joint_{i}" for i in range(len(entries))]
    joints = {n: dataclasses.replace(j, id=i) for i, (n, (j, _)) in enumerate(zip(names, entries, strict=True))}
    units = {n: u for n, (_, u) in zip(names, entries, strict=True)}
    motors = {n: Motor(joint.id, model) for n, joint in joints.items()}
    return cal.Scale.of(joints, motors, units), lerobot(model, joints, units)


@given(case, st.data())
def test_units_are_lerobots(case, data) -> None:
    model, entries = case
    scale, peer = scaled(model, entries)
    raw = data.draw(st.lists(st.integers(-40000, 40000), min_size=len(entries), max_size=len(entries)))
    theirs = peer._normalize(dict(enumerate(raw)))
    assert scale.to_units(raw).tolist() == list(theirs.values())


@given(case, st.data())
def test_counts_are_lerobots(case, data) -> None:
    model, entries = case
    scale, peer = scaled(model, entries)
    value = st.floats(-1000, 1000)
    values = data.draw(st.lists(value, min_size=len(entries), max_size=len(entries)))
    theirs = peer._unnormalize(dict(enumerate(values)))
    assert scale.to_raw(values).tolist() == list(theirs.values())
    clipped = scale.to_raw(values, clip=True)
    assert (clipped >= scale.low).all() and (clipped <= scale.high).all()


@given(case)
def test_bounds_are_the_range(case) -> None:
    scale, _ = scaled(*case)
    low, high = scale.bounds()
    assert (low < high).all()
    for ends in (low, high):
        raw = scale.to_raw(ends, clip=True)
        assert (np.minimum(abs(raw - scale.low), abs(raw - scale.high)) <= 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_becomes_no_count(value: float) -> None:
    scale = cal.Scale.of(GOOD, MOTORS, dict.fromkeys(NAMES, "degrees"))
    with pytest.raises(ValueError, match="finite"):
        scale.to_raw([value] + [0.0] * 5, clip=True)


@pytest.mark.parametrize("model", ["sts3215", "xl330-m288"])
@given(raw=st.integers(0, 4095))
def test_half_turn_homing_is_lerobots(model: str, raw: int) -> None:
    peer = lerobot(model, {"a": GOOD["gripper"]}, {"a": "degrees"})
    assert cal.half_turn_homing(raw, MODELS[model].protocol) == peer._get_half_turn_homings({"a": raw})["a"]


def test_a_file_of_lerobots_loads(tmp_path: Path) -> None:
    theirs = {name: lerobot_bus.MotorCalibration(**dataclasses.asdict(joint)) for name, joint in GOOD.items()}
    with (tmp_path / "arm.json").open("w") as file, draccus.config_type("json"):
        draccus.dump(theirs, file, indent=4)
    assert cal.load(tmp_path / "arm.json", MOTORS) == GOOD


def test_a_file_of_ours_is_lerobots(tmp_path: Path) -> None:
    cal.save(tmp_path / "new" / "arm.json", GOOD)
    with (tmp_path / "new" / "arm.json").open() as file, draccus.config_type("json"):
        theirs = draccus.load(dict[str, lerobot_bus.MotorCalibration], file)
    assert {name: dataclasses.asdict(joint) for name, joint in theirs.items()} == {
        name: dataclasses.asdict(joint) for name, joint in GOOD.items()
    }
    assert list(cal.load(tmp_path / "new" / "arm.json", MOTORS)) == list(NAMES)


def edited(**changes) -> str:
    return json.dumps({n: dataclasses.asdict(j) | changes.get(n, {}) for n, j in GOOD.items()})


@pytest.mark.parametrize(
    "text, words",
    [
        (None, ["no calibration at", "tactus calibrate"]),
        ("{", ["is no calibration"]),
        ("[1]", ["found a list", "keys and values"]),
        (json.dumps({"left": {}}), ["another arm", "found joints left", "expected shoulder_pan"]),
        (edited(gripper={"id": 9}), ["another arm", "gripper has id 9", "configured is 6"]),
        (edited(elbow_flex={"range_min": 100, "range_max": 100}), ["elbow_flex has an empty range", "100 to 100"]),
        (edited(elbow_flex={"range_min": 3000, "range_max": 100}), ["elbow_flex has an empty range"]),
        (edited(wrist_roll={"homing_offset": 2048}), ["wrist_roll: Homing_Offset 2048", "-2047 to 2047"]),
        (edited(wrist_roll={"range_min": -1}), ["wrist_roll: Min_Position_Limit -1"]),
        (edited(wrist_roll={"drive_mode": 4}), ["drive_mode 4"]),
        (edited(wrist_roll={"range_min": 1.5}), ["wrist_roll has", "integers"]),
        (edited(wrist_roll={"range_min": True}), ["wrist_roll has", "integers"]),
        (edited(wrist_roll={"turns": 1}), ["wrist_roll has", "expected integers id, drive_mode"]),
    ],
)
def test_unusable_files_are_refused_in_words(tmp_path: Path, text: str | None, words: list[str]) -> None:
    file = tmp_path / "arm.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RobotError) as error:
        cal.load(file, MOTORS)
    for word in [str(file), *words]:
        assert word in str(error.value)


def test_differences_name_joint_register_and_both_values() -> None:
    registers = {
        "Homing_Offset": {name: joint.homing_offset for name, joint in GOOD.items()},
        "Min_Position_Limit": {name: joint.range_min for name, joint in GOOD.items()},
        "Max_Position_Limit": {name: joint.range_max for name, joint in GOOD.items()},
    }
    assert cal.differences(GOOD, registers) == []
    registers["Homing_Offset"]["elbow_flex"] = 99
    del registers["Max_Position_Limit"]["gripper"]
    assert cal.differences(GOOD, registers) == [
        "elbow_flex: Homing_Offset is 99, the calibration has 34",
        "gripper: Max_Position_Limit is unknown, the calibration has 3295",
    ]


def test_feetech_table_is_lerobots() -> None:
    for model in ("sts3215", "sts3250", "sm8512bl"):
        theirs = {name.strip(): entry for name, entry in feetech_tables.MODEL_CONTROL_TABLE[model].items()}
        assert {name: (entry.address, entry.size) for name, entry in FEETECH.items()} == theirs
        signs = {n: bit for n, bit in feetech_tables.MODEL_ENCODING_TABLE[model].items() if n in theirs}
        # the sign of the current is in bit 15 (Feetech's own SDK reads it so); LeRobot takes it for unsigned
        assert {n: entry.sign for n, entry in FEETECH.items() if entry.sign} == signs | {"Present_Current": 15}
        assert BAUDRATES["feetech"] == feetech_tables.MODEL_BAUDRATE_TABLE[model]
        assert MODELS[model].number == feetech_tables.MODEL_NUMBER_TABLE[model]
        assert MODELS[model].resolution == feetech_tables.MODEL_RESOLUTION[model]


def test_dynamixel_table_is_lerobots() -> None:
    for model, number in dynamixel_tables.MODEL_NUMBER_TABLE.items():
        theirs = dynamixel_tables.MODEL_CONTROL_TABLE[model]
        assert {name: (entry.address, entry.size) for name, entry in DYNAMIXEL.items()} == theirs
        signed = {name for name, entry in DYNAMIXEL.items() if entry.sign == "twos"}
        assert signed == set(dynamixel_tables.MODEL_ENCODING_TABLE[model])
        assert BAUDRATES["dynamixel"] == dynamixel_tables.MODEL_BAUDRATE_TABLE[model]
        assert (MODELS[model].number, MODELS[model].resolution) == (number, dynamixel_tables.MODEL_RESOLUTION[model])
        assert model_named(number) == model


registers = st.sampled_from([*FEETECH.values(), *DYNAMIXEL.values()])


@given(registers, st.data())
def test_registers_keep_what_they_hold(register: Register, data) -> None:
    value = data.draw(st.integers(register.low, register.high))
    encoded = register.encode(value)
    assert len(encoded) == register.size
    assert register.decode(bytes(encoded)) == value
    for beyond in (register.low - 1, register.high + 1):
        with pytest.raises(ValueError, match="does not fit"):
            register.encode(beyond)


@pytest.mark.parametrize("model", ["sts3215", "xl330-m288"])
@pytest.mark.parametrize("ends", [(-1, 100), (0, 4096), (0, 5000), (4096, 5000), (-200, -100)])
def test_positions_that_no_encoder_has_are_no_calibration(model: str, ends: tuple[int, int]) -> None:
    found = cal.problems({"a": cal.JointCalibration(1, 0, 0, *ends)}, {"a": Motor(1, model)})
    assert any(f"a: {ends[0]} to {ends[1]} is beyond its encoder, 0 to 4095" in line for line in found)


def test_a_whole_turn_of_a_joint_with_stops_is_told() -> None:
    whole = {name: cal.JointCalibration(i, 0, 0, 0, 4095) for i, name in enumerate(("shoulder", "wrist"), 1)}
    motors = {name: Motor(i, "sts3215") for i, name in enumerate(("shoulder", "wrist"), 1)}
    assert cal.problems(whole, motors) == []
    [line] = cal.whole_turns(whole, motors, ["wrist"])
    assert line.startswith("shoulder is calibrated to the whole turn, 0 to 4095, and has stops")
