"""Calibrations in LeRobot's format, and LeRobot's formulas between what a servo counts and what a policy sees.

Source: lerobot/motors/motors_bus.py (MotorCalibration, _normalize, _unnormalize), 0.6.1.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from tactus.hal.json_file import read_json
from tactus.hal.robot import RobotError
from tactus.hal.servo.bus import Motor, ServoBus, listed
from tactus.hal.servo.registers import MODELS, TABLES, Protocol, Units

REGISTERS = ("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit")
"""Where a servo keeps its calibration."""


@dataclass(frozen=True)
class JointCalibration:
    """One joint. homing_offset, range_min and range_max: counts; drive_mode: 1 if its sign is turned round."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


Calibration = Mapping[str, JointCalibration]
"""By the joint's name."""


def load(path: Path, motors: Mapping[str, Motor]) -> dict[str, JointCalibration]:
    """The calibration of these motors, in their order. Raises RobotError: absent, no JSON, another arm's, empty."""
    remedy = f"run `tactus calibrate`, which writes {path}"
    if not path.exists():
        ours = path.parent.parent.name in ("robots", "teleoperators")  # LeRobot's folder, where files are ids
        others = ", ".join(sorted(file.stem for file in path.parent.glob("*.json"))[:8] if ours else ())
        there = f" (there are {others})" if others else ""
        raise RobotError(f"no calibration at {path}{there}: {remedy}, or give the path of LeRobot's file")
    found = _read(path, motors)
    if faults := problems(found, motors):
        raise RobotError(f"{path}: {'; '.join(faults)}; {remedy}")
    return found


def check_replaceable(path: Path, motors: Mapping[str, Motor]) -> None:
    """Raise RobotError if there is a file at `path` that is no calibration of these motors: it is not written over."""
    if path.exists() and path.stat().st_size:
        _read(path, motors)


def _read(path: Path, motors: Mapping[str, Motor]) -> dict[str, JointCalibration]:
    remedy = (
        "it is left as it is: give this arm's file, or a name that is free, e.g. "
        f"{path.with_stem(f'{path.stem}_new')}, for which `tactus calibrate` finds a calibration"
    )
    try:
        data = read_json(path, dict)
    except ValueError as error:
        raise RobotError(f"{path} is no calibration: {error}; {remedy}") from error
    wanted = [field.name for field in fields(JointCalibration)]
    if isinstance(data.get("motor_names"), list):
        raise RobotError(
            f"{path} is a calibration in LeRobot's format of 2024 ({', '.join(data)}, as lists), whose numbers the "
            f"servos were never given, and which today's LeRobot does not read either: {remedy}"
        )
    if set(data) != set(motors):
        raise RobotError(
            f"{path} is for another arm: found joints {', '.join(data) or 'none'}; expected {', '.join(motors)}; "
            + remedy
        )
    found: dict[str, JointCalibration] = {}
    for name, motor in motors.items():
        entry = data[name]
        if not isinstance(entry, dict) or set(entry) != set(wanted) or not all(type(v) is int for v in entry.values()):
            raise RobotError(f"{path}: {name} has {entry!r:.120}; expected integers {', '.join(wanted)}; {remedy}")
        found[name] = JointCalibration(**entry)
        if found[name].id != motor.id:
            raise RobotError(
                f"{path} is for another arm: {name} has id {found[name].id}, configured is {motor.id}; {remedy}"
            )
    return found


def save(path: Path, calibration: Calibration) -> None:
    """Write LeRobot's JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: asdict(joint) for name, joint in calibration.items()}, indent=4) + "\n")


def problems(calibration: Calibration, motors: Mapping[str, Motor]) -> list[str]:
    """What makes a calibration unusable: empty ranges, positions no encoder has, offsets no register holds."""
    found = []
    for name, joint in calibration.items():
        protocol = MODELS[motors[name].model].protocol
        if joint.range_min >= joint.range_max:
            found.append(
                f"{name} has an empty range, {joint.range_min} to {joint.range_max}: move it while calibrating"
            )
        last = MODELS[motors[name].model].resolution - 1
        if not 0 <= joint.range_min <= joint.range_max <= last:
            found.append(f"{name}: {joint.range_min} to {joint.range_max} is beyond its encoder, 0 to {last}")
        if joint.drive_mode not in (0, 1):
            found.append(f"{name} has drive_mode {joint.drive_mode}; accepted: 0, 1")
        for register, value in _values(joint).items():
            entry = TABLES[protocol][register]
            if not entry.low <= value <= entry.high:
                found.append(f"{name}: {register} {value} does not fit {entry.low} to {entry.high}")
    return found


def whole_turns(calibration: Calibration, motors: Mapping[str, Motor], expected: Collection[str]) -> list[str]:
    """Joints whose range is the whole turn although they do not turn freely: what a failed calibration leaves behind.

    expected: those that do turn freely. One sentence each.
    """
    return [
        f"{name} is calibrated to the whole turn, {joint.range_min} to {joint.range_max}, and has stops: was it moved "
        "to both? `tactus calibrate` finds them"
        for name, joint in calibration.items()
        if name not in expected and (joint.range_min, joint.range_max) == (0, MODELS[motors[name].model].resolution - 1)
    ]


@dataclass(frozen=True)
class Scale:
    """Counts to units and back, for J joints at once; LeRobot's formulas, bit for bit.

    low, high, full: float64[J], range_min, range_max, and counts per turn less one. units: J of them. inverted:
    bool[J]; LeRobot turns the sign round for Feetech servos only, and never in degrees.
    """

    low: np.ndarray
    high: np.ndarray
    full: np.ndarray
    units: tuple[Units, ...]
    inverted: np.ndarray

    @classmethod
    def of(cls, calibration: Calibration, motors: Mapping[str, Motor], units: Mapping[str, Units]) -> Scale:
        """For `motors`, in their order."""
        joints = [calibration[name] for name in motors]
        models = [MODELS[motor.model] for motor in motors.values()]
        return cls(
            low=np.array([joint.range_min for joint in joints], np.float64),
            high=np.array([joint.range_max for joint in joints], np.float64),
            full=np.array([model.resolution - 1 for model in models], np.float64),
            units=tuple(units[name] for name in motors),
            inverted=np.array(
                [bool(j.drive_mode) and m.protocol == "feetech" for j, m in zip(joints, models, strict=True)]
            ),
        )

    def to_units(self, raw: Sequence[int] | np.ndarray) -> np.ndarray:
        """float64[J]. Outside its range a joint in degrees goes on, one in a range_… stays at the end."""
        raw = np.asarray(raw, np.float64)
        share = (np.clip(raw, self.low, self.high) - self.low) / (self.high - self.low)
        both, one = share * 200 - 100, share * 100
        return self._select(
            (raw - (self.low + self.high) / 2) * 360 / self.full,
            np.where(self.inverted, -both, both),
            np.where(self.inverted, 100 - one, one),
        )

    def to_raw(self, values: Sequence[float] | np.ndarray, clip: bool = False) -> np.ndarray:
        """int64[J], truncated towards zero as LeRobot does. clip: into [range_min, range_max], degrees too, which
        truncation may leave by a count. Raises ValueError for NaN and infinities."""
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"positions {values} are not all finite")
        span = self.high - self.low
        both = np.clip(np.where(self.inverted, -values, values), -100.0, 100.0)
        one = np.clip(np.where(self.inverted, 100 - values, values), 0.0, 100.0)
        raw = self._select(
            values * self.full / 360 + (self.low + self.high) / 2,
            (both + 100) / 200 * span + self.low,
            one / 100 * span + self.low,
        )
        raw = np.trunc(raw)
        return (np.clip(raw, self.low, self.high) if clip else raw).astype(np.int64)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the range in units, low and high, float64[J] each."""
        ends = self.to_units(self.low), self.to_units(self.high)
        return np.minimum(*ends), np.maximum(*ends)

    def _select(self, degrees: np.ndarray, both: np.ndarray, one: np.ndarray) -> np.ndarray:
        kinds = np.array(self.units)
        return np.where(kinds == "degrees", degrees, np.where(kinds == "range_m100_100", both, one))


def half_turn_homing(raw: int, protocol: Protocol, resolution: int = 4096) -> int:
    """The Homing_Offset that makes the position read as `raw` (with no offset) the middle of the turn, 2047."""
    middle = (resolution - 1) // 2
    return raw - middle if protocol == "feetech" else middle - raw


def differences(calibration: Calibration, registers: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Where servos are not as the calibration says; one line a register.

    registers: values by register's name (REGISTERS) and joint, as `Readings.values` has them.
    """
    return [
        f"{name}: {register} is {registers[register].get(name, 'unknown')}, the calibration has {value}"
        for name, joint in calibration.items()
        for register, value in _values(joint).items()
        if registers[register].get(name) != value
    ]


def read_registers(bus: ServoBus) -> dict[str, Mapping[str, int]]:
    """What `differences` compares. Raises RobotError if a motor does not tell."""
    found: dict[str, Mapping[str, int]] = {}
    for register in REGISTERS:
        readings = bus.read(register)
        if readings.failed:
            why = listed(readings.failed)
            raise RobotError(f"calibration of the servos on {bus.port} cannot be read: {why}")
        found[register] = readings.values
    return found


def apply(bus: ServoBus, calibration: Calibration) -> None:
    """Write a calibration to the servos, where it stays without power, and read it back. Switches torque off.

    Raises RobotError, naming every motor and register that did not take it.
    """
    orders = [("Torque_Enable", dict.fromkeys(calibration, 0))]
    if bus.protocol == "feetech":
        orders.append(("Lock", dict.fromkeys(calibration, 0)))
    for register in REGISTERS:
        orders.append((register, {name: _values(joint)[register] for name, joint in calibration.items()}))
    if bus.protocol == "feetech":
        orders.append(("Lock", dict.fromkeys(calibration, 1)))
    failed = [f"{name}: {why}" for register, values in orders for name, why in bus.write_each(register, values).items()]
    failed = failed or differences(calibration, read_registers(bus))
    if failed:
        raise RobotError(f"calibration was not taken by the servos on {bus.port}: {'; '.join(failed)}")


def _values(joint: JointCalibration) -> dict[str, int]:
    return dict(zip(REGISTERS, (joint.homing_offset, joint.range_min, joint.range_max), strict=True))
