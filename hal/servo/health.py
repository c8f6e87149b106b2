"""A servo's health from its registers and error flags: counts to volts, amperes and degrees, bits to words."""

from __future__ import annotations

from collections.abc import Mapping

from tactus.hal.hardware import Health
from tactus.hal.servo.registers import MODELS

HEALTH_REGISTERS: Mapping[str, tuple[str, ...]] = {
    "feetech": ("Present_Voltage", "Present_Temperature", "Present_Current", "Present_Load", "Torque_Enable"),
    "dynamixel": (
        "Present_Input_Voltage",
        "Present_Temperature",
        "Present_Current",
        "Torque_Enable",
        "Hardware_Error_Status",
    ),
}
"""By protocol: what `decode_health` reads."""
FEETECH_ERRORS = {
    0x01: "input voltage out of range",
    0x02: "position sensor fault",
    0x04: "overheated",
    0x08: "overcurrent",
    0x20: "overload",
}
"""Bits of the error byte of a status packet and of the register Status (Feetech's STS memory table, address 65)."""
HARDWARE_ERRORS = {
    0x01: "input voltage out of range",
    0x04: "overheated",
    0x08: "encoder fault",
    0x10: "electrical shock or too little power",
    0x20: "overload",
}
"""Bits of Dynamixel's Hardware_Error_Status, register 70; those that are set in Shutdown also switch the torque off
until a reboot."""


def decode_health(model: str, values: Mapping[str, int], error: str = "") -> Health:
    """A motor's health from its registers; what was not read is None. error: its error flags in words."""
    voltage = values.get("Present_Voltage", values.get("Present_Input_Voltage"))
    current, load, milli = values.get("Present_Current"), values.get("Present_Load"), MODELS[model].current_ma
    if milli is None:  # XL430 and XC430 have their load, in 0.1 % of full torque, at the same address
        current, load = None, current if load is None else load
    torque = values.get("Torque_Enable")
    status = values.get("Hardware_Error_Status", 0)
    return Health(
        temperature_c=_float(values.get("Present_Temperature")),
        voltage_v=None if voltage is None else voltage / 10,
        current_a=None if current is None or milli is None else current * milli / 1000,
        load=None if load is None else load / 1000,
        torque_on=None if torque is None else bool(torque),
        error=named_bits(status & sum(HARDWARE_ERRORS), HARDWARE_ERRORS) or error,
    )


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)


def named_bits(flags: int, names: Mapping[int, str]) -> str:
    """The bits of `flags` in words, unknown ones as a number."""
    unknown = flags & ~sum(names)
    return ", ".join(
        [name for bit, name in names.items() if flags & bit] + [f"unknown flags {unknown:#x}"] * (unknown > 0)
    )
