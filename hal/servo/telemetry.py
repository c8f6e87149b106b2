"""What servos say of themselves, from counts to volts, amperes and degrees."""

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
HARDWARE_ERRORS = {
    0: "input voltage",
    2: "overheating",
    3: "motor encoder",
    4: "electrical shock",
    5: "overload",
}
"""Bits of Dynamixel's Hardware Error Status, register 70."""


def decode_health(model: str, values: Mapping[str, int], error: str = "") -> Health:
    """A motor's health from its registers; what was not read is None. error: its error flags in words."""
    voltage = values.get("Present_Voltage", values.get("Present_Input_Voltage"))
    current, load, milli = values.get("Present_Current"), values.get("Present_Load"), MODELS[model].current_ma
    if milli is None:  # XL430 and XC430 have their load, in 0.1 % of full torque, at the same address
        current, load = None, current if load is None else load
    torque = values.get("Torque_Enable")
    status = values.get("Hardware_Error_Status", 0)
    words = [name for bit, name in HARDWARE_ERRORS.items() if status & 1 << bit]
    return Health(
        temperature_c=_float(values.get("Present_Temperature")),
        voltage_v=None if voltage is None else voltage / 10,
        current_a=None if current is None or milli is None else current * milli / 1000,
        load=None if load is None else load / 1000,
        torque_on=None if torque is None else bool(torque),
        error=", ".join(words) or error,
    )


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)
