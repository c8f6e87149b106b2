"""What servos say of themselves, from counts to volts, amperes and degrees."""

from __future__ import annotations

from collections.abc import Mapping

from hal.hardware import Health

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
CURRENT_A: Mapping[str, float] = {
    "sts3215": 0.0065,
    "sts3250": 0.0065,
    "xl330-m077": 0.001,
    "xl330-m288": 0.001,
    "xc330-t181": 0.001,
    "xc330-t288": 0.001,
    "xm430-w350": 0.00269,
    "xm540-w270": 0.00269,
    "xh540-w150": 0.00269,
}
"""Amperes per count of Present_Current, from the makers' control tables. XL430 and XC430 measure load instead."""
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
    current, load = values.get("Present_Current"), values.get("Present_Load")
    if model in ("xl430-w250", "xc430-w150"):  # the same address, in 0.1 % of full torque
        current, load = None, current
    torque = values.get("Torque_Enable")
    status = values.get("Hardware_Error_Status", 0)
    words = [name for bit, name in HARDWARE_ERRORS.items() if status & 1 << bit]
    return Health(
        temperature_c=_float(values.get("Present_Temperature")),
        voltage_v=None if voltage is None else voltage / 10,
        current_a=None if current is None or model not in CURRENT_A else current * CURRENT_A[model],
        load=None if load is None else load / 1000,
        torque_on=None if torque is None else bool(torque),
        error=", ".join(words) or error,
    )


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)
