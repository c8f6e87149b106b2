"""The steps of calibrating an arm, as LeRobot does it; `tactus calibrate` calls them and asks the person to move it."""

from __future__ import annotations

from collections.abc import Mapping

from tactus.hal.arm.joints import Joint
from tactus.hal.robot import RobotError
from tactus.hal.servo.bus import BusError, ServoBus, listed
from tactus.hal.servo.calibration import REGISTERS, JointCalibration, apply, half_turn_homing
from tactus.hal.servo.registers import MODELS, TABLES

LEAST_TRAVEL = 100
"""A joint that moved through fewer counts than this (9 degrees) was not moved through its range."""


class CalibrationProcedure:
    """Calibrates one arm: release, home, observe (again and again), result, store; undo instead of store gives up.

    The bus is open and checked. Torque is off from `release` on. All raise BusError, naming the motors, where the bus
    fails.
    """

    def __init__(self, bus: ServoBus, joints: Mapping[str, Joint]) -> None:
        self._bus = bus
        self._joints = joints
        self._before: dict[str, dict[str, int]] = {}
        self._homing: dict[str, int] = {}
        self._least: dict[str, int] = {}
        self._most: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._wrapped: dict[str, None] = {}

    def release(self) -> None:
        """Torque off, so that the arm can be moved by hand."""
        self._write("Torque_Enable", dict.fromkeys(self._joints, 0))
        if self._bus.protocol == "feetech":
            self._write("Lock", dict.fromkeys(self._joints, 0))
        for register in ("Operating_Mode", "Drive_Mode"):  # what counts depend on
            if modes := {name: j.registers[register] for name, j in self._joints.items() if register in j.registers}:
                self._write(register, modes)

    def home(self) -> None:
        """Where each joint is now becomes the middle of its turn, count 2047."""
        self._before = {register: self._read(register) for register in REGISTERS}
        self._write("Homing_Offset", dict.fromkeys(self._joints, 0))
        self._write("Min_Position_Limit", dict.fromkeys(self._joints, 0))
        self._write("Max_Position_Limit", {name: self._full(name) for name in self._joints})
        for name, raw in self.positions().items():
            protocol = MODELS[self._joints[name].model].protocol
            offset = half_turn_homing(raw, protocol, self._full(name) + 1)
            # an STS3215's register ends one count short of half a turn
            self._homing[name] = min(offset, TABLES[protocol]["Homing_Offset"].high)
        self._write("Homing_Offset", self._homing)
        self._least = self.positions()
        self._most, self._last = dict(self._least), dict(self._least)

    def observe(self) -> dict[str, tuple[int, int, int]]:
        """Least, present and greatest count of each joint since `home`."""
        found = self.positions()
        for name, raw in found.items():
            self._least[name], self._most[name] = min(self._least[name], raw), max(self._most[name], raw)
            if abs(raw - self._last[name]) > self._full(name) / 2 and not self._joints[name].full_turn:
                self._wrapped[name] = None
        self._last = found
        return {name: (self._least[name], raw, self._most[name]) for name, raw in found.items()}

    def result(self) -> dict[str, JointCalibration]:
        """Raises RobotError for joints that hardly moved, or moved past the end of the turn; names them."""
        if self._wrapped:
            raise RobotError(
                f"{', '.join(self._wrapped)} went past the end of the turn, where counts begin again: it was not near "
                "the middle of its range when that was asked for. Calibrate again"
            )
        calibration = {}
        for name, joint in self._joints.items():
            ends = (0, self._full(name)) if joint.full_turn else (self._least[name], self._most[name])
            inverted = joint.registers.get("Drive_Mode", 0) & 1
            calibration[name] = JointCalibration(joint.id, inverted, self._homing[name], *ends)
        still = [name for name, c in calibration.items() if c.range_max - c.range_min < LEAST_TRAVEL]
        if still:
            raise RobotError(f"{', '.join(still)} hardly moved; move every joint from stop to stop")
        return calibration

    def check_moved(self, wanted: str, before: Mapping[str, int]) -> None:
        """A person was asked to move `wanted`, the way it counts up if the joint table says which that is.

        Raises RobotError: another one moved, the wrong way, or none.
        """
        travel = {name: _shorter(raw - before[name], self._full(name) + 1) for name, raw in self.positions().items()}
        most = max(travel, key=lambda name: abs(travel[name]))
        if abs(travel[most]) < LEAST_TRAVEL / 2:
            raise RobotError(f"{wanted}: nothing moved")
        if most != wanted:
            raise RobotError(
                f"{wanted} was to be moved, and {most} (id {self._joints[most].id}) turned: their ids are "
                "exchanged; correct robot.joints, or the ids"
            )
        if travel[wanted] < 0 and self._joints[wanted].positive:
            raise RobotError(
                f"{wanted} counts down where it should count up ({self._joints[wanted].positive}): its servo or "
                "horn is the other way round than on the arms that policies are trained on"
            )

    def store(self, calibration: Mapping[str, JointCalibration]) -> None:
        """Write it to the servos, where it stays without power."""
        apply(self._bus, calibration)

    def undo(self) -> None:
        """Give the servos back the calibration that they held; torque stays off."""
        for register, values in self._before.items():
            self._write(register, values)
        if self._bus.protocol == "feetech":
            self._write("Lock", dict.fromkeys(self._joints, 1))

    def positions(self) -> dict[str, int]:
        """Present counts of all joints."""
        return self._read("Present_Position")

    def _read(self, register: str) -> dict[str, int]:
        readings = self._bus.read(register, retries=5)
        if readings.failed:
            raise BusError(listed(readings.failed))
        return {name: readings.values[name] for name in self._joints}

    def _full(self, name: str) -> int:
        return MODELS[self._joints[name].model].resolution - 1

    def _write(self, register: str, values: Mapping[str, int]) -> None:
        if failed := self._bus.write_each(register, values):
            raise BusError(listed(failed))


def _shorter(travel: int, turn: int) -> int:
    """The way round that is shorter: a joint that turns freely may have passed the turn's end."""
    return (travel + turn // 2) % turn - turn // 2
