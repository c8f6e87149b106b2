"""Feetech STS and SMS servos (SO-100, SO-101) on feetech-servo-sdk."""

from __future__ import annotations

from collections.abc import Mapping

import scservo_sdk as sdk

from tactus.hal.servo.bus import Motor
from tactus.hal.servo.health import FEETECH_ERRORS, named_bits
from tactus.hal.servo.packets import FeetechParser, Parser
from tactus.hal.servo.port import SelectPort
from tactus.hal.servo.serial_bus import SerialBus
from tactus.hal.servo.transactions import Wire


class FeetechPort(SelectPort, sdk.PortHandler):
    """feetech-servo-sdk's port with select()-based reads and an input that is flushed before each request."""


class FeetechWire(Wire):
    """Feetech's protocol, little-endian as the STS and SMS series have it."""

    protocol = "feetech"
    overhead = 6

    def __init__(self, port: str, latency_ms: float) -> None:
        super().__init__(FeetechPort(port), sdk.PacketHandler(0), latency_ms)

    def make_parser(self, longest: int) -> Parser:
        return FeetechParser(longest)

    def ping_packet(self, motor_id: int) -> list[int]:
        return [0, 0, motor_id, 2, sdk.INST_PING, 0]

    def refusal(self, error: int) -> str:
        """The flags tell the motor's condition; a request that is answered at all has been received and carried out."""
        return ""


class FeetechBus(SerialBus):
    """Feetech servos of the STS and SMS series.

    latency_ms: how long the adapter may keep a byte to itself.
    """

    protocol = "feetech"

    def __init__(
        self, port: str, motors: Mapping[str, Motor], baudrate: int = 1_000_000, latency_ms: float = 16.0
    ) -> None:
        super().__init__(FeetechWire(port, latency_ms), motors, baudrate)

    def describe_error(self, flags: int) -> str:
        return named_bits(flags, FEETECH_ERRORS)

    def read_firmware(self) -> dict[str, str]:
        major, minor = self.read("Firmware_Major_Version").values, self.read("Firmware_Minor_Version").values
        return {name: f"{major[name]}.{minor[name]}" for name in self.motors if name in major and name in minor}
