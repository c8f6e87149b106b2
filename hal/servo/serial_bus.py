"""A servo bus on a serial port, for either protocol: motors by name, retries, counters."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping

from tactus.hal.servo import motor_check
from tactus.hal.servo.bus import BusError, Motor, MotorCounters, Readings, ServoBus
from tactus.hal.servo.packets import BROADCAST, Status
from tactus.hal.servo.registers import MODELS, TABLES, Protocol, Register
from tactus.hal.servo.transactions import GARBLED, Answers, Wire

SCAN_S = 0.8
"""Answers to a broadcast ping may take 3 ms for each possible id (both SDKs wait as long)."""

REFUSED = "refused: "


class SerialBus(ServoBus):
    """A ServoBus on a Wire.

    A motor that failed for good is asked last and without retries until it answers again, so that a dead one costs
    the others one wait a read and no more.

    motors: in the order in which they hang on the cable, which is what hints at wiring go by.
    baudrate: what all motors are set to. Raises BusError for motors it cannot speak to.
    """

    protocol: Protocol

    def __init__(self, wire: Wire, motors: Mapping[str, Motor], baudrate: int) -> None:
        self.wire = wire
        self.port = wire.handler.port_name
        self.baudrate = baudrate
        self.motors = dict(motors)
        check_motors(self.motors, self.protocol)
        self.counters: dict[str, MotorCounters] = {name: MotorCounters() for name in motors}
        self._ids = [motor.id for motor in self.motors.values()]
        self._lock = threading.RLock()
        self._silent: set[str] = set()
        self._warnings: list[str] = []

    @abstractmethod
    def read_firmware(self) -> dict[str, str]:
        """Firmware versions of the motors that tell, by name."""

    def open(self) -> None:
        with self._lock:
            if self.wire.lost is None:  # counters go on when a lost port comes back
                self.counters.update({name: MotorCounters() for name in self.motors})
            self.wire.open(self.baudrate)
            self._silent.clear()

    def close(self) -> None:
        with self._lock:
            self.wire.close()

    def read(self, register: str, motors: Iterable[str] | None = None, retries: int = 2) -> Readings:
        entry = self._register(register)
        names = sorted(self._chosen(self.motors if motors is None else motors), key=self._silent.__contains__)
        ids = [self.motors[name].id for name in names]
        values: dict[str, int] = {}
        errors: dict[str, int] = {}
        why: dict[str, str] = {}
        with self._lock:
            answers = self.wire.sync_read(entry, ids) if ids else None
            for attempt in range(1 + retries):
                for name, motor_id in zip(names, ids, strict=True):
                    if attempt:
                        if name not in why or self._final(name, why[name]):
                            continue
                        # one by one: motors behind one that is missing wait for it in a sync read, in vain
                        answers = self.wire.read(entry, motor_id)
                    assert answers is not None
                    why[name] = self._fault(name, answers, errors)
                    if not why[name]:
                        values[name] = answers.value(entry, motor_id)
                        self.counters[name].retries += attempt > 0
                        del why[name]
            self._conclude(names, why)
        failed = {name: f"{reason} (read of {register})" for name, reason in why.items()}
        return Readings(values, failed, errors, time.monotonic_ns())

    def write(self, register: str, values: Mapping[str, int]) -> None:
        entry = self._register(register)
        params: list[int] = []
        for name in self._chosen(values):
            params += [self.motors[name].id, *self._encode(register, name, values[name])]
        if params:
            with self._lock:
                self.wire.sync_write(entry, params)

    def write_each(self, register: str, values: Mapping[str, int], retries: int = 2) -> dict[str, str]:
        entry = self._register(register)
        data = {name: self._encode(register, name, values[name]) for name in self._chosen(values)}
        why = dict.fromkeys(data, "")
        with self._lock:
            # in rounds, so that those that answer need not wait for the retries of those that do not
            for attempt in range(1 + retries):
                for name in sorted(why, key=self._silent.__contains__):
                    if attempt and self._final(name, why[name]):
                        continue
                    answers = self.wire.write(entry, self.motors[name].id, data[name])
                    why[name] = self._fault(name, answers, {})
                    if not why[name]:
                        self.counters[name].retries += attempt > 0
                        del why[name]
            self._conclude(data, why)
        return {name: f"{reason} (write of {values[name]} to {register})" for name, reason in why.items()}

    def ping(self, motor_id: int) -> int | None:
        entry = self._register("Model_Number")
        with self._lock:
            for _ in range(2):
                answers = self.wire.read(entry, motor_id)
                if motor_id in answers.by_id and not self.wire.refusal(answers.by_id[motor_id].error):
                    return answers.value(entry, motor_id)
        return None

    def scan(self) -> dict[int, int]:
        with self._lock:
            found, _ = self.wire.listen(BROADCAST, SCAN_S)
            numbers = {status.id: self.ping(status.id) for status in found}
        return {motor_id: number for motor_id, number in sorted(numbers.items()) if number is not None}

    def check(self) -> None:
        with self._lock:
            self._warnings = []
            motor_check.check(self, self.wire)
            self._warnings = motor_check.warnings(self, self.read_firmware())

    def warnings(self) -> list[str]:
        """What `check` found that works, but not well; one line each."""
        return list(self._warnings)

    def _fault(self, name: str, answers: Answers, errors: dict[str, int]) -> str:
        """What is wrong with a motor's answer, counted; "" if nothing is. Keeps its error flags."""
        status: Status | None = answers.by_id.get(self.motors[name].id)
        counters = self.counters[name]
        if status is None:
            if answers.corrupt(self.motors[name].id):
                counters.corrupt += 1
                return "incorrect status packet"
            counters.timeouts += 1
            return "no status packet"
        if status.error:
            counters.errors += 1
            errors[name] = status.error
        refusal = self.wire.refusal(status.error)
        return REFUSED + refusal if refusal else ""

    def _final(self, name: str, reason: str) -> bool:
        """Whether to leave it at that: a motor that keeps silent, or one that answered, and will say the same again."""
        return name in self._silent or (reason.startswith(REFUSED) and reason != REFUSED + GARBLED)

    def _conclude(self, names: Iterable[str], why: Mapping[str, str]) -> None:
        for name in names:
            if name in why:
                self.counters[name].failures += 1
            if name in why and not why[name].startswith(REFUSED):
                self._silent.add(name)
            else:
                self._silent.discard(name)

    def _register(self, register: str) -> Register:
        table = TABLES[self.protocol]
        if register not in table:
            raise ValueError(f"no register {register!r} in {self.protocol} motors; there are: {', '.join(table)}")
        return table[register]

    def _chosen(self, names: Iterable[str]) -> list[str]:
        chosen = list(names)
        if unknown := [name for name in chosen if name not in self.motors]:
            raise ValueError(f"no motor {', '.join(unknown)} on {self.port}; there are: {', '.join(self.motors)}")
        return chosen

    def _encode(self, register: str, name: str, value: int) -> list[int]:
        try:
            return self._register(register).encode(int(value))
        except ValueError as error:
            raise ValueError(f"{register} of {name}: {error}") from None


def check_motors(motors: Mapping[str, Motor], protocol: Protocol) -> None:
    """Raise BusError for no motors, an id that is no id or is there twice, or a model of another protocol."""
    if not motors:
        raise BusError("no motors are configured; give each a name, an id and a model")
    accepted = ", ".join(name for name, model in MODELS.items() if model.protocol == protocol)
    owners: dict[int, str] = {}
    for name, motor in motors.items():
        if not 0 <= motor.id <= 252:
            raise BusError(f"motor {name} has id {motor.id}; accepted: 0 to 252")
        if motor.id in owners:
            raise BusError(f"motors {owners[motor.id]} and {name} are both configured with id {motor.id}")
        owners[motor.id] = name
        if motor.model not in MODELS or MODELS[motor.model].protocol != protocol:
            raise BusError(f"motor {name} is a {motor.model!r}, which is no {protocol} model; accepted: {accepted}")
