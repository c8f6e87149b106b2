"""Checks motors' temperature, voltage, load, current and error flags against thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tactus.hal.hardware import Health


@dataclass
class VitalsConfig:
    """Thresholds; null for none."""

    temperature_warn_c: float | None = 55.0
    """a motor this hot is told of"""
    temperature_stop_c: float | None = 65.0
    """a motor this hot ends the run; an STS3215 shuts down at 70"""
    voltage_warn_v: float | None = None
    """a supply below this is told of"""
    voltage_stop_v: float | None = None
    """a supply below this ends the run: servos brown out and forget their torque"""
    load_stop: float | None = 0.95
    """share of full torque that, sustained for overload_s, ends the run"""
    current_stop_a: float | None = None
    """current in A that, sustained for overload_s, ends the run"""
    overload_s: float = 3.0
    """how long a motor may strain"""
    may_strain: list[str] = field(default_factory=lambda: ["gripper"])
    """joints that press on things by design: their overload is told of, and does not end the run"""


HINTS = {
    "overload": "is it blocked, or asked for too much? Some motors keep this until their power was off",
    "heat": "let it cool",
    "voltage": "check the power supply and its cable",
    "lost torque": "its power failed, or it protects itself",
}
"""What to do about a motor's own error, by a word in it."""


class HealthProblem(NamedTuple):
    """What is wrong with a motor. about: motor and kind, for counting. stop: whether the run must end."""

    about: str
    text: str
    stop: bool


class HealthMonitor:
    """Checks health as it is read; remembers only since when each motor has been straining."""

    def __init__(self, config: VitalsConfig) -> None:
        self._config = config
        self._since_s: dict[tuple[str, str], float] = {}

    def check(self, motors: Mapping[str, Health], now_s: float) -> list[HealthProblem]:
        """What is wrong now, motor by motor; what a motor does not say is not checked."""
        return [finding for name, health in motors.items() for finding in self._check(name, health, now_s)]

    def _check(self, name: str, health: Health, now_s: float) -> list[HealthProblem]:
        config = self._config
        found = []
        strains = name in config.may_strain
        if health.error:
            stop = not strains or health.error != "overload"
            hint = next((f" ({hint})" for word, hint in HINTS.items() if word in health.error), "")
            found.append(HealthProblem(f"{name} error", f"{name} reports {health.error}{hint}", stop))
        if health.temperature_c is not None:
            hot = f"{name} is at {health.temperature_c:.0f} °C"
            if _over(health.temperature_c, config.temperature_stop_c):
                text = f"{hot}, the limit is {config.temperature_stop_c:g}; let it cool"
                found.append(HealthProblem(f"{name} temperature", text, True))
            elif _over(health.temperature_c, config.temperature_warn_c):
                found.append(HealthProblem(f"{name} temperature", hot, False))
        if health.voltage_v is not None:
            low = f"{name} has {health.voltage_v:.1f} V"
            if _over(config.voltage_stop_v, health.voltage_v):
                text = f"{low}, the limit is {config.voltage_stop_v:g}; check the power supply and its cable"
                found.append(HealthProblem(f"{name} voltage", text, True))
            elif _over(config.voltage_warn_v, health.voltage_v):
                found.append(HealthProblem(f"{name} voltage", low, False))
        for kind, value, limit, unit in (
            ("load", health.load, config.load_stop, "of full torque"),
            ("current", health.current_a, config.current_stop_a, "A"),
        ):
            if value is None or not _over(abs(value), limit):
                self._since_s.pop((name, kind), None)
            elif now_s - self._since_s.setdefault((name, kind), now_s) >= config.overload_s:
                text = f"{name} is overloaded: {abs(value):.2f} {unit} for {config.overload_s:g} s; is it blocked?"
                found.append(HealthProblem(f"{name} {kind}", text, not strains))
        return found


def _over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value >= limit
