"""An emulated Dynamixel of the X series: its registers, its errors, its watchdog and its shutdown.

Source: emanual.robotis.com/docs/en/dxl/x/xl430-w250 and its siblings.
"""

from __future__ import annotations

import math

from tactus.hal.servo.registers import DYNAMIXEL
from tactus.hal.twin.servo import COUNTS_PER_RAD, MIDDLE, Build, Servo

DATA_RANGE, DATA_LENGTH, DATA_LIMIT, ACCESS = 4, 5, 6, 7
ALERT = 0x80
HARDWARE_VOLTAGE, HARDWARE_OVERHEAT, HARDWARE_OVERLOAD = 0x01, 0x04, 0x20
CURRENT, VELOCITY, POSITION, EXTENDED, CURRENT_POSITION, PWM = 0, 1, 3, 4, 5, 16
TRIPPED = 255
RPM = 0.229 / 60 * 4096
"""Counts/s per count of a velocity register."""
RPM2 = 214.577 / 3600 * 4096
"""Counts/s² per count of Profile_Acceleration."""
OVERLOAD_SHARE, OVERLOAD_S = 0.9, 2.0
"""Load above this share of full torque for so long is an overload; the e-Manual does not give the figures."""

_GAINS_430 = {"Velocity_I_Gain": 1000, "Velocity_P_Gain": 100, "Position_D_Gain": 4000, "Position_P_Gain": 640}
_GAINS_330 = {"Velocity_I_Gain": 1600, "Velocity_P_Gain": 180, "Position_P_Gain": 400}
_XL330 = {
    **_GAINS_330,
    "Temperature_Limit": 70,
    "Max_Voltage_Limit": 70,
    "Min_Voltage_Limit": 35,
    "Current_Limit": 1750,
    "Velocity_Limit": 445,
    "Shutdown": 53,
}
_X430 = {**_GAINS_430, "Max_Voltage_Limit": 140, "Min_Voltage_Limit": 60, "Shutdown": 52}
_XL430 = {**_X430, "Temperature_Limit": 72, "Velocity_Limit": 265}
_XM430 = {
    **_X430,
    "Position_D_Gain": 0,
    "Position_P_Gain": 800,
    "Velocity_I_Gain": 1920,
    "Temperature_Limit": 80,
    "Max_Voltage_Limit": 160,
    "Min_Voltage_Limit": 95,
    "Velocity_Limit": 200,
    "Current_Limit": 1193,
}
_COMMON = {
    "Baud_Rate": 1,
    "Return_Delay_Time": 250,
    "Operating_Mode": POSITION,
    "Secondary_ID": 255,
    "Protocol_Type": 2,
    "Moving_Threshold": 10,
    "PWM_Limit": 885,
    "Max_Position_Limit": 4095,
    "Firmware_Version": 46,
}
BUILDS = {
    "xl430-w250": Build(57 / 60 * 4096, 1300, 119, {**_COMMON, **_XL430}),
    "xl330-m288": Build(103 / 60 * 4096, 1470, 50, {**_COMMON, **_XL330}),
    "xl330-m077": Build(383 / 60 * 4096, 1470, 50, {**_COMMON, **_XL330, "Velocity_Limit": 1620}),
    "xm430-w350": Build(46 / 60 * 4096, 2300, 120, {**_COMMON, **_XM430}),
}

_RANGES = {
    "ID": (0, 252),
    "Baud_Rate": (0, 7),
    "Return_Delay_Time": (0, 254),
    "Homing_Offset": (-1_044_479, 1_044_479),
    "Temperature_Limit": (0, 100),
    "PWM_Limit": (0, 885),
    "Velocity_Limit": (0, 2047),
    "Max_Position_Limit": (0, 4095),
    "Min_Position_Limit": (0, 4095),
    "Torque_Enable": (0, 1),
    "LED": (0, 1),
    "Status_Return_Level": (0, 2),
    "Bus_Watchdog": (0, 127),
    "Profile_Acceleration": (0, 32_767),
    "Profile_Velocity": (0, 32_767),
    **{name: (0, 16_383) for name in (*_GAINS_430, "Position_I_Gain", "Feedforward_1st_Gain", "Feedforward_2nd_Gain")},
}
_GOALS = ("Goal_PWM", "Goal_Current", "Goal_Velocity", "Goal_Position")
_LIMITS = {"Goal_PWM": "PWM_Limit", "Goal_Current": "Current_Limit", "Goal_Velocity": "Velocity_Limit"}
_READ_ONLY = frozenset(
    name
    for name, register in DYNAMIXEL.items()
    if register.address < 7 or register.address in (69, 70) or register.address >= 120
)
_PERSISTENT = frozenset(name for name, register in DYNAMIXEL.items() if register.address < 64)
_CURRENT = ("Goal_Current", "Current_Limit")


class DynamixelServo(Servo):
    """X series. Torque on holds where it stands. In modes 4 and 5 there are no position limits, and turns count."""

    protocol = "dynamixel"
    builds = BUILDS
    persistent = _PERSISTENT
    temperature_limit = "Temperature_Limit"
    _turns = 0
    _fed_s = 0.0

    def power_up(self) -> None:
        for name in (*_GAINS_430, "Position_I_Gain"):
            self.put(name, self.build.factory.get(name, 0))
        self.put("Status_Return_Level", 2)
        self._start_mode()

    @property
    def error(self) -> int:
        """The bit that says: look at Hardware_Error_Status."""
        return ALERT if self.values["Hardware_Error_Status"] else 0

    def feed(self) -> None:
        """Any instruction packet on the bus keeps the watchdog quiet."""
        self._fed_s = self.now_s

    def read(self, address: int, length: int) -> tuple[int, bytes]:
        """Beyond the table there is nothing to read."""
        if not length or address + length > len(self.memory):
            return (DATA_LENGTH if not length else ACCESS), b""
        return super().read(address, length)

    def write(self, address: int, data: bytes) -> int:
        return super().write(address, data) if self.registers(address, len(data)) else ACCESS

    def accept(self, name: str, value: int) -> int:
        values = self.values
        if name in _READ_ONLY or (name in _CURRENT and self.current_ma is None):
            return ACCESS
        if name in _PERSISTENT and values["Torque_Enable"]:
            return ACCESS
        if error := self._check_value(name, value):
            return error
        if name == "Torque_Enable" and value and not values[name]:
            if values["Hardware_Error_Status"] & values["Shutdown"]:
                return DATA_RANGE  # shut down: no torque before a reboot
            self._fed_s = self.now_s
            self.put("Goal_Position", self._present())
            self.rest()
        self.put(name, value)
        if name in _PERSISTENT:
            self._kept[name] = value
        if name == "Operating_Mode":
            self._start_mode()
        if name == "Bus_Watchdog":
            self._fed_s = self.now_s
        return 0

    def _check_value(self, name: str, value: int) -> int:
        values = self.values
        low, high = _RANGES.get(name, (value, value))
        if not low <= value <= high:
            return DATA_RANGE
        if name == "Operating_Mode" and value not in self._modes():
            return DATA_RANGE
        if values["Bus_Watchdog"] == TRIPPED and (name in _GOALS or (name == "Bus_Watchdog" and value)):
            return DATA_RANGE
        if name in _LIMITS and abs(value) > values[_LIMITS[name]]:
            return DATA_LIMIT
        if name == "Goal_Position" and values["Operating_Mode"] == POSITION:
            return 0 if values["Min_Position_Limit"] <= value <= values["Max_Position_Limit"] else DATA_LIMIT
        return 0

    def _modes(self) -> tuple[int, ...]:
        extra = () if self.current_ma is None else (CURRENT, CURRENT_POSITION)
        return (VELOCITY, POSITION, EXTENDED, PWM, *extra)

    def _start_mode(self) -> None:
        """Goals as a change of mode or a restart leaves them; turns are counted from here."""
        values = self.values
        self._turns = math.floor(self._encoder() / 4096)
        self.put("Goal_PWM", values["PWM_Limit"])
        self.put("Goal_Current", values["Current_Limit"])
        self.put("Goal_Velocity", 0 if values["Operating_Mode"] == VELOCITY else values["Velocity_Limit"])
        self.put("Goal_Position", self._present())
        self.rest()

    def clear_turns(self) -> int:
        """The Clear instruction: the present position becomes one within a turn. 0, or an error while moving."""
        if self.values["Operating_Mode"] not in (EXTENDED, CURRENT_POSITION):
            return 0
        self._turns = math.floor(self._encoder() / 4096)
        return 0

    @property
    def _direction(self) -> int:
        return -1 if self.values["Drive_Mode"] & 1 else 1

    def _encoder(self) -> int:
        return self._direction * round(self.counts) + MIDDLE + self.mount

    def _present(self) -> int:
        if self.values["Operating_Mode"] in (POSITION, VELOCITY, PWM, CURRENT):
            self._turns = math.floor(self._encoder() / 4096)
        return self._encoder() - 4096 * self._turns + self.values["Homing_Offset"]

    def _voltage(self) -> int:
        low = self.values["Min_Voltage_Limit"] - 5
        return low if "under_voltage" in self.conditions else round(self.build.voltage - 2 * abs(self.shaft.load))

    def refresh(self) -> None:
        shaft, put = self.shaft, self.put
        speed = self._direction * shaft.velocity_rad_s * COUNTS_PER_RAD
        load = self._direction * shaft.load
        put("Present_Position", self._present())
        put("Present_Velocity", round(speed / RPM))
        put("Present_Current", round(load * (self.build.stall_ma / self.current_ma if self.current_ma else 1000)))
        put("Present_PWM", round(load * 885))
        put("Present_Input_Voltage", self._voltage())
        put("Present_Temperature", self.temperature)
        put("Moving", int(abs(speed) > RPM * self.values["Moving_Threshold"]))
        put("Position_Trajectory", max(0, round(self._setpoint)))
        put("Realtime_Tick", int(self.now_s * 1e3) % 32_768)

    def update(self, dt_s: float) -> None:
        values, shaft = self.values, self.shaft
        self._protect(dt_s)
        if not values["Torque_Enable"]:
            shaft.torque = 0.0
            self.rest()
            return
        watchdog = values["Bus_Watchdog"]
        if 0 < watchdog < TRIPPED and self.now_s - self._fed_s > 0.02 * watchdog:
            self.put("Bus_Watchdog", TRIPPED)
            self.put("Goal_Position", self._present())
            self.rest()
        goal, speed = self._goal()
        acceleration = RPM2 * values["Profile_Acceleration"] or math.inf
        if values["Bus_Watchdog"] == TRIPPED:
            goal = self._setpoint
        shaft.goal_rad = self.approach(goal, min(speed, self.build.speed), acceleration, dt_s) / COUNTS_PER_RAD
        shaft.torque = self._torque()

    def _goal(self) -> tuple[float, float]:
        """(counts from 0 rad, counts/s) of the operating mode."""
        values, direction = self.values, self._direction
        mode = values["Operating_Mode"]
        if mode in (POSITION, EXTENDED, CURRENT_POSITION):
            self._present()
            goal = values["Goal_Position"] - values["Homing_Offset"] + 4096 * self._turns - MIDDLE - self.mount
            return direction * goal, RPM * values["Profile_Velocity"] or math.inf
        drive = values[{VELOCITY: "Goal_Velocity", PWM: "Goal_PWM", CURRENT: "Goal_Current"}[mode]]
        speed = RPM * abs(drive) if mode == VELOCITY else math.inf
        return self._setpoint + direction * math.copysign(4096, drive) * (drive != 0), speed

    def _torque(self) -> float:
        values = self.values
        share = min(abs(values["Goal_PWM"]), values["PWM_Limit"]) / 885
        if values["Operating_Mode"] in (CURRENT, CURRENT_POSITION):
            current = min(abs(values["Goal_Current"]), values["Current_Limit"]) * (self.current_ma or 0)
            share = min(share, current / self.build.stall_ma)
        return min(share, 1.0)

    def _protect(self, dt_s: float) -> None:
        values = self.values
        loaded = values["Torque_Enable"] and abs(self.shaft.load) > OVERLOAD_SHARE
        self._loaded_s = self._loaded_s + dt_s if loaded else 0.0
        error = values["Hardware_Error_Status"]
        if not values["Min_Voltage_Limit"] <= self._voltage() <= values["Max_Voltage_Limit"]:
            error |= HARDWARE_VOLTAGE
        if self.temperature > values["Temperature_Limit"]:
            error |= HARDWARE_OVERHEAT
        if self._loaded_s > OVERLOAD_S or "overload" in self.conditions:
            error |= HARDWARE_OVERLOAD
        if error != values["Hardware_Error_Status"]:
            self.put("Hardware_Error_Status", error)
        if error & values["Shutdown"] and values["Torque_Enable"]:
            self.put("Torque_Enable", 0)
