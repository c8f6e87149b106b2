"""Dynamixel X-series servos (Koch and ALOHA arms) on dynamixel-sdk, Protocol 2.0."""

from __future__ import annotations

from collections.abc import Mapping

import dynamixel_sdk as sdk

from tactus.hal.servo.bus import Motor
from tactus.hal.servo.health import HARDWARE_ERRORS, named_bits
from tactus.hal.servo.packets import DynamixelParser, Parser
from tactus.hal.servo.port import SelectPort
from tactus.hal.servo.registers import Register
from tactus.hal.servo.serial_bus import SerialBus
from tactus.hal.servo.transactions import GARBLED, Answers, Wire

ALERT = 0x80
"""The bit of the error byte that says: look at Hardware_Error_Status. The request was carried out all the same."""

REFUSALS = {
    1: "could not be processed",
    2: "unknown instruction",
    3: GARBLED,
    4: "value out of range",
    5: "wrong length",
    6: "value beyond the limit that another register sets",
    7: "register not accessible: read-only, locked while torque is on, or Bus_Watchdog has tripped",
}
"""Error numbers of a status packet (emanual.robotis.com/docs/en/dxl/protocol2)."""


class DynamixelPort(SelectPort, sdk.PortHandler):
    """dynamixel-sdk's port with select()-based reads."""


class DynamixelWire(Wire):
    """Protocol 2.0. fast: whether several motors are read with Fast Sync Read, all of them in one packet."""

    protocol = "dynamixel"
    overhead = 11

    def __init__(self, port: str, latency_ms: float) -> None:
        super().__init__(DynamixelPort(port), sdk.PacketHandler(2.0), latency_ms)
        self.fast = False

    def make_parser(self, longest: int) -> Parser:
        return DynamixelParser(longest)

    def ping_packet(self, motor_id: int) -> list[int]:
        return [0, 0, 0, 0, motor_id, 3, 0, sdk.INST_PING, 0, 0]

    def refusal(self, error: int) -> str:
        number = error & ~ALERT
        return REFUSALS.get(number, f"error {number}") if number else ""

    def sync_read(self, entry: Register, ids: list[int]) -> Answers:
        address, size, part = self._padded(entry)
        parser = DynamixelParser(size, fast=(size, ids)) if self.fast else None

        def send() -> int:
            return self.sdk.syncReadTx(self.handler, address, size, ids, len(ids), self.fast)

        return self.exchange(send, ids, size, part, parser)


class DynamixelBus(SerialBus):
    """Dynamixel X-series servos.

    latency_ms: how long the adapter may keep a byte to itself. fast: use Fast Sync Read from `check` on, if that finds
    that every motor's firmware knows it; if not, plain Sync Read stays in use and a warning says so.
    """

    protocol = "dynamixel"

    def __init__(
        self,
        port: str,
        motors: Mapping[str, Motor],
        baudrate: int = 1_000_000,
        latency_ms: float = 16.0,
        fast: bool = True,
    ) -> None:
        self._wire = DynamixelWire(port, latency_ms)
        super().__init__(self._wire, motors, baudrate)
        self._wants_fast = fast

    @property
    def fast(self) -> bool:
        """Whether Fast Sync Read is in use."""
        return self._wire.fast

    def check(self) -> None:
        with self._lock:
            self._wire.fast = False
            super().check()
            if not self._wants_fast:
                return
            self._wire.fast = True
            answers = self._wire.sync_read(self._register("Model_Number"), self._ids).by_id
            if silent := [name for name, motor in self.motors.items() if motor.id not in answers]:
                self._wire.fast = False
                self._warnings.append(
                    f"Fast Sync Read brings no answer from {', '.join(silent)}: plain Sync Read is used; update the "
                    "firmware to have it"
                )

    def describe_error(self, flags: int) -> str:
        refusal = self._wire.refusal(flags)
        return ", ".join(
            [refusal] * bool(refusal) + ["hardware alert (see Hardware_Error_Status)"] * bool(flags & ALERT)
        )

    def describe_hardware_error(self, status: int) -> str:
        """The names of the bits of Hardware_Error_Status."""
        return named_bits(status, HARDWARE_ERRORS)

    def read_firmware(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.read("Firmware_Version").values.items()}
