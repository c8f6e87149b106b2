"""Settings that a joint table asks of its servos: checked beforehand, compared, and written where they differ."""

from __future__ import annotations

from collections.abc import Mapping

from tactus.hal.arm.joints import Joint
from tactus.hal.robot import RobotError
from tactus.hal.servo.bus import BusError, ServoBus, listed
from tactus.hal.servo.registers import MODELS, TABLES

NOT_SETTINGS = frozenset(
    {
        *("ID", "Baud_Rate", "Secondary_ID", "Protocol_Type", "Response_Status_Level", "Status_Return_Level"),
        *("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit"),
        *("Torque_Enable", "Lock", "Bus_Watchdog", "Goal_Position", "Goal_Position_2", "Goal_Time", "Goal_Velocity"),
        *("Goal_PWM", "Goal_Current"),
        *("Firmware_Major_Version", "Firmware_Minor_Version", "Firmware_Version", "Model_Number", "Model_Information"),
        *("Status", "Moving", "Moving_Status", "Registered_Instruction", "Hardware_Error_Status", "Realtime_Tick"),
        *("Velocity_Trajectory", "Position_Trajectory"),
    }
)
"""What a table may not set: who a servo is, its calibration, what makes it move, and what it only tells."""


def check(joints: Mapping[str, Joint]) -> None:
    """Raises RobotError naming the entry: no such register on this model, not a setting, or a value that does not
    fit. Joints of unknown models are left to the bus to complain of."""
    for name, joint in joints.items():
        if joint.model not in MODELS:
            continue
        protocol = MODELS[joint.model].protocol
        for register, value in joint.registers.items():
            key = f"robot.joints.{name}.registers.{register}"
            entry = TABLES[protocol].get(register)
            if entry is None or register in NOT_SETTINGS or register.startswith("Present_"):
                accepted = [r for r in TABLES[protocol] if r not in NOT_SETTINGS and not r.startswith("Present_")]
                what = f"no register of a {joint.model}" if entry is None else "not a setting"
                raise RobotError(f"{key}: {what}; accepted: {', '.join(accepted)}")
            if not entry.low <= value <= entry.high:
                raise RobotError(f"{key}: found {value}; it holds {entry.low} to {entry.high}")


def configure(bus: ServoBus, joints: Mapping[str, Joint], write: bool = True) -> list[str]:
    """Make the servos' settings those of the table; torque is off. Only what differs is written: permanent memory
    wears out. One register after the other, because a new Operating_Mode resets others.

    write: false only compares. Returns what differed, one line a register. Raises BusError naming the motors.
    """
    found = []
    for register in dict.fromkeys(key for joint in joints.values() for key in joint.registers):
        wanted = {name: j.registers[register] for name, j in joints.items() if register in j.registers}
        held = bus.read(register, wanted).of_all(register)
        differing = {name: value for name, value in wanted.items() if held[name] != value}
        if differing:
            changes = (f"{name} {held[name]}, wanted {value}" for name, value in differing.items())
            found.append(f"{register}: {'; '.join(changes)}")
        if write and (failed := bus.write_each(register, differing)):
            raise BusError(f"{register} could not be set: {listed(failed)}")
    return found
