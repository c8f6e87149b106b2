"""A serial arm as Hardware: registers on the bus below, joints in units above."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hal.arm.joints import SYMBOLS, Joint
from hal.hardware import Hardware, Health, Limits
from hal.robot import RobotError, Scene
from hal.servo.bus import BusError, PortLost, Readings
from hal.servo.calibration import Scale, differences, load, read_registers
from hal.servo.dynamixel import DynamixelBus
from hal.servo.feetech import FeetechBus
from hal.servo.telemetry import HEALTH_REGISTERS, decode_health
from hal.spec import STATE, Feature, Observation, RobotSpec

if TYPE_CHECKING:
    from hal.arm import ArmConfig

WATCHDOG_UNIT_S = 0.02
"""Dynamixel's Bus Watchdog, register 98, counts in these, up to 127; 0 switches it off and clears a trip."""

T = TypeVar("T")


class Arm(Hardware):
    """Position servos on one bus, in LeRobot's units and names: `shoulder_pan.pos` in degrees, `gripper.pos` in %.

    A motor that does not answer keeps its last measured position and that one's stamp, is counted and reported; after
    `fault_after_s` it is a RobotError. A port that is lost is opened again for `reconnect_s`, while the servos hold by
    themselves; if a motor lost its torque meanwhile, that is a fault too.
    """

    def __init__(self, config: ArmConfig, bus: FeetechBus | DynamixelBus, calibration: Path) -> None:
        self._config = config
        self._bus = bus
        self._joints: Mapping[str, Joint] = config.joints
        self._file = calibration
        self._calibration = load(calibration, bus.motors)
        self._scale = Scale.of(
            self._calibration, bus.motors, {name: joint.unit for name, joint in self._joints.items()}
        )
        self._limits = _limits(self._joints, self._scale)
        self._spec = self._describe()
        self._positions = np.full(len(self._joints), np.nan)
        self._read_ns = np.zeros(len(self._joints), np.int64)
        self._torque_on = False
        self._lost_s: float | None = None
        self._reconnects = 0
        self._events: list[str] = []
        self._silent: set[str] = set()

    def _describe(self) -> RobotSpec:
        names = tuple(f"{name}.pos" for name in self._joints)
        units = tuple(SYMBOLS[joint.unit] for joint in self._joints.values())
        state = Feature((len(names),), "float32", units, names)
        low, high = (tuple(float(x) for x in bound) for bound in (self._limits.low, self._limits.high))
        action = Feature((len(names),), "float32", units, names, low, high, ("absolute",) * len(names))
        details = {"bus": self._config.bus, "joints": ", ".join(self._joints), "calibration": self._file.name}
        return RobotSpec(self._config.name, self._config.fps, {STATE: state}, action, details)

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def bus(self) -> FeetechBus | DynamixelBus:
        """The bus below, for diagnosis."""
        return self._bus

    @property
    def limits(self) -> Limits:
        return self._limits

    def scene(self, episode: int) -> Scene:
        return Scene(self._config.task, self._spec.name)

    def connect(self) -> None:
        """Check ids, models and calibration, then switch torque off and write what settings differ.

        Raises RobotError, with torque as it was, if a check fails.
        """
        self._bus.open()
        try:
            self._bus.check()
            self._check_calibration()
            self.set_torque(False)
            self._configure()
            self._bus.check()  # once more, for warnings of what the settings have not mended
            self._events += self._bus.warnings()
        except BaseException:
            self._bus.close()
            raise

    def _check_calibration(self) -> None:
        if found := differences(self._calibration, read_registers(self._bus)):
            raise RobotError(
                f"{self._file} is not the calibration that the servos hold: {'; '.join(found)}. If it is this arm's, "
                f"write it to them: tactus calibrate --from={self._file} with the arm's other keys"
            )

    def _configure(self) -> None:
        """Only what differs is written: the servos' permanent memory wears out."""
        for register in dict.fromkeys(key for joint in self._joints.values() for key in joint.registers):
            wanted = {name: j.registers[register] for name, j in self._joints.items() if register in j.registers}
            found = self._bus.read(register, wanted)
            if found.failed:
                raise BusError(f"{register} could not be read: {_words(found.failed)}")
            differing = {name: value for name, value in wanted.items() if found.values[name] != value}
            if failed := self._bus.write_each(register, differing):
                raise BusError(f"{register} could not be set: {_words(failed)}")

    def reset(self, episode: int, seed: int) -> None:
        """Nothing of its own; the Governor switches torque on and goes to the starting pose."""

    def observe(self) -> Observation:
        self._read()
        stamp_ns = int(self._read_ns.min())
        return Observation({STATE: self._positions.astype(np.float32)}, {STATE: stamp_ns})

    def measure(self) -> np.ndarray:
        began_ns = time.monotonic_ns()
        self._read()
        late = [name for name, at_ns in zip(self._joints, self._read_ns, strict=True) if at_ns < began_ns]
        if late:
            raise BusError(f"no position from {', '.join(late)}: check its cable, then `tactus doctor`")
        return self._positions.copy()

    def _read(self) -> None:
        """Update what answered. Raises RobotError if a motor has been silent for too long, or was never heard."""
        readings = self._try(lambda: self._bus.read("Present_Position"))
        if readings is not None:
            raw = np.array([readings.values.get(name, np.nan) for name in self._joints], np.float64)
            fresh = np.isfinite(raw)
            self._positions[fresh] = self._scale.to_units(raw)[fresh]
            self._read_ns[fresh] = readings.stamp_ns
            self._report(readings)
        silent_s = (time.monotonic_ns() - self._read_ns) / 1e9
        allowed_s = self._config.fault_after_s if self._lost_s is None else self._config.reconnect_s
        for name, seconds in zip(self._joints, silent_s, strict=True):
            if seconds > allowed_s:
                raise BusError(
                    f"{name} (id {self._joints[name].id}) has not answered for {min(seconds, 999):.1f} s: check its "
                    "cable and power, then `tactus doctor`"
                )

    def _report(self, readings: Readings) -> None:
        for name in readings.failed.keys() - self._silent:
            self._events.append(f"{name} does not answer: {readings.failed[name]}")
        for name in self._silent - readings.failed.keys():
            self._events.append(f"{name} answers again")
        self._silent = {*readings.failed}

    def _try(self, transaction: Callable[[], T]) -> T | None:
        """The transaction's result, or None while the port is lost and may still come back."""
        if self._lost_s is None:
            try:
                return transaction()
            except PortLost as error:
                self._lost_s = time.monotonic()
                self._events.append(f"{error}; trying to open it again for {self._config.reconnect_s:g} s")
                return None
        gone_s = time.monotonic() - self._lost_s
        try:
            self._bus.open()
            self._check_torque_after_loss()
        except BusError as error:
            if gone_s > self._config.reconnect_s:
                raise PortLost(f"{self._config.port} did not come back within {gone_s:.1f} s: {error}") from error
            return None
        self._lost_s = None
        self._reconnects += 1
        self._events.append(f"{self._config.port} is back after {gone_s:.1f} s")
        return transaction()

    def _check_torque_after_loss(self) -> None:
        """Servos that kept their power still hold; those that lost it are limp and have forgotten their settings."""
        torque = _all(self._bus.read("Torque_Enable"), "Torque_Enable")
        limp = [name for name, on in torque.items() if self._torque_on and not on]
        if limp:
            raise RobotError(f"{', '.join(limp)} lost power while the port was gone; connect again")

    def act(self, action: np.ndarray) -> np.ndarray:
        """Send goals, in units; returns them as they were given, before rounding to the servos' counts."""
        self._spec.action.check("action", action)
        raw = self._scale.to_raw(action, clip=True)
        goals = {name: int(value) for name, value in zip(self._joints, raw, strict=True)}
        self._try(lambda: self._bus.write("Goal_Position", goals))
        return action

    def set_torque(self, on: bool) -> None:
        failed: dict[str, str] = {}
        if on:
            readings = self._bus.read("Present_Position")
            raw = np.clip(self._raw(readings), self._scale.low, self._scale.high)
            goals = {name: int(value) for name, value in zip(self._joints, raw, strict=True)}
            failed = self._bus.write_each("Goal_Position", goals)
            if failed:
                raise BusError(f"torque stays off, no goal could be set: {_words(failed)}")
        else:
            self._torque_on = False
        if self._bus.protocol == "dynamixel" and self._config.bus_watchdog_s:
            counts = min(127, round(self._config.bus_watchdog_s / WATCHDOG_UNIT_S)) if on else 0
            failed |= self._bus.write_each("Bus_Watchdog", dict.fromkeys(self._joints, counts))
        failed |= self._bus.write_each("Torque_Enable", dict.fromkeys(self._joints, int(on)))
        if self._bus.protocol == "feetech":
            failed |= self._bus.write_each("Lock", dict.fromkeys(self._joints, int(on)))
        if failed:
            raise BusError(f"torque could not be switched {'on' if on else 'off'}: {_words(failed)}")
        self._torque_on = on

    def health(self) -> Mapping[str, Health]:
        should_hold = self._torque_on
        readings = {register: self._bus.read(register) for register in HEALTH_REGISTERS[self._bus.protocol]}
        found = {}
        for name, joint in self._joints.items():
            values = {register: r.values[name] for register, r in readings.items() if name in r.values}
            flags = max((r.errors.get(name, 0) for r in readings.values()), default=0)
            if values:
                found[name] = decode_health(joint.model, values, self._bus.describe_error(flags))
                if should_hold and found[name].torque_on is False:
                    error = f"{found[name].error}, lost torque".removeprefix(", ")
                    found[name] = replace(found[name], error=error)
        return found

    def guardian(self) -> Mapping[str, Any]:
        return {
            "port": self._config.port,
            "baudrate": self._config.baudrate,
            "protocol": self._bus.protocol,
            "ids": [joint.id for joint in self._joints.values()],
        }

    def _raw(self, readings: Readings) -> np.ndarray:
        values = _all(readings, "Present_Position")
        return np.array([values[name] for name in self._joints], np.float64)

    def events(self) -> list[str]:
        events, self._events = self._events, []
        return events

    def counters(self) -> Mapping[str, float]:
        totals = {"reconnects": float(self._reconnects)}
        for key in ("failures", "retries", "timeouts", "corrupt", "errors"):
            totals[f"bus.{key}"] = float(sum(getattr(c, key) for c in self._bus.counters.values()))
        return totals

    def close(self) -> None:
        """Let go of the port; torque stays as it is, because how to end is the Governor's to say."""
        self._bus.close()


def _limits(joints: Mapping[str, Joint], scale: Scale) -> Limits:
    low, high = scale.bounds()
    for index, (name, joint) in enumerate(joints.items()):
        for key, bound in (("low", joint.low), ("high", joint.high)):
            if bound is not None and not low[index] <= bound <= high[index]:
                raise RobotError(
                    f"robot.joints.{name}.{key}: found {bound:g}; calibrated for {low[index]:.1f} to {high[index]:.1f}"
                )
        low[index] = low[index] if joint.low is None else joint.low
        high[index] = high[index] if joint.high is None else joint.high
        if low[index] >= high[index]:
            raise RobotError(f"robot.joints.{name}: low {low[index]:g} is not below high {high[index]:g}")
        if joint.velocity <= 0:
            raise RobotError(f"robot.joints.{name}.velocity: found {joint.velocity:g}; must be positive")
    return Limits(low, high, np.array([joint.velocity for joint in joints.values()], np.float64))


def _all(readings: Readings, register: str) -> dict[str, int]:
    if readings.failed:
        raise BusError(f"{register} could not be read: {_words(readings.failed)}")
    return dict(readings.values)


def _words(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in failed.items())
