"""The interface of a servo bus: motors and registers by name; a read returns values, and the motors that failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from tactus.hal.robot import RobotError


class BusError(RobotError):
    """The bus or a motor on it: which, what was found, what to do."""


class PortLost(BusError):
    """The serial port is gone: unplugged, or its other end closed."""


def listed(failed: Mapping[str, str]) -> str:
    """Why motors failed, by name, as part of a message."""
    return "; ".join(f"{name}: {why}" for name, why in failed.items())


@dataclass(frozen=True)
class Motor:
    """One servo as the bus knows it. model: e.g. "sts3215", "xl330-m288"."""

    id: int
    model: str


@dataclass(frozen=True)
class Readings:
    """What a read of one register gave, by motor name; a motor is in exactly one of `values` and `failed`.

    values: decoded (signed where the register is). failed: why. errors: error flags a motor sent along, as it
    sent them; only motors whose flags are not 0. stamp_ns: monotonic, when the last answer arrived.
    """

    values: Mapping[str, int]
    failed: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    stamp_ns: int = 0

    def of_all(self, register: str) -> dict[str, int]:
        """The values; raises BusError naming the motors that did not tell theirs. register: what was read."""
        if self.failed:
            raise BusError(f"{register} could not be read: {listed(self.failed)}")
        return dict(self.values)


@dataclass
class MotorCounters:
    """Of one motor since `open`: what failed for good, what a retry mended, and faulty answers by kind."""

    failures: int = 0
    retries: int = 0
    timeouts: int = 0
    corrupt: int = 0
    errors: int = 0


class ServoBus(ABC):
    """Named motors on one serial port. Thread-safe: every call is one transaction under the bus's lock.

    Registers go by LeRobot's names (Present_Position, Goal_Position, Torque_Enable, …); values are integers as the
    servo counts, signed where the register is. Input is flushed before each request, reads wait in select(), retries
    are bounded. A lost port raises PortLost from every call until `open` succeeds again.
    """

    protocol: str
    """"feetech" or "dynamixel"."""
    port: str
    baudrate: int
    motors: Mapping[str, Motor]
    counters: Mapping[str, MotorCounters]

    @abstractmethod
    def open(self) -> None:
        """Open the port. Raises BusError: no such port (lists those there are), no permission, in use, bad baudrate."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the port; torque stays as it is."""

    @abstractmethod
    def ping(self, motor_id: int) -> int | None:
        """The model number of a motor, None if nobody answers at this id."""

    @abstractmethod
    def scan(self) -> dict[int, int]:
        """Ids that answer on the bus at this baudrate, with their model numbers."""

    @abstractmethod
    def check(self) -> None:
        """Raise BusError unless every motor answers, as the model it should be; names the first silent one, tells
        wrong ids, duplicate ids and a wrong baudrate apart where the bus lets it."""

    @abstractmethod
    def read(self, register: str, motors: Iterable[str] | None = None, retries: int = 2) -> Readings:
        """One sync read; then only the motors that failed are asked again, at most `retries` times."""

    @abstractmethod
    def write(self, register: str, values: Mapping[str, int]) -> None:
        """One sync write; nobody confirms it."""

    @abstractmethod
    def write_each(self, register: str, values: Mapping[str, int], retries: int = 2) -> dict[str, str]:
        """Confirmed writes, one by one. Every motor is tried; returns those that failed, and why."""

    @abstractmethod
    def describe_error(self, flags: int) -> str:
        """The names of a motor's error flags."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
