"""Control tables as plain data: where a register lies, how wide it is, and how it counts below zero.

Names are LeRobot's, so that calibrations and habits carry over. Sources: Feetech's STS/SMS memory table
(doc.feetech.cn, "STS series memory table") and ROBOTIS' e-Manual (emanual.robotis.com/docs/en/dxl/x/<model>).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["feetech", "dynamixel"]
Units = Literal["degrees", "range_m100_100", "range_0_100"]
"""How a joint's position is told, by LeRobot's names. degrees: 0 in the middle of its range. range_…: its range,
stretched to that."""


@dataclass(frozen=True)
class Register:
    """`size` bytes, little-endian, from `address`.

    sign: None for unsigned; "twos" for two's complement; n for sign and magnitude with the sign in bit n.
    """

    address: int
    size: int
    sign: int | Literal["twos"] | None = None

    @property
    def low(self) -> int:
        """The least value it can hold."""
        if self.sign is None:
            return 0
        return -(1 << (8 * self.size - 1)) if self.sign == "twos" else 1 - (1 << self.sign)

    @property
    def high(self) -> int:
        """The greatest value it can hold."""
        if self.sign is None:
            return (1 << 8 * self.size) - 1
        return (1 << (8 * self.size - 1)) - 1 if self.sign == "twos" else (1 << self.sign) - 1

    def encode(self, value: int) -> list[int]:
        """Its bytes. Raises ValueError if it does not fit."""
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} does not fit a register of {self.low} to {self.high}")
        if isinstance(self.sign, int) and value < 0:
            value = -value | 1 << self.sign
        return list(value.to_bytes(self.size, "little", signed=self.sign == "twos"))

    def decode(self, data: bytes) -> int:
        """The value of `size` bytes."""
        value = int.from_bytes(data, "little", signed=self.sign == "twos")
        if isinstance(self.sign, int):
            magnitude = value & ((1 << self.sign) - 1)
            return -magnitude if value >> self.sign & 1 else magnitude
        return value


@dataclass(frozen=True)
class Model:
    """What a model is: the number it gives itself, its counts per turn, and its current's unit.

    current_ma: mA per count of Present_Current; None if it measures load instead, or not at all.
    """

    number: int
    protocol: Protocol
    resolution: int = 4096
    current_ma: float | None = None


FEETECH: Mapping[str, Register] = {
    # kept without power; writable while Lock is 0
    "Firmware_Major_Version": Register(0, 1),
    "Firmware_Minor_Version": Register(1, 1),
    "Model_Number": Register(3, 2),
    "ID": Register(5, 1),
    "Baud_Rate": Register(6, 1),
    "Return_Delay_Time": Register(7, 1),
    "Response_Status_Level": Register(8, 1),
    "Min_Position_Limit": Register(9, 2),
    "Max_Position_Limit": Register(11, 2),
    "Max_Temperature_Limit": Register(13, 1),
    "Max_Voltage_Limit": Register(14, 1),
    "Min_Voltage_Limit": Register(15, 1),
    "Max_Torque_Limit": Register(16, 2),
    "Phase": Register(18, 1),
    "Unloading_Condition": Register(19, 1),
    "LED_Alarm_Condition": Register(20, 1),
    "P_Coefficient": Register(21, 1),
    "D_Coefficient": Register(22, 1),
    "I_Coefficient": Register(23, 1),
    "Minimum_Startup_Force": Register(24, 2),
    "CW_Dead_Zone": Register(26, 1),
    "CCW_Dead_Zone": Register(27, 1),
    "Protection_Current": Register(28, 2),
    "Angular_Resolution": Register(30, 1),
    "Homing_Offset": Register(31, 2, sign=11),
    "Operating_Mode": Register(33, 1),
    "Protective_Torque": Register(34, 1),
    "Protection_Time": Register(35, 1),
    "Overload_Torque": Register(36, 1),
    "Velocity_closed_loop_P_proportional_coefficient": Register(37, 1),
    "Over_Current_Protection_Time": Register(38, 1),
    "Velocity_closed_loop_I_integral_coefficient": Register(39, 1),
    # lost without power
    "Torque_Enable": Register(40, 1),
    "Acceleration": Register(41, 1),
    "Goal_Position": Register(42, 2, sign=15),
    "Goal_Time": Register(44, 2),
    "Goal_Velocity": Register(46, 2, sign=15),
    "Torque_Limit": Register(48, 2),
    "Lock": Register(55, 1),
    "Present_Position": Register(56, 2, sign=15),
    "Present_Velocity": Register(58, 2, sign=15),
    "Present_Load": Register(60, 2, sign=10),
    "Present_Voltage": Register(62, 1),
    "Present_Temperature": Register(63, 1),
    "Status": Register(65, 1),
    "Moving": Register(66, 1),
    "Present_Current": Register(69, 2, sign=15),
    "Goal_Position_2": Register(71, 2),
    # the factory's own
    "Moving_Velocity": Register(80, 1),
    "Moving_Velocity_Threshold": Register(80, 1),
    "DTs": Register(81, 1),
    "Velocity_Unit_factor": Register(82, 1),
    "Hts": Register(83, 1),
    "Maximum_Velocity_Limit": Register(84, 1),
    "Maximum_Acceleration": Register(85, 1),
    "Acceleration_Multiplier": Register(86, 1),
}
"""STS and SMS series. Voltages in 0.1 V, temperatures in °C, load and torque limits in 0.1 % of full torque."""

DYNAMIXEL: Mapping[str, Register] = {
    # kept without power; writable while Torque_Enable is 0
    "Model_Number": Register(0, 2),
    "Model_Information": Register(2, 4),
    "Firmware_Version": Register(6, 1),
    "ID": Register(7, 1),
    "Baud_Rate": Register(8, 1),
    "Return_Delay_Time": Register(9, 1),
    "Drive_Mode": Register(10, 1),
    "Operating_Mode": Register(11, 1),
    "Secondary_ID": Register(12, 1),
    "Protocol_Type": Register(13, 1),
    "Homing_Offset": Register(20, 4, sign="twos"),
    "Moving_Threshold": Register(24, 4),
    "Temperature_Limit": Register(31, 1),
    "Max_Voltage_Limit": Register(32, 2),
    "Min_Voltage_Limit": Register(34, 2),
    "PWM_Limit": Register(36, 2),
    "Current_Limit": Register(38, 2),
    "Acceleration_Limit": Register(40, 4),
    "Velocity_Limit": Register(44, 4),
    "Max_Position_Limit": Register(48, 4),
    "Min_Position_Limit": Register(52, 4),
    "Shutdown": Register(63, 1),
    # lost without power
    "Torque_Enable": Register(64, 1),
    "LED": Register(65, 1),
    "Status_Return_Level": Register(68, 1),
    "Registered_Instruction": Register(69, 1),
    "Hardware_Error_Status": Register(70, 1),
    "Velocity_I_Gain": Register(76, 2),
    "Velocity_P_Gain": Register(78, 2),
    "Position_D_Gain": Register(80, 2),
    "Position_I_Gain": Register(82, 2),
    "Position_P_Gain": Register(84, 2),
    "Feedforward_2nd_Gain": Register(88, 2),
    "Feedforward_1st_Gain": Register(90, 2),
    "Bus_Watchdog": Register(98, 1),
    "Goal_PWM": Register(100, 2, sign="twos"),
    "Goal_Current": Register(102, 2, sign="twos"),
    "Goal_Velocity": Register(104, 4, sign="twos"),
    "Profile_Acceleration": Register(108, 4),
    "Profile_Velocity": Register(112, 4),
    "Goal_Position": Register(116, 4, sign="twos"),
    "Realtime_Tick": Register(120, 2),
    "Moving": Register(122, 1),
    "Moving_Status": Register(123, 1),
    "Present_PWM": Register(124, 2, sign="twos"),
    "Present_Current": Register(126, 2, sign="twos"),
    "Present_Velocity": Register(128, 4, sign="twos"),
    "Present_Position": Register(132, 4, sign="twos"),
    "Velocity_Trajectory": Register(136, 4),
    "Position_Trajectory": Register(140, 4),
    "Present_Input_Voltage": Register(144, 2),
    "Present_Temperature": Register(146, 1),
}
"""X series. Voltages in 0.1 V, temperatures in °C, velocity in 0.229 rpm, watchdog in 20 ms. Models without a current
sensor (`Model.current_ma` None: XL430, XC430) have the load there instead, in 0.1 % of full torque."""

TABLES: Mapping[Protocol, Mapping[str, Register]] = {"feetech": FEETECH, "dynamixel": DYNAMIXEL}

MODELS: Mapping[str, Model] = {
    "sts3215": Model(777, "feetech", current_ma=6.5),
    "sts3250": Model(2825, "feetech", current_ma=6.5),
    "sm8512bl": Model(11272, "feetech", current_ma=6.5),
    "xl330-m077": Model(1190, "dynamixel", current_ma=1.0),
    "xl330-m288": Model(1200, "dynamixel", current_ma=1.0),
    "xl430-w250": Model(1060, "dynamixel"),
    "xm430-w350": Model(1020, "dynamixel", current_ma=2.69),
    "xm540-w270": Model(1120, "dynamixel", current_ma=2.69),
    "xc430-w150": Model(1070, "dynamixel"),
    "xh540-w150": Model(1110, "dynamixel", current_ma=2.69),
    "xc330-t288": Model(1220, "dynamixel", current_ma=1.0),
    "xc330-t181": Model(1210, "dynamixel", current_ma=1.0),
}

BAUDRATES: Mapping[Protocol, Mapping[int, int]] = {
    "feetech": {
        1_000_000: 0,
        500_000: 1,
        250_000: 2,
        128_000: 3,
        115_200: 4,
        57_600: 5,
        38_400: 6,
        19_200: 7,
    },
    "dynamixel": {
        9_600: 0,
        57_600: 1,
        115_200: 2,
        1_000_000: 3,
        2_000_000: 4,
        3_000_000: 5,
        4_000_000: 6,
    },
}
"""Baud rates that a servo can be set to, and the code that stands for each in its register Baud_Rate."""


def model_named(number: int) -> str:
    """The name behind a model number ("sts3215" for 777); words for a number that no known model gives itself."""
    return next((name for name, model in MODELS.items() if model.number == number), f"unknown model number {number}")
