"""Checks motors' temperature, voltage, load, current and error flags against thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tactus.hal.governor.config import VitalsConfig
from tactus.hal.hardware import Health

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
