"""Which motors of an arm do not answer, and how the others are: temperature, voltage, load, errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tactus.hal.arm.joints import Joint
from tactus.hal.hardware import Health
from tactus.hal.servo.bus import ServoBus
from tactus.hal.servo.health import HEALTH_REGISTERS, decode_health
from tactus.hal.servo.registers import MODELS


class SilentMotors:
    """Which motors do not answer, and since when; told the result of every read, from any thread.

    A motor is silent from the first read that it failed, not from the last one it answered: rare reads are no fault of
    the motor's. say: takes one line when a motor falls silent, and when it is back. clock: monotonic seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._since_s: dict[str, float] = {}

    def update(self, answered: Mapping[str, Any], failed: Mapping[str, str]) -> None:
        """A read's result: values by motor, and why others failed."""
        now_s = self._clock()
        for name, why in failed.items():
            if name not in self._since_s:
                self._since_s[name] = now_s
                self._say(f"{name} does not answer: {why}")
        for name in answered:
            if (since_s := self._since_s.pop(name, None)) is not None:
                self._say(f"{name} answers again after {now_s - since_s:.1f} s")

    def longer_than(self, allowed_s: float) -> dict[str, float]:
        """Motors that have been silent for longer than that, with for how long."""
        now_s = self._clock()
        return {name: now_s - since_s for name, since_s in [*self._since_s.items()] if now_s - since_s > allowed_s}

    def forget(self) -> None:
        """As if no motor had been asked yet: the whole line was cut, or is only now connected."""
        self._since_s.clear()


def read_health(
    bus: ServoBus, joints: Mapping[str, Joint], silent: SilentMotors, should_hold: bool
) -> dict[str, Health]:
    """Of the motors that answer, by name; `silent` is told of the others. should_hold: no torque is an error.

    A motor that fails is not asked for the rest: each failure takes bus time that control needs.
    """
    values: dict[str, dict[str, int]] = {name: {} for name in joints}
    errors = dict.fromkeys(joints, 0)
    asked = list(joints)
    protocol = MODELS[next(iter(joints.values())).model].protocol
    for register in HEALTH_REGISTERS[protocol]:
        readings = bus.read(register, asked)
        silent.update(readings.values, readings.failed)
        asked = [name for name in asked if name in readings.values]
        for name, value in readings.values.items():
            values[name][register] = value
            errors[name] |= readings.errors.get(name, 0)
    found = {}
    for name, joint in joints.items():
        if values[name]:
            health = decode_health(joint.model, values[name], bus.describe_error(errors[name]))
            if should_hold and health.torque_on is False:
                health = replace(health, error=f"{health.error}, lost torque".removeprefix(", "))
            found[name] = health
    return found
