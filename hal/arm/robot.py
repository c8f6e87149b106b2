"""A serial arm as Hardware: registers on the bus below, joints in units above."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tactus.hal.arm import settings
from tactus.hal.arm.joints import SYMBOLS, Joint, turning
from tactus.hal.arm.motor_health import SilentMotors, read_health
from tactus.hal.hardware import Hardware, Health, Limits
from tactus.hal.robot import RobotError
from tactus.hal.servo.bus import BusError, PortLost, listed
from tactus.hal.servo.calibration import Scale, differences, load, read_registers, whole_turns
from tactus.hal.servo.serial_bus import SerialBus
from tactus.hal.spec import STATE, Feature, Observation, RobotSpec

if TYPE_CHECKING:
    from tactus.hal.arm.config import ArmConfig

WATCHDOG_UNIT_S = 0.02
"""Dynamixel's Bus Watchdog, register 98, counts in these, up to 127; 0 switches it off and clears a trip."""
STEADY_COUNTS, STEADY_TRIES = 40, 5
"""How far apart two readings in a row may be, 3.5 degrees, and how often they are taken until they agree."""

T = TypeVar("T")


class Arm(Hardware):
    """Position servos on one bus, in LeRobot's units and names: `shoulder_pan.pos` in degrees, `gripper.pos` in %.

    A motor that does not answer keeps its last measured position and that one's stamp, is counted and reported; after
    `fault_after_s` it is a RobotError. A port that is lost is opened again for `reconnect_s`, while the servos hold by
    themselves; if a motor lost its torque meanwhile, that is a fault too. With `governor.dry_run` nothing is written.
    """

    def __init__(self, config: ArmConfig) -> None:
        self._config = config
        self._bus = bus = config.make_bus()
        self._joints: Mapping[str, Joint] = config.joints
        self._file = config.calibration_file()
        settings.check(self._joints)
        self._calibration = load(self._file, bus.motors)
        self._scale = Scale.of(
            self._calibration, bus.motors, {name: joint.unit for name, joint in self._joints.items()}
        )
        self._limits = joint_limits(self._joints, self._scale)
        self._spec, self._task = self._describe(), config.task
        self._events: list[str] = []
        self._silent = SilentMotors(self._events.append, time.monotonic)
        self._forget()

    def _forget(self) -> None:
        """As before anything was read or commanded."""
        self._positions = np.full(len(self._joints), np.nan)
        self._read_ns = np.zeros(len(self._joints), np.int64)
        self._sent: np.ndarray | None = None
        self._torque_on = False
        self._lost_s: float | None = None
        self._reconnects = 0
        self._silent.forget()

    def _describe(self) -> RobotSpec:
        names = tuple(f"{name}.pos" for name in self._joints)
        units = tuple(SYMBOLS[joint.unit] for joint in self._joints.values())
        state = Feature((len(names),), "float32", units, names)
        low, high = (tuple(float(x) for x in bound) for bound in (self._limits.low, self._limits.high))
        action = Feature((len(names),), "float32", units, names, low, high, ("absolute",) * len(names))
        details = {"bus": self._config.bus, "joints": ", ".join(self._joints), "calibration": self._file.name}
        return RobotSpec(self._config.name, self._config.fps, {STATE: state}, action, details)

    @property
    def bus(self) -> SerialBus:
        """The bus below, for diagnosis."""
        return self._bus

    @property
    def limits(self) -> Limits:
        return self._limits

    def connect(self) -> None:
        """Check ids, models and calibration, then switch torque off and write what settings differ.

        Raises RobotError, with torque as it was, if a check fails.
        """
        dry = self._config.governor.dry_run
        self._bus.open()
        try:
            self._forget()
            self._bus.check()
            self._check_calibration()
            if not dry:
                self.set_torque(False)
            differed = settings.configure(self._bus, self._joints, write=not dry)
            if dry:
                self._events += [f"dry run: would set {line}" for line in differed]
            elif differed:
                self._bus.check()  # once more, for warnings of what the settings have not mended
            self._events += self._bus.warnings()
            self._events += whole_turns(self._calibration, self._bus.motors, turning(self._joints))
        except BaseException:
            self._bus.close()
            raise

    def _check_calibration(self) -> None:
        if found := differences(self._calibration, read_registers(self._bus)):
            raise RobotError(
                f"{self._file} is not the calibration that the servos hold: {'; '.join(found)}. If it is this arm's, "
                f"write it to them: tactus calibrate --from={self._file} with the arm's other keys"
            )

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
        return self._scale.to_units(self._steady())

    def _read(self) -> None:
        """Update what answered. Raises RobotError if a motor has been silent for too long, or was never heard."""
        readings = self._try(lambda: self._bus.read("Present_Position"))
        if readings is not None:
            raw = np.array([readings.values.get(name, np.nan) for name in self._joints], np.float64)
            fresh = np.isfinite(raw)
            self._positions[fresh] = self._scale.to_units(raw)[fresh]
            self._read_ns[fresh] = readings.stamp_ns
            self._silent.update(readings.values, readings.failed)
        never = [name for name, at_ns in zip(self._joints, self._read_ns, strict=True) if not at_ns]
        if never:
            raise BusError(f"no position from {', '.join(never)} yet: check its cable and power, then `tactus doctor`")
        for name, seconds in self._silent.longer_than(self._config.fault_after_s).items():
            raise BusError(
                f"{name} (id {self._joints[name].id}) has not answered for {seconds:.1f} s: check its cable and "
                "power, then `tactus doctor`"
            )

    def _try(self, transaction: Callable[[], T]) -> T | None:
        """The transaction's result, or None while the port is lost and may still come back."""
        if self._lost_s is None:
            try:
                return transaction()
            except PortLost as error:
                self._lost_s = time.monotonic()
                self._silent.forget()
                self._events.append(f"{error}; trying to open it again for {self._config.reconnect_s:g} s")
                return None
        gone_s = time.monotonic() - self._lost_s
        try:
            self._bus.open()
            self._resume()
        except BusError as error:
            if gone_s > self._config.reconnect_s:
                raise PortLost(f"{self._config.port} did not come back within {gone_s:.1f} s: {error}") from error
            return None
        self._lost_s = None
        self._reconnects += 1
        self._events.append(f"{self._config.port} is back after {gone_s:.1f} s")
        return transaction()

    def _resume(self) -> None:
        """Servos that kept their power still hold; those that lost it are limp and have forgotten their settings."""
        torque = self._bus.read("Torque_Enable").of_all("Torque_Enable")
        limp = [name for name, on in torque.items() if self._torque_on and not on]
        if limp:
            raise RobotError(f"{', '.join(limp)} lost power while the port was gone; connect again")
        if self._torque_on and self._watchdog:  # it trips while the port is gone, and then servos refuse every goal
            failed = self._bus.write_each("Bus_Watchdog", dict.fromkeys(self._joints, 0))
            failed |= self._bus.write_each("Bus_Watchdog", dict.fromkeys(self._joints, self._watchdog))
            if failed:
                raise BusError(f"the bus watchdog could not be set again: {listed(failed)}")

    @property
    def _watchdog(self) -> int:
        """What Bus_Watchdog is set to while there is torque; 0 for none."""
        seconds = self._config.bus_watchdog_s if self._bus.protocol == "dynamixel" else 0.0
        return round(seconds / WATCHDOG_UNIT_S)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Send goals, in units; returns them as they were given, before rounding to the servos' counts.

        While the port is lost nothing can be sent: then what the servos hold on to, the goals before, is returned.
        """
        self._spec.action.check("action", action)
        raw = self._scale.to_raw(action, clip=True)
        goals = {name: int(value) for name, value in zip(self._joints, raw, strict=True)}
        if self._try(lambda: self._write_goals(goals)):
            self._sent = action.copy()
            return action
        return self._positions.astype(action.dtype) if self._sent is None else self._sent.copy()

    def _write_goals(self, goals: Mapping[str, int]) -> bool:
        self._bus.write("Goal_Position", goals)
        return True

    def set_torque(self, on: bool) -> None:
        try:
            self._switch_torque(on)
        except PortLost:
            self._bus.open()  # it may be there again
            self._switch_torque(on)

    def _switch_torque(self, on: bool) -> None:
        failed: dict[str, str] = {}
        if on:
            if self._bus.protocol == "dynamixel":  # a watchdog that has tripped has every goal refused
                failed = self._bus.write_each("Bus_Watchdog", dict.fromkeys(self._joints, 0))
            raw = np.clip(self._steady(), self._scale.low, self._scale.high)
            goals = {name: int(value) for name, value in zip(self._joints, raw, strict=True)}
            failed |= self._bus.write_each("Goal_Position", goals)
            if failed:
                raise BusError(f"torque stays as it is, no goal could be set: {listed(failed)}")
            self._sent = self._scale.to_units(raw).astype(self._spec.action.dtype)
        else:
            self._torque_on = False
        feetech = self._bus.protocol == "feetech"
        register, value = ("Lock", int(on)) if feetech else ("Bus_Watchdog", self._watchdog * on)
        failed = self._bus.write_each("Torque_Enable", dict.fromkeys(self._joints, int(on)))
        failed = self._bus.write_each(register, dict.fromkeys(self._joints, value)) | failed  # torque's is the graver
        if failed:
            raise BusError(f"torque could not be switched {'on' if on else 'off'}: {listed(failed)}")
        self._torque_on = on

    def health(self) -> Mapping[str, Health]:
        """A motor that has been silent for fault_after_s says so in its error, and nothing else."""
        found = read_health(self._bus, self._joints, self._silent, should_hold=self._torque_on)
        for name, seconds in self._silent.longer_than(self._config.fault_after_s).items():
            found[name] = Health(error=f"nothing for {seconds:.1f} s: check its cable and power")
        return found

    def guardian(self) -> Mapping[str, Any]:
        return {
            "port": self._config.port,
            "baudrate": self._config.baudrate,
            "protocol": self._bus.protocol,
            "ids": [joint.id for joint in self._joints.values()],
        }

    def _steady(self) -> np.ndarray:
        """Counts, float64[J], that two readings in a row agree on: torque comes on there, and a damaged packet whose
        checksum happens to fit must not have an arm jump. Raises BusError naming the motor that does not settle."""
        before = self._raw()
        for _ in range(STEADY_TRIES):
            after = self._raw()
            apart = np.abs(after - before)
            if (apart <= STEADY_COUNTS).all():
                return after
            before = after
        name = list(self._joints)[int(np.argmax(apart))]
        raise BusError(f"{name} is never where it was a moment ago: hold it still, or check its cable")

    def _raw(self) -> np.ndarray:
        values = self._bus.read("Present_Position").of_all("Present_Position")
        return np.array([values[name] for name in self._joints], np.float64)

    def events(self) -> list[str]:
        events = self._events[:]
        del self._events[: len(events)]
        return events

    def counters(self) -> Mapping[str, float]:
        totals = {"reconnects": float(self._reconnects)}
        for key in ("failures", "retries", "timeouts", "corrupt", "errors"):
            totals[f"bus.{key}"] = float(sum(getattr(c, key) for c in self._bus.counters.values()))
        return totals

    def close(self) -> None:
        """Let go of the port; torque stays as it is, because how to end is the Governor's to say."""
        self._bus.close()


def joint_limits(joints: Mapping[str, Joint], scale: Scale) -> Limits:
    """The calibrated range, or less where the table says so. Raises RobotError naming the entry that cannot be."""
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
    return Limits(low, high, np.array([joint.velocity for joint in joints.values()], np.float64))
