"""An emulated servo, of either protocol: a control table in front of a joint, and the motion of its set-point."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tactus.hal.servo.registers import BAUDRATES, MODELS, TABLES, Protocol, Register

COUNTS_PER_RAD = 4096 / math.tau
MIDDLE = 2047
"""What a homed servo reads at 0 rad."""

AMBIENT_C = 27.0
HEATING_C_PER_S = 0.9
"""At full load; with the cooling below, a stalled servo ends at 99 °C and passes 70 °C after a minute."""
COOLING_PER_S = 1 / 80


@dataclass(slots=True)
class Shaft:
    """A servo's output shaft: what it senses of its joint and does to it. load, torque: share of full torque."""

    position_rad: float = 0.0
    velocity_rad_s: float = 0.0
    load: float = 0.0
    goal_rad: float = 0.0
    torque: float = 0.0


@dataclass(frozen=True)
class Build:
    """What differs between models beyond the table. speed: counts/s without load; voltage: 0.1 V; factory: registers
    that are not 0 when it leaves the factory."""

    speed: float
    stall_ma: float
    voltage: int
    factory: Mapping[str, int]


Log = Callable[["Servo", str, int, int, bool], None]
"""Called for every register written: servo, register's name, address, value, whether the servo took it."""


def no_log(servo: Servo, name: str, address: int, value: int, accepted: bool) -> None:
    """The log of a servo whose writes are not logged."""


class Servo(ABC):
    """One servo. Registers by LeRobot's names, decoded in `values` and as bytes in `memory`; the two always agree.

    mount: where the horn sits: the encoder reads MIDDLE + mount at 0 rad, so that homing is worth its name.
    conditions: what is wrong with it just now (dead, overload, over_temperature, under_voltage), set from outside.
    """

    protocol: Protocol
    builds: Mapping[str, Build]
    persistent: frozenset[str]
    """Registers that survive without power."""
    temperature_limit: str
    """The register."""

    def __init__(self, model: str, motor_id: int, name: str, shaft: Shaft, mount: int = 0) -> None:
        self.model, self.name, self.shaft, self.build, self.mount = model, name, shaft, self.builds[model], mount
        self.number = MODELS[model].number
        self.current_ma = MODELS[model].current_ma
        names = {register.address: name for name, register in TABLES[self.protocol].items()}
        self.table = {name: TABLES[self.protocol][name] for name in names.values()}
        self._rates = {code: rate for rate, code in BAUDRATES[self.protocol].items()}
        self.memory = bytearray(256)
        self.values: dict[str, int] = dict.fromkeys(self.table, 0)
        self.log: Log = no_log
        self.conditions: set[str] = set()
        self.temperature_c = AMBIENT_C + 3
        self.now_s = 0.0
        self._silent_until_s = 0.0
        self._spans = {register.address: (name, register) for name, register in self.table.items()}
        self._touched: dict[tuple[int, int], list[tuple[str, Register]]] = {}
        self._layout = {
            name: (
                r.address,
                r.size,
                r.low,
                r.high,
                1 << r.sign if isinstance(r.sign, int) else 0,
                (1 << 8 * r.size) - 1,
            )
            for name, r in self.table.items()
        }
        self._setpoint = self._speed = 0.0
        self._loaded_s = 0.0
        self._kept: dict[str, int] = {}
        for register, value in self._factory(motor_id).items():
            self.put(register, value)
        self.power_up()
        self.keep()

    @abstractmethod
    def power_up(self) -> None:
        """Volatile registers as they are after power came back."""

    @abstractmethod
    def accept(self, name: str, value: int) -> int:
        """Take a written value or refuse it; returns the error for the status packet, 0 if it was taken."""

    @abstractmethod
    def refresh(self) -> None:
        """Bring the registers that tell about the present up to date."""

    @abstractmethod
    def update(self, dt_s: float) -> None:
        """Protect itself, move the set-point on, and set `shaft.goal_rad` and `shaft.torque`."""

    @property
    @abstractmethod
    def error(self) -> int:
        """Flags that every status packet carries."""

    @property
    def id(self) -> int:
        return self.values["ID"]

    @property
    def baudrate(self) -> int:
        """What it listens at, bit/s; 0 if it is set to none."""
        return self._rates.get(self.values["Baud_Rate"], 0)

    @property
    def temperature(self) -> int:
        """What it measures, °C."""
        limit = self.values[self.temperature_limit]
        return max(round(self.temperature_c), limit + 5 if "over_temperature" in self.conditions else 0)

    @property
    def counts(self) -> float:
        """The joint's angle in counts, 0 at 0 rad."""
        return self.shaft.position_rad * COUNTS_PER_RAD

    @property
    def mute(self) -> bool:
        """Neither hears nor answers: dead, or starting up."""
        return self.now_s < self._silent_until_s or "dead" in self.conditions

    def put(self, name: str, value: int) -> None:
        """Set a register from the inside: no rules apply."""
        address, size, low, high, sign, mask = self._layout[name]
        value = low if value < low else high if value > high else value
        self.values[name] = value
        raw = value if value >= 0 else sign - value if sign else value & mask
        self.memory[address : address + size] = raw.to_bytes(size, "little")

    def read(self, address: int, length: int) -> tuple[int, bytes]:
        """The error for the status packet, 0 for none, and bytes of the table, 0 where there is none."""
        self.refresh()
        return 0, bytes(self.memory[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> int:
        """Write bytes: register by register, whole or in part. Returns the first error, 0 if all were taken."""
        first = 0
        for name, register in self.registers(address, len(data)):
            start, end = max(address, register.address), min(address + len(data), register.address + register.size)
            stored = bytearray(self.memory[register.address : register.address + register.size])
            stored[start - register.address : end - register.address] = data[start - address : end - address]
            value = register.decode(bytes(stored))
            error = self.accept(name, value)
            self.log(self, name, register.address, value, not error and self.values[name] == value)
            first = first or max(error, 0)
        return first

    def registers(self, address: int, length: int) -> list[tuple[str, Register]]:
        """Those that so many bytes touch, in order."""
        found = self._touched.get((address, length))
        if found is None:
            found = self._touched[address, length] = [
                span
                for at, span in sorted(self._spans.items())
                if at < address + length and address < at + span[1].size
            ]
        return found

    def tick(self, now_s: float) -> None:
        """Advance to this moment."""
        dt_s, self.now_s = min(max(now_s - self.now_s, 0.0), 0.1), now_s
        self.temperature_c += dt_s * (
            HEATING_C_PER_S * self.shaft.load**2 - COOLING_PER_S * (self.temperature_c - AMBIENT_C)
        )
        if now_s < self._silent_until_s:
            self.shaft.torque = 0.0
        else:
            self.update(dt_s)

    def keep(self) -> None:
        """Write the persistent registers to the EEPROM."""
        self._kept = {name: self.values[name] for name in self.persistent}

    def reboot(self, silent_s: float) -> None:
        """Lose what is volatile, and say nothing for a while."""
        self._silent_until_s = self.now_s + silent_s
        self.shaft.torque = 0.0
        for name in self.table:
            if name not in self.persistent:
                self.put(name, 0)
        for name, value in self._kept.items():
            self.put(name, value)
        self.power_up()

    def reset(self, **spared: int) -> None:
        """Persistent registers as from the factory, but for those spared."""
        fresh = self._factory(1) | spared
        for name in self.persistent:
            self.put(name, fresh.get(name, 0))
        self.keep()

    def _factory(self, motor_id: int) -> dict[str, int]:
        return {**self.build.factory, "Model_Number": self.number, "ID": motor_id}

    def rest(self) -> None:
        """Put the set-point where the joint is."""
        self._setpoint, self._speed = self.counts, 0.0

    def approach(self, goal: float, speed: float, acceleration: float, dt_s: float) -> float:
        """Move the set-point towards `goal` on a trapezoid (counts, counts/s, counts/s², both may be inf)."""
        distance = goal - self._setpoint
        braking = math.sqrt(2 * acceleration * abs(distance)) if math.isfinite(acceleration) else math.inf
        wanted = math.copysign(min(speed, braking), distance)
        change = wanted - self._speed
        self._speed += math.copysign(min(abs(change), acceleration * dt_s), change) if dt_s else 0.0
        step = self._speed * dt_s if math.isfinite(self._speed) else math.inf
        if (abs(distance) <= abs(step) and step * distance >= 0) or abs(distance) < 0.5:
            self._setpoint, self._speed = goal, 0.0
        else:
            self._setpoint += step
        return self._setpoint
