"""What moves behind the emulated servos: the seam between the bus side and the physics side of the twin."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Joints(Protocol):
    """The joints of one emulated arm, J of them, in the order of its servo ids. Angles in rad, 0 in mid-range."""

    @property
    def low(self) -> np.ndarray:
        """Mechanical lower stops, float64[J]."""
        ...

    @property
    def high(self) -> np.ndarray:
        """Mechanical upper stops, float64[J]."""
        ...

    def drive(self, goal_rad: np.ndarray, torque: np.ndarray) -> None:
        """What the servos do from now on. torque: share of full torque each may use, float64[J], 0 is off (limp)."""

    def positions(self) -> np.ndarray:
        """float64[J], rad."""
        ...

    def velocities(self) -> np.ndarray:
        """float64[J], rad/s."""
        ...

    def loads(self) -> np.ndarray:
        """Share of full torque in use, signed, float64[J]."""
        ...


class Simulation(Protocol):
    """A world with one or more arms in it, advanced by whoever owns the bus loop; one thread.

    It may also have handle(request: dict) -> dict | None, which answers control requests about its scene, and
    state() -> dict, its part of a report on the twin.
    """

    arms: dict[str, Joints]

    def advance(self, now_s: float) -> None:
        """Simulate up to this moment of the caller's monotonic clock; a gap of more than 0.1 s is skipped, not
        caught up with."""
