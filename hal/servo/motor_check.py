"""Check that every motor of a bus answers, and explain which cable, id or setting is wrong when one does not."""

from __future__ import annotations

from collections.abc import Mapping

from tactus.hal.servo.bus import BusError, ServoBus
from tactus.hal.servo.port import LATENCY_RULE, latency_timer_ms
from tactus.hal.servo.registers import BAUDRATES, MODELS, TABLES, model_named
from tactus.hal.servo.transactions import Wire

TRIES = 3
"""How often a motor is asked before it counts as silent, or what it says as garbled."""


def check(bus: ServoBus, wire: Wire) -> None:
    """Raise BusError unless every motor answers once to a ping and is the model it should be."""
    heard = {name: _ping(wire, motor.id) for name, motor in bus.motors.items()}
    # once more who said nothing at all: this machine may have stood still for as long as one is asked
    heard |= {name: _ping(wire, bus.motors[name].id) for name, found in heard.items() if found == (0, 0)}
    for name, (packets, noise) in heard.items():
        if packets > 1 or noise:
            what = "answers twice to one ping" if packets else "answers with garbled bytes"
            raise BusError(
                f"{_named(bus, name)} on {bus.port} {what}: two motors have the same id, or two programs use the port. "
                "Connect the motors one by one and give each its own id"
            )
    silent = [name for name, (packets, _) in heard.items() if packets == 0]
    if len(silent) == len(bus.motors):
        raise BusError(_all_silent(bus, wire))
    if silent:
        raise BusError(_some_silent(bus, silent))
    for name, motor in bus.motors.items():
        number = bus.ping(motor.id)
        if number is None:
            raise BusError(
                f"{_named(bus, name)} on {bus.port} answers pings but no reads: set its Status_Return_Level "
                "(Response_Status_Level) back to the factory setting"
            )
        if number != MODELS[motor.model].number:
            raise BusError(
                f"motor {name} (id {motor.id}) on {bus.port} is a {model_named(number)}, expected {motor.model}: "
                "correct the model in the config, or the ids if motors are exchanged"
            )


def warnings(bus: ServoBus, versions: Mapping[str, str]) -> list[str]:
    """Warnings: mixed firmware, motors that wait before they answer, an adapter that does. versions: by motor."""
    found = []
    for model in sorted({motor.model for motor in bus.motors.values()}):
        same = {name: version for name, version in versions.items() if bus.motors[name].model == model}
        if len(set(same.values())) > 1:
            listed = ", ".join(f"{name} {version}" for name, version in same.items())
            found.append(f"{model} motors with different firmware: {listed}; update them to the same")
    delays = bus.read("Return_Delay_Time").values
    if slow := [f"{name} {2 * delay} µs" for name, delay in delays.items() if delay]:
        found.append(f"motors that wait before they answer: {', '.join(slow)}; set Return_Delay_Time to 0")
    timer = latency_timer_ms(bus.port)
    if timer is not None and timer > 1:
        found.append(
            f"{bus.port} has a latency timer of {timer} ms, which slows every read down; as a udev rule: {LATENCY_RULE}"
        )
    return found


def _ping(wire: Wire, motor_id: int) -> tuple[int, int]:
    """How many packets answered one ping, and bytes of noise if there was never an intact answer."""
    noise = twice = 0
    for _ in range(TRIES):
        found, garbage = wire.listen(motor_id, (wire.handler.latency_ms + 2) / 1e3)
        packets = sum(status.id == motor_id for status in found)
        if packets == 1:
            break
        twice += packets > 1  # once may be a late answer to who had the port before
        if twice > 1:
            return packets, 0
        noise += garbage
    else:
        return twice, noise
    # motors that share an id may say the same to a ping, in step; but hardly where they stand
    noise = 0
    for _ in range(TRIES):
        answers = wire.read(TABLES[wire.protocol]["Present_Position"], motor_id)
        if motor_id in answers.by_id:
            return 1, 0
        noise += answers.parser.noise
    return 1 if noise == 0 else 0, noise


def _all_silent(bus: ServoBus, wire: Wire) -> str:
    baudrate = _probe(bus, wire)
    if baudrate is not None:
        return (
            f"no motor answers on {bus.port} at {bus.baudrate} baud, but some do at {baudrate}: "
            f"set the baud rate to {baudrate}, or the motors' Baud_Rate to {bus.baudrate}"
        )
    first = _named(bus, next(iter(bus.motors)))
    return (
        f"no motor answers on {bus.port} at any baud rate: is the motors' power on, is the cable to the first, "
        f"{first}, plugged in, and do they speak {bus.protocol}'s protocol?"
    )


def _probe(bus: ServoBus, wire: Wire) -> int | None:
    """The first other baud rate at which one of the motors answers."""
    try:
        for baudrate in BAUDRATES[wire.protocol]:
            if baudrate == bus.baudrate or not wire.retune(baudrate):
                continue
            for motor in bus.motors.values():
                found, _ = wire.listen(motor.id, 0.0)
                if any(status.id == motor.id for status in found):
                    return baudrate
    finally:
        if wire.lost is None:
            wire.retune(bus.baudrate)
    return None


def _some_silent(bus: ServoBus, silent: list[str]) -> str:
    names = list(bus.motors)
    before = names.index(silent[0]) - 1
    parts = [
        f"{_named(bus, silent[0])} on {bus.port} does not answer at {bus.baudrate} baud",
        f"check the cable from {names[before] if before >= 0 else 'the adapter'} to it, and its id",
    ]
    if silent[1:]:
        parts.append(f"silent too: {', '.join(silent[1:])}")
    ids = {motor.id for motor in bus.motors.values()}
    strangers = [f"{found} ({model_named(number)})" for found, number in bus.scan().items() if found not in ids]
    if strangers:
        parts.append(f"ids that answer but belong to no motor: {', '.join(strangers)}")
    return "; ".join(parts)


def _named(bus: ServoBus, name: str) -> str:
    motor = bus.motors[name]
    return f"motor {name} (id {motor.id}, {motor.model})"
