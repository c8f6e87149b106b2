"""Find the motors on a port, of either protocol: pings at every baud rate that servos can be set to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tactus.hal.diagnostics.finding import Finding
from tactus.hal.servo.dynamixel import DynamixelWire
from tactus.hal.servo.feetech import FeetechWire
from tactus.hal.servo.packets import BROADCAST
from tactus.hal.servo.registers import TABLES, Protocol, model_named
from tactus.hal.servo.serial_bus import SCAN_S
from tactus.hal.servo.transactions import Wire

USUAL: Mapping[Protocol, tuple[int, ...]] = {
    "feetech": (1_000_000, 500_000, 115_200, 57_600, 250_000, 128_000, 38_400, 19_200),
    "dynamixel": (1_000_000, 57_600, 2_000_000, 3_000_000, 4_000_000, 115_200, 9_600),
}
"""The likely ones first."""
WIRES: Mapping[Protocol, type[FeetechWire] | type[DynamixelWire]] = {
    "feetech": FeetechWire,
    "dynamixel": DynamixelWire,
}
LATENCY_MS = 16.0


@dataclass(frozen=True)
class Group:
    """Motors that answer at one baud rate: id -> model number."""

    protocol: Protocol
    baudrate: int
    motors: Mapping[int, int]

    def __str__(self) -> str:
        return f"{self.protocol} at {self.baudrate} baud: {self.named()}"

    def named(self) -> str:
        """As text: ids 1, 2 (sts3215), 3 (sts3250)."""
        models: dict[str, list[str]] = {}
        for motor_id, number in self.motors.items():
            models.setdefault(model_named(number), []).append(str(motor_id))
        return f"ids {', '.join(f'{", ".join(ids)} ({model})' for model, ids in models.items())}"


def discover(port: str, protocols: tuple[Protocol, ...] = ("feetech", "dynamixel")) -> Iterator[Group]:
    """Every group of motors on the port, as they are found; about a second a baud rate.

    Raises BusError if the port cannot be opened. Only pings and reads are sent.
    """
    for protocol in protocols:
        wire = WIRES[protocol](port, LATENCY_MS)
        wire.open(USUAL[protocol][0])
        try:
            for baudrate in USUAL[protocol]:
                if wire.retune(baudrate) and (motors := who_answers(wire)):
                    yield Group(protocol, baudrate, motors)
        finally:
            wire.close()


def who_answers(wire: Wire) -> dict[int, int]:
    """id -> model number of all that answer at the wire's baud rate; -1 for a motor that does not tell its model."""
    found, _ = wire.listen(BROADCAST, SCAN_S)
    entry = TABLES[wire.protocol]["Model_Number"]
    motors = {}
    for motor_id in sorted({status.id for status in found}):
        answers = wire.read(entry, motor_id)
        motors[motor_id] = answers.value(entry, motor_id) if motor_id in answers.by_id else -1
    return motors


Kinds = Mapping[str, tuple[str, Mapping[int, str]]]
"""robot.type -> protocol, and models by id."""


def diagnose_scan(port: str, groups: list[Group], kinds: Kinds) -> list[Finding]:
    """What was found on a port, and the keys for it."""
    if not groups:
        fix = "is the motors' power on, and the cable to the first motor plugged in?"
        return [Finding(port, "scan", "note", "no motor answers, at no baud rate, in no protocol", "", fix)]
    findings = []
    for group in groups:
        models = {motor_id: model_named(number) for motor_id, number in group.motors.items()}
        fitting = [kind for kind, wanted in kinds.items() if wanted == (group.protocol, models)]
        keys = f"--robot.port={port} --robot.baudrate={group.baudrate}"
        fix = f"--robot.type={' or '.join(fitting)} {keys}" if fitting else f"a joint table (docs/arms.md), {keys}"
        findings.append(Finding(port, "scan", "ok", str(group), "", fix))
    if len(groups) > 1:
        fix = "set them all to one Baud_Rate: a bus has one"
        findings.append(Finding(port, "scan", "fault", "motors at different baud rates", "one", fix))
    return findings
