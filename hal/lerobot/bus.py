"""A wrapper of LeRobot's motor buses that works around faults of LeRobot 0.6.1 and its SDKs.

The library's classes stay as they are; the object in use is mended:

- feetech-servo-sdk's `clearPort` drains the output and leaves the input: after one late answer every read returns the
  one before it, without an error. Here it flushes the input too, which the SDK calls before each request.
- `disable_torque` stops at the first motor that complains, as one that is overloaded does on every answer, and leaves
  the rest with torque on. Here every motor is tried, and one that answers with such a flag has done as it was told.
- `configure` switches torque on again when it is done, towards whatever goal the motors last had. Here it does not.
- Most of its calls, those of `connect` among them, are not repeated when an answer is lost. Here every one is.
- `is_using` stays set after an exception in the middle of a transaction, and every later one is "port busy".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from tactus.hal.hardware import Health
from tactus.hal.robot import RobotError
from tactus.hal.servo.health import HEALTH_REGISTERS, decode_health

UNITS = {"degrees": "deg", "range_0_100": "%", "range_m100_100": "%"}
"""LeRobot's MotorNormMode -> unit; both ranges are shares of the calibrated range."""
T = TypeVar("T")
RETRIES = 2

Transaction = Callable[[Callable[[], Any]], Any]
"""Does one thing on the bus, undisturbed by others."""


class Bus:
    """One of LeRobot's motor buses, mended. prefix: what the robot's joint names have before the motors' names."""

    def __init__(self, bus: Any, prefix: str) -> None:
        self.lerobot = bus
        self.prefix = prefix
        self.serial = hasattr(bus, "port_handler")
        self.retries = 0
        self._enable, self._disable = bus.enable_torque, bus.disable_torque
        if self.serial:
            bus.ping = self._patient(bus.ping, lambda model: model is not None)
            bus._read = self._patient(bus._read, lambda answer: bus._is_comm_success(answer[1]))
            bus._write = self._patient(bus._write, lambda answer: bus._is_comm_success(answer[0]))
            bus._sync_read = self._patient(bus._sync_read, lambda answer: bus._is_comm_success(answer[1]))
            handler = bus.port_handler
            if type(handler).__module__.startswith("scservo_sdk"):
                handler.clearPort = lambda: _flush(handler)

    def _patient(self, ask: Callable[..., T], answered: Callable[[T], bool]) -> Callable[..., T]:
        """`ask`, repeated at most RETRIES times while nobody answers; `retries` counts. LeRobot's num_retry is not."""

        def asking(*args: Any, num_retry: int = 0, **kwargs: Any) -> T:
            for left in reversed(range(1 + RETRIES)):
                self.free()
                try:
                    answer = ask(*args, **kwargs)
                    if not left or answered(answer):
                        return answer
                except ConnectionError:
                    if not left:
                        raise
                self.retries += 1
            raise AssertionError("unreachable")

        return asking

    @property
    def protocol(self) -> str:
        return "dynamixel" if type(self.lerobot.port_handler).__module__.startswith("dynamixel_sdk") else "feetech"

    @contextmanager
    def torque_locked(self, off_allowed: bool) -> Iterator[None]:
        """Within it, LeRobot's own code cannot switch torque on; off, if that is allowed, goes through `switch_off`."""
        self.lerobot.enable_torque = lambda *_, **__: None
        self.lerobot.disable_torque = lambda *_, **__: self.switch_off() if off_allowed else None
        try:
            yield
        finally:
            del self.lerobot.enable_torque, self.lerobot.disable_torque

    def unit_of(self, motor: str) -> str:
        """ "" where LeRobot does not say."""
        return UNITS.get(self.lerobot.motors[motor].norm_mode.value, "")

    def range_of(self, motor: str) -> tuple[float, float] | tuple[None, None]:
        """The ends of a motor's calibrated range in its unit; LeRobot's formulas (SerialMotorsBus._normalize)."""
        about, calibration = self.lerobot.motors[motor], self.lerobot.calibration.get(motor)
        if calibration is None or not self.serial:
            return None, None
        if about.norm_mode.value != "degrees":
            return (0.0, 100.0) if about.norm_mode.value == "range_0_100" else (-100.0, 100.0)
        turn = self.lerobot.model_resolution_table[about.model] - 1
        half = (calibration.range_max - calibration.range_min) / 2 * 360 / turn
        return -half, half

    def health(self, transaction: Transaction) -> dict[str, Health]:
        """Of every motor that answers. Temperatures one by one, because only single reads keep a motor's error flags;
        the rest all at once."""
        if not self.serial:
            return {}
        bus = self.lerobot
        tables = {motor: bus.model_ctrl_table[about.model] for motor, about in bus.motors.items()}
        values: dict[str, dict[str, int]] = {}
        errors: dict[str, str] = {}
        for motor, table in tables.items():
            number = bus.motors[motor].id
            one = partial(bus._read, *table["Present_Temperature"], number, raise_on_error=False)
            value, result, flags = transaction(one)
            if bus._is_comm_success(result):
                values[motor] = {"Present_Temperature": value}
                errors[motor] = bus.packet_handler.getRxPacketError(flags) if flags else ""
        for register in HEALTH_REGISTERS[self.protocol]:
            asked = [motor for motor in values if register in tables[motor] and register not in values[motor]]
            if asked:
                for motor, value in transaction(partial(bus.sync_read, register, asked, normalize=False)).items():
                    values[motor][register] = value
        return {motor: decode_health(bus.motors[motor].model, values[motor], errors[motor]) for motor in values}

    def free(self) -> None:
        """Before a transaction: whatever became of the last one, the port is not in use."""
        if self.serial:
            self.lerobot.port_handler.is_using = False

    def switch_off(self) -> None:
        """Every motor is tried. Raises RobotError naming those whose torque may still be on."""
        self._each("off", lambda motor: self._switch(motor, 0))

    def switch_on(self) -> None:
        """Each motor first gets its present position as its goal. Every motor is tried; raises RobotError."""
        if not self.serial:
            self._each("on", lambda motor: self._switch(motor, 1))
            return
        here = self.lerobot.sync_read("Present_Position", normalize=False)
        self._each("on", lambda motor: self._set(motor, "Goal_Position", here[motor]) or self._switch(motor, 1))

    def _each(self, word: str, switch: Callable[[str], str]) -> None:
        failed = {motor: why for motor in self.lerobot.motors if (why := switch(motor))}
        if failed:
            words = "; ".join(f"{self.prefix}{motor}: {why}" for motor, why in failed.items())
            raise RobotError(f"torque could not be switched {word} on {words}")

    def _switch(self, motor: str, on: int) -> str:
        """Why a motor's torque could not be switched; empty if it could."""
        if self.serial:
            why = self._set(motor, "Torque_Enable", on)
            return why or (self._set(motor, "Lock", on) if self.protocol == "feetech" else "")
        try:
            (self._enable if on else self._disable)([motor])
        except (RuntimeError, OSError, ValueError) as error:
            return str(error)
        return ""

    def _set(self, motor: str, register: str, value: int) -> str:
        """A confirmed write. Flags of the motor's state in the answer (overload, heat) are no refusal of the write."""
        bus = self.lerobot
        about = bus.motors[motor]
        address, length = bus.model_ctrl_table[about.model][register]
        raw = bus._encode_sign(register, {about.id: value})[about.id]
        self.free()
        result, flags = bus._write(address, length, about.id, raw, raise_on_error=False)
        if not bus._is_comm_success(result):
            return bus.packet_handler.getTxRxResult(result)
        refused = self.protocol == "dynamixel" and flags & 0x7F
        return bus.packet_handler.getRxPacketError(flags) if refused else ""


def _flush(handler: Any) -> None:
    handler.ser.flush()
    handler.ser.reset_input_buffer()
