"""Every motor's health, read off the bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tactus.hal.arm.joints import Joint
from tactus.hal.arm.silence import Silence
from tactus.hal.hardware import Health
from tactus.hal.servo.bus import ServoBus
from tactus.hal.servo.health import HEALTH_REGISTERS, decode_health
from tactus.hal.servo.registers import MODELS


def read_health(bus: ServoBus, joints: Mapping[str, Joint], silence: Silence, should_hold: bool) -> dict[str, Health]:
    """Of the motors that answer, by name; silence is told of the others. should_hold: no torque is an error.

    A motor that fails is not asked for the rest: each failure takes bus time that control needs.
    """
    values: dict[str, dict[str, int]] = {name: {} for name in joints}
    errors = dict.fromkeys(joints, 0)
    asked = list(joints)
    protocol = MODELS[next(iter(joints.values())).model].protocol
    for register in HEALTH_REGISTERS[protocol]:
        readings = bus.read(register, asked)
        silence.heard(readings.values, readings.failed)
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
