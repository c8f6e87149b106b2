"""The limits that every command passes on its way to the motors: arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tactus.hal.hardware import Limits
from tactus.hal.robot import Command


class Limited(NamedTuple):
    """sent: what may be sent of a command. outside, fast: joints that were asked for out of bounds, or too fast."""

    sent: np.ndarray
    outside: np.ndarray
    fast: np.ndarray


def unusable(command: Command, max_age_s: float) -> str:
    """Why a command is not to be followed: "starved", "not finite" or "too old"; empty if it is."""
    if command.starved:
        return "starved"
    if not np.isfinite(command.action).all():
        return "not finite"
    return "" if command.age_s <= max_age_s else "too old"  # an age that is no number is too old


def limited(target: np.ndarray, last: np.ndarray, limits: Limits, elapsed_s: float) -> Limited:
    """`target` within the bounds, and no farther from `last` than the velocity limit lets it come in elapsed_s.

    target: [A], finite. last: [A], the command before this one, within the bounds; its dtype is the answer's. Velocity
    is relative to commands, not to measured positions, which lag behind: a stuck joint must not slow down the others'
    motion, nor sag make each command lower than the one before (LeRobot's max_relative_target reads and does both).
    """
    wanted = np.clip(target.astype(np.float64), limits.low, limits.high)
    step = limits.velocity * elapsed_s
    lower = np.maximum(limits.low, last - step)
    upper = np.minimum(limits.high, last + step)
    sent = np.clip(wanted, lower, upper)
    return Limited(cast_within(sent, lower, upper, last), wanted != target, sent != wanted)


def cast_within(values: np.ndarray, lower: np.ndarray, upper: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """`values` in the dtype of `otherwise`, rounded so that they stay within the bounds.

    otherwise: taken where no number of that dtype lies between the bounds; it must be within them itself.
    """
    cast = values.astype(otherwise.dtype)
    cast = np.where(cast > upper, np.nextafter(cast, otherwise.dtype.type(-np.inf)), cast)
    cast = np.where(cast < lower, np.nextafter(cast, otherwise.dtype.type(np.inf)), cast)
    return np.where((lower <= cast) & (cast <= upper), cast, otherwise)


def placed(position: np.ndarray, limits: Limits, dtype: np.dtype) -> np.ndarray:
    """A measured position as the command that the next one is relative to: within the bounds, of this dtype."""
    inner = ((limits.low + limits.high) / 2).astype(dtype)
    return cast_within(np.clip(position, limits.low, limits.high), limits.low, limits.high, inner)
