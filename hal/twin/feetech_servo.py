"""An emulated Feetech STS3215: its registers and its protections. Source: Feetech's STS series memory table."""

from __future__ import annotations

import math

from tactus.hal.servo.registers import FEETECH
from tactus.hal.twin.servo import COUNTS_PER_RAD, MIDDLE, Build, Servo

VOLTAGE, OVERHEAT, OVERLOAD = 1, 4, 32

FACTORY = {
    "Firmware_Major_Version": 3,
    "Firmware_Minor_Version": 10,
    "Return_Delay_Time": 250,
    "Response_Status_Level": 1,
    "Max_Position_Limit": 4095,
    "Max_Temperature_Limit": 70,
    "Max_Voltage_Limit": 140,
    "Min_Voltage_Limit": 40,
    "Max_Torque_Limit": 1000,
    "Phase": 12,
    "Unloading_Condition": 44,
    "LED_Alarm_Condition": 47,
    "P_Coefficient": 32,
    "D_Coefficient": 32,
    "Minimum_Startup_Force": 16,
    "CW_Dead_Zone": 1,
    "CCW_Dead_Zone": 1,
    "Protection_Current": 500,
    "Angular_Resolution": 1,
    "Protective_Torque": 20,
    "Protection_Time": 200,
    "Overload_Torque": 80,
    "Velocity_closed_loop_P_proportional_coefficient": 10,
    "Over_Current_Protection_Time": 200,
    "Velocity_closed_loop_I_integral_coefficient": 200,
    "Moving_Velocity_Threshold": 1,
    "Maximum_Acceleration": 254,
}
BUILDS = {"sts3215": Build(speed=45 / 60 * 4096, stall_ma=2700, voltage=121, factory=FACTORY)}

_PERSISTENT = frozenset(
    name
    for name, register in FEETECH.items()
    if (register.address < 40 or register.address >= 80) and name != "Moving_Velocity"  # another name for its threshold
)
_READ_ONLY = frozenset(
    name for name, register in FEETECH.items() if register.address < 5 or 56 <= register.address < 80
)


class FeetechServo(Servo):
    """STS3215. A goal written while torque is off waits; torque on drives to whatever goal is in the register.

    Overload: load above Overload_Torque for Protection_Time (10 ms) leaves Protective_Torque, and the flag in every
    answer, until torque is switched or a goal on the other side is given.
    """

    protocol = "feetech"
    builds = BUILDS
    persistent = _PERSISTENT
    temperature_limit = "Max_Temperature_Limit"
    _overloaded = False

    def power_up(self) -> None:
        self.put("Torque_Limit", self.values["Max_Torque_Limit"])
        self.put("Lock", 1)
        self._overloaded, self._loaded_s = False, 0.0
        self.put("Goal_Position", self._present())
        self.rest()

    @property
    def error(self) -> int:
        hot = self.temperature > self.values["Max_Temperature_Limit"]
        volts = self._voltage()
        starved = not self.values["Min_Voltage_Limit"] <= volts <= self.values["Max_Voltage_Limit"]
        overloaded = self._overloaded or "overload" in self.conditions
        return VOLTAGE * starved | OVERHEAT * hot | OVERLOAD * overloaded

    def accept(self, name: str, value: int) -> int:
        register = self.table[name]
        if name in _READ_ONLY or (name == "ID" and value > 253):
            return -1
        if name == "Torque_Enable":
            if value == 128:  # documented: make the present position the middle
                self.put("Homing_Offset", round(self.counts) + self.mount - 1)
                return 0
            if value and not self.values[name]:
                self.rest()
            self._overloaded, self._loaded_s = False, 0.0
        elif name == "Goal_Position" and self._overloaded:
            self._overloaded = (value - self._present()) * self.shaft.load > 0
        self.put(name, value)
        if register.address < 40 and not self.values["Lock"]:
            self._kept[name] = value
        return 0

    def _turns(self) -> int:
        """Whole turns between the joint and the one turn that it reads: it does not know them."""
        return math.floor((round(self.counts) + MIDDLE + self.mount - self.values["Homing_Offset"]) / 4096)

    def _present(self) -> int:
        return (round(self.counts) + MIDDLE + self.mount - self.values["Homing_Offset"]) % 4096

    def _voltage(self) -> int:
        sag = 4 * abs(self.shaft.load)
        low = self.values["Min_Voltage_Limit"] - 5
        return max(0, low) if "under_voltage" in self.conditions else round(self.build.voltage - sag)

    def refresh(self) -> None:
        shaft, put = self.shaft, self.put
        put("Present_Position", self._present())
        put("Present_Velocity", round(shaft.velocity_rad_s * COUNTS_PER_RAD))
        put("Present_Load", round(shaft.load * 1000))
        put("Present_Current", round(abs(shaft.load) * self.build.stall_ma / (self.current_ma or 1)))
        put("Present_Voltage", self._voltage())
        put("Present_Temperature", self.temperature)
        put("Status", self.error)
        put("Moving", int(abs(shaft.velocity_rad_s) * COUNTS_PER_RAD > 20))

    def update(self, dt_s: float) -> None:
        values, shaft = self.values, self.shaft
        error, unload = self.error, values["Unloading_Condition"]
        if values["Torque_Enable"] != 1 or error & unload & (VOLTAGE | OVERHEAT):
            shaft.torque = 0.0
            self.rest()
            return
        loaded = abs(shaft.load) * 100 >= values["Overload_Torque"]
        self._loaded_s = self._loaded_s + dt_s if loaded else 0.0
        if self._loaded_s * 100 > values["Protection_Time"] and unload & OVERLOAD:
            self._overloaded = True
        shaft.torque = min(values["Torque_Limit"], values["Max_Torque_Limit"], 1000) / 1000
        if error & OVERLOAD & unload:
            shaft.torque = min(shaft.torque, values["Protective_Torque"] / 100)
        speed = abs(values["Goal_Velocity"]) or math.inf
        acceleration = 100 * values["Acceleration"] or math.inf
        if values["Operating_Mode"] == 1:
            goal = self._setpoint + math.copysign(4096, values["Goal_Velocity"]) * (values["Goal_Velocity"] != 0)
        elif values["Operating_Mode"] == 0:
            low, high = values["Min_Position_Limit"], values["Max_Position_Limit"]
            wanted = values["Goal_Position"]
            wanted = min(max(wanted, low), high) if low < high else wanted
            goal = wanted - MIDDLE - self.mount + values["Homing_Offset"] + 4096 * self._turns()
        else:
            goal = self._setpoint
        shaft.goal_rad = self.approach(goal, min(speed, self.build.speed), acceleration, dt_s) / COUNTS_PER_RAD
