"""Facts about an arm for diagnosis: which motors answer, their registers, how fast they are read. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tactus.hal.arm import ArmConfig
from tactus.hal.arm.joints import Joint
from tactus.hal.diagnostics.scan import Group, discover, who_answers
from tactus.hal.governor.config import GovernorConfig
from tactus.hal.robot import RobotError
from tactus.hal.servo.bus import BusError
from tactus.hal.servo.calibration import REGISTERS, Calibration, check_replaceable, load
from tactus.hal.servo.dynamixel import DynamixelBus
from tactus.hal.servo.registers import TABLES, Protocol
from tactus.hal.servo.serial_bus import SerialBus

READS = 200
COMMON = (
    *REGISTERS,
    "Present_Position",
    "Present_Temperature",
    "Torque_Enable",
    "Return_Delay_Time",
    "Min_Voltage_Limit",
    "Max_Voltage_Limit",
)
ASKED: Mapping[Protocol, tuple[str, ...]] = {
    "feetech": (*COMMON, "Present_Voltage", "Max_Temperature_Limit", "Status"),
    "dynamixel": (*COMMON, "Present_Input_Voltage", "Temperature_Limit", "Hardware_Error_Status"),
}
"""Registers that are looked at."""


@dataclass(frozen=True)
class ArmFacts:
    """What was measured of one arm.

    answering: id -> model number, at the configured baud rate. elsewhere: motors that answer otherwise, if none does
    there. trouble: what `ServoBus.check` complains about. registers: register -> joint -> value, of joints that answer.
    errors: a motor's error flags, named. calibration: None with the reason in no_calibration. calibration_kept: there
    is a file that must not be written over. read_ms: what each of READS sync reads took. retries, failures: of those
    reads, over all motors.
    """

    protocol: Protocol
    port: str
    baudrate: int
    joints: Mapping[str, Joint]
    answering: Mapping[int, int] = field(default_factory=dict)
    elsewhere: tuple[Group, ...] = ()
    trouble: str = ""
    warnings: tuple[str, ...] = ()
    firmware: Mapping[str, str] = field(default_factory=dict)
    registers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    no_calibration: str = ""
    calibration_path: str = ""
    calibration_kept: bool = False
    read_ms: tuple[float, ...] = ()
    retries: int = 0
    failures: int = 0
    governor: GovernorConfig = field(default_factory=GovernorConfig)

    def values(self, *registers: str) -> dict[str, int]:
        """Joint -> value of the first of these registers that was read."""
        return dict(next((self.registers[name] for name in registers if name in self.registers), {}))

    @property
    def write_ms(self) -> float:
        """What a sync write of goals keeps the line busy; nobody answers it, so it is reckoned, not measured."""
        size = TABLES[self.protocol]["Goal_Position"].size
        packet = {"feetech": 8, "dynamixel": 14}[self.protocol] + len(self.joints) * (1 + size)
        return packet * 10_000 / self.baudrate

    @property
    def busy_ms(self) -> float:
        """Bus time a tick: the read's 95th percentile and the write."""
        return float(np.percentile(self.read_ms, 95)) + self.write_ms if self.read_ms else 0.0


def measure_arm(config: ArmConfig, reads: int = READS) -> ArmFacts:
    """Read everything that there is to know. Raises RobotError if the port cannot be opened or is lost, or the joint
    table is none."""
    bus = config.make_bus()
    about: dict = _calibration(config, bus)
    with bus:
        answering = who_answers(bus.wire)
        for motor in bus.motors.values():  # a broadcast ping may have been garbled
            if motor.id not in answering and (number := bus.ping(motor.id)) is not None:
                answering[motor.id] = number
        about["answering"] = dict(sorted(answering.items()))
        if not {motor.id for motor in bus.motors.values()} & set(answering):
            about["elsewhere"] = () if answering else None
        try:
            bus.check()
        except BusError as error:
            about["trouble"] = str(error)
        about["warnings"] = tuple(line for line in bus.warnings() if line.startswith("Fast Sync Read"))
        present = [name for name, motor in bus.motors.items() if motor.id in answering]
        if present:
            about |= _ask(bus, present) | _time(bus, present, reads)
    if about.get("elsewhere", ()) is None:
        about["elsewhere"] = tuple(_elsewhere(config))
    return ArmFacts(bus.protocol, bus.port, bus.baudrate, config.joints, governor=config.governor, **about)


def _calibration(config: ArmConfig, bus: SerialBus) -> dict:
    about: dict = {}
    try:
        path = config.calibration_file()
        about["calibration_path"], about["calibration_kept"] = str(path), True
        check_replaceable(path, bus.motors)
        about["calibration_kept"] = False
        about["calibration"] = load(path, bus.motors)
    except RobotError as error:
        about["no_calibration"] = str(error)
    return about


def _ask(bus: SerialBus, present: list[str]) -> dict:
    registers, errors = {}, {}
    for register in ASKED[bus.protocol]:
        readings = bus.read(register, present)
        registers[register] = dict(readings.values)
        for name, flags in readings.errors.items():
            errors[name] = bus.describe_error(flags)
    if isinstance(bus, DynamixelBus):
        for name, status in registers["Hardware_Error_Status"].items():
            if status:
                errors[name] = bus.describe_hardware_error(status)
    firmware = {name: version for name, version in bus.read_firmware().items() if name in present}
    return {"registers": registers, "errors": errors, "firmware": firmware}


def _time(bus: SerialBus, present: list[str], reads: int) -> dict:
    before = [(c.retries, c.failures) for c in bus.counters.values()]
    read_ms = []
    for _ in range(reads):
        started_s = time.perf_counter()
        bus.read("Present_Position", present)
        read_ms.append((time.perf_counter() - started_s) * 1000)
    after = [(c.retries, c.failures) for c in bus.counters.values()]
    retries, failures = (sum(row[i] for row in after) - sum(row[i] for row in before) for i in (0, 1))
    return {"read_ms": tuple(read_ms), "retries": retries, "failures": failures}


def _elsewhere(config: ArmConfig) -> list[Group]:
    """The first group that answers: at another baud rate of its protocol, or in the other protocol."""
    own, other = ("feetech", "dynamixel") if config.bus == "feetech" else ("dynamixel", "feetech")
    found = next(discover(str(config.port), (own, other)), None)
    return [found] if found else []
