"""One emulated arm: six servos on a bus, joints behind them, and the calibration that belongs to them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.servo.calibration import Calibration, JointCalibration, save
from tactus.hal.servo.registers import BAUDRATES
from tactus.hal.twin.bus import EmulatedBus
from tactus.hal.twin.config import JOINTS, MODELS, ArmConfig
from tactus.hal.twin.dynamixel_bus import EmulatedDynamixelBus
from tactus.hal.twin.dynamixel_servo import DynamixelServo
from tactus.hal.twin.faults import CONDITIONS, Fault, Faults
from tactus.hal.twin.feetech_bus import EmulatedFeetechBus
from tactus.hal.twin.feetech_servo import FeetechServo
from tactus.hal.twin.servo import COUNTS_PER_RAD, MIDDLE, Log, Servo, Shaft
from tactus.hal.twin.simulation import Joints

OTHER_MODEL = {"feetech": 2825, "dynamixel": 1190}
"""What a servo with the fault wrong_model calls itself: an STS3250, an XL330-M077."""


class EmulatedArm:
    """One arm. Its servos are set up: ids in order, one baud rate; homed and limited if `calibrated`."""

    def __init__(self, name: str, config: ArmConfig, joints: Joints, faults: Faults, log: Log) -> None:
        self.name, self.config, self.joints = name, config, joints
        self.shafts = [Shaft() for _ in JOINTS]
        self._doubles: dict[int, Servo] = {}
        self.sense()
        self.servos = [self._build(i, self.shafts[i]) for i in range(len(JOINTS))]
        for servo in self.servos:
            servo.log = log
        bus = EmulatedFeetechBus if config.protocol == "feetech" else EmulatedDynamixelBus
        self.bus: EmulatedBus = bus(name, list(self.servos), faults)  # type: ignore[arg-type]

    def _build(self, index: int, shaft: Shaft) -> Servo:
        protocol = self.config.protocol
        assert protocol is not None  # its kind has one
        mount = random.Random(f"{self.name} {index}").randint(-600, 600)  # nobody mounts a horn at the middle
        kind = FeetechServo if protocol == "feetech" else DynamixelServo
        servo = kind(MODELS[protocol][index], index + 1, JOINTS[index], shaft, mount)
        servo.put("Baud_Rate", BAUDRATES[protocol][self.config.baudrate])
        if self.config.calibrated:
            low, high = (round(MIDDLE + limit[index] * COUNTS_PER_RAD) for limit in (self.joints.low, self.joints.high))
            servo.put("Homing_Offset", mount if protocol == "feetech" else -mount)
            servo.put("Min_Position_Limit", max(0, low))
            servo.put("Max_Position_Limit", min(4095, high))
        servo.keep()
        servo.reboot(0.0)
        return servo

    def write_calibration(self, folder: Path) -> Path | None:
        """LeRobot's calibration file of these servos, or None where they are not calibrated."""
        if not self.config.calibrated:
            return None
        file = folder / f"{self.name}.json"
        save(file, self.calibration())
        return file

    def calibration(self) -> Calibration:
        """What the servos hold."""
        return {
            servo.name: JointCalibration(
                servo.id,
                0,
                servo.values["Homing_Offset"],
                servo.values["Min_Position_Limit"],
                servo.values["Max_Position_Limit"],
            )
            for servo in self.servos
        }

    def sense(self) -> None:
        """Give the servos the present position, speed and load of their joints."""
        states = zip(
            self.joints.positions().tolist(),
            self.joints.velocities().tolist(),
            self.joints.loads().tolist(),
            self.shafts,
            strict=True,
        )
        for position, velocity, load, shaft in states:
            shaft.position_rad, shaft.velocity_rad_s, shaft.load = position, velocity, load

    def control(self, now_s: float) -> None:
        """Advance the servos to now, and drive the joints towards their goals."""
        for servo in self.bus.servos:
            servo.tick(now_s)
        shafts = self.shafts
        self.joints.drive(np.array([s.goal_rad for s in shafts]), np.array([s.torque for s in shafts]))

    def set_condition(self, fault: Fault, on: bool) -> None:
        """Begin or end one of CONDITIONS."""
        for servo in self.servos:
            if fault.motor not in (None, servo.id) or fault.kind not in CONDITIONS:
                continue
            (servo.conditions.add if on else servo.conditions.discard)(fault.kind)
            if fault.kind == "wrong_model":
                other = fault.value or OTHER_MODEL[servo.protocol]
                servo.put("Model_Number", other if on else servo.number)
            elif fault.kind == "duplicate_id":
                self._double(servo, on)

    def _double(self, servo: Servo, on: bool) -> None:
        double = self._doubles.pop(id(servo), None)
        if double:
            self.bus.servos.remove(double)  # type: ignore[arg-type]
        if on:
            shaft = Shaft(position_rad=servo.shaft.position_rad + 0.3)
            double = self._doubles[id(servo)] = self._build(self.servos.index(servo), shaft)
            double.put("ID", servo.id)
            self.bus.servos.append(double)  # type: ignore[arg-type]

    def brown_out(self, silent_s: float) -> None:
        """The supply sags: every servo starts again."""
        for servo in self.servos:
            servo.reboot(silent_s)

    def state(self) -> dict[str, Any]:
        """Its part of a report on the twin."""
        for servo in self.servos:
            servo.refresh()
        return {
            "protocol": self.config.protocol,
            "angles_rad": {s.name: s.shaft.position_rad for s in self.servos},
            "torque_on": {s.name: s.values["Torque_Enable"] == 1 for s in self.servos},
            "torque": {s.name: s.shaft.torque for s in self.servos},
            "error": {s.name: s.error for s in self.servos},
            "registers": {s.name: dict(s.values) for s in self.servos},
        }
