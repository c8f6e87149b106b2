"""The vocabulary every room shares: features, specs, observations and chunks.

Pure data: no sockets, no clocks, no backends. A policy imports this module and nothing else of `hal`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Mode = Literal["absolute", "delta", "binary"]
MODES: tuple[Mode, ...] = ("absolute", "delta", "binary")

NUMBERS = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64"
DTYPES: Mapping[str, np.dtype] = {name: np.dtype(name) for name in NUMBERS.split()}
"""Every dtype an array may have, by the name that specs and the wire use."""

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
IMAGES = "observation.images."

MAX_ELEMENTS = 2**28
MIN_FPS, MAX_FPS = 1e-3, 1e5
MAX_NAME = 200
MAX_TICKS = 2**20
"""The longest chunk, and the longest history."""


class SpecError(ValueError):
    """A spec or an array that contradicts its spec."""


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """A dictionary from a file or a stranger: whatever is wrong with it is a SpecError."""
    try:
        yield
    except SpecError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SpecError(f"{what} cannot be read: {error!r:.100}") from error


@dataclass(frozen=True)
class Feature:
    """One named array.

    shape: without a time axis; images are (height, width, 3), RGB, right side up.
    dtype: numpy's name, e.g. "float32"; kept on the wire.
    unit: one unit for the whole array, or one per element (e.g. ("m", "m", "rad")); "1" is dimensionless, "" is
        not stated (a checkpoint does not say what its numbers mean).
    names: one per element of a vector, empty for images.
    low, high: bounds per element of a vector, empty if unbounded.
    mode: for actions, per element: "absolute" (a target), "delta" (an increment), "binary" (a switch).
    """

    shape: tuple[int, ...]
    dtype: str
    unit: str | tuple[str, ...] = "1"
    names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mode: tuple[Mode, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(f"dtype {self.dtype!r:.40} is not one of {', '.join(DTYPES)}")
        if any(size < 0 for size in self.shape) or math.prod(size or 1 for size in self.shape) > MAX_ELEMENTS:
            raise SpecError(f"shape {self.shape!s:.80} is none; accepted: sizes from 0, {MAX_ELEMENTS} elements in all")
        width = math.prod(self.shape)
        for key in ("names", "low", "high", "mode"):
            value = getattr(self, key)
            if value and len(value) != width:
                raise SpecError(f"{key} has {len(value)} entries for shape {self.shape!s:.80}; expected {width}")
        if isinstance(self.unit, tuple) and len(self.unit) != width:
            raise SpecError(f"unit has {len(self.unit)} entries for shape {self.shape!s:.80}; expected 1 or {width}")
        for mode in self.mode:
            if mode not in MODES:
                raise SpecError(f"mode {mode!r:.40} is not one of {', '.join(MODES)}")

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def units(self) -> tuple[str, ...]:
        """One per element, however `unit` states them; empty if it states none."""
        width = math.prod(self.shape)
        units = self.unit if isinstance(self.unit, tuple) else (self.unit,) * width
        return units if any(units) else ()

    @property
    def nbytes(self) -> int:
        """Of one array."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def check(self, name: str, array: np.ndarray) -> None:
        """Raise SpecError unless `array` has this shape and dtype."""
        if array.shape != self.shape or array.dtype != np.dtype(self.dtype):
            raise SpecError(f"{name}: found {array.dtype}{list(array.shape)}, expected {self.dtype}{list(self.shape)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Feature:
        """Raises SpecError if `data` is not what `to_dict` gives."""
        with _reading("a feature"):
            unit, shape = data.get("unit", "1"), tuple(data["shape"])
            if not all(type(size) is int for size in shape):
                raise SpecError(f"shape: found {shape!s:.80}; accepted: integers")
            return cls(
                shape=shape,
                dtype=str(data["dtype"]),
                unit=unit if isinstance(unit, str) else tuple(str(u) for u in unit),
                names=tuple(str(n) for n in data.get("names", ())),
                low=tuple(float(x) for x in data.get("low", ())),
                high=tuple(float(x) for x in data.get("high", ())),
                mode=tuple(data.get("mode", ())),
            )


def image(height: int, width: int) -> Feature:
    """An RGB camera image, uint8[height, width, 3], right side up."""
    return Feature((height, width, 3), "uint8", unit="grey level")


def _features_to_dict(features: Mapping[str, Feature]) -> dict[str, Any]:
    return {name: feature.to_dict() for name, feature in features.items()}


def _features_from_dict(data: Mapping[str, Any]) -> dict[str, Feature]:
    return {str(name): Feature.from_dict(feature) for name, feature in data.items()}


def _check_name(name: str) -> None:
    if not name.isprintable() or len(name) > MAX_NAME:
        raise SpecError(f"name: found {name!a:.80}; accepted: up to {MAX_NAME} printable characters")


@dataclass(frozen=True)
class RobotSpec:
    """What a robot gives and takes.

    name: one line. fps: control rate in Hz. details: facts that belong beside a result (which assets, which firmware).
    """

    name: str
    fps: float
    observations: Mapping[str, Feature]
    action: Feature
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not MIN_FPS <= self.fps <= MAX_FPS:  # not a number is not within either
            raise SpecError(f"fps: found {self.fps:g}; accepted: {MIN_FPS:g} to {MAX_FPS:g} Hz")
        _check_name(self.name)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "fps": self.fps,
            "observations": _features_to_dict(self.observations),
            "action": self.action.to_dict(),
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobotSpec:
        """Raises SpecError if `data` is not what `to_dict` gives."""
        with _reading("a robot's spec"):
            return cls(
                name=str(data["name"]),
                fps=float(data["fps"]),
                observations=_features_from_dict(data["observations"]),
                action=Feature.from_dict(data["action"]),
                details={str(key): str(value) for key, value in data["details"].items()},
            )


@dataclass(frozen=True)
class PolicySpec:
    """What a policy takes and gives.

    inputs: the observation features it reads; the robot node sends these and no others.
    action: one action; a chunk is [horizon, *action.shape]. Its low and high: what actions were in training, if known.
    observation_offsets: ticks relative to the newest observation, ascending and ending in 0; with more
        than one, every input arrives stacked on a leading time axis.
    takes_prefix: whether it can inpaint after the actions already committed to (real-time chunking).
    fps: the rate it was trained at, None if it does not care or nobody knows.
    n_action_steps: how much of a chunk it expects to be executed before the next one is asked for; None for all.
    casts: vectors of any dtype are welcome; it casts them itself.
    robot: name of the robot it was trained on, or of several, with commas between; None if it does not care or nobody
    knows.
    details: facts that belong beside a result (settings, versions of packages).
    own_names: what the policy itself calls its inputs, if `policy.rename` can give them a robot's names.
    can_lack: cameras that `policy.empty_cameras` can do without.
    """

    name: str
    inputs: Mapping[str, Feature]
    action: Feature
    horizon: int
    observation_offsets: tuple[int, ...] = (0,)
    takes_prefix: bool = False
    fps: float | None = None
    n_action_steps: int | None = None
    casts: bool = False
    robot: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    own_names: Mapping[str, str] = field(default_factory=dict)
    can_lack: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)
        offsets = self.observation_offsets
        if len(offsets) > MAX_TICKS or min(offsets, default=0) < -MAX_TICKS or self.horizon > MAX_TICKS:
            raise SpecError(
                f"horizon {self.horizon!s:.40}, or an observation offset, is further than {MAX_TICKS} ticks"
            )
        if not offsets or offsets[-1] != 0 or list(offsets) != sorted(set(offsets)):
            raise SpecError(f"observation_offsets {offsets!s:.80} must ascend and end in 0, e.g. (-1, 0)")
        if self.horizon < 1:
            raise SpecError(f"horizon {self.horizon!s:.40} must be at least 1")
        if self.n_action_steps is not None and not 1 <= self.n_action_steps <= self.horizon:
            raise SpecError(f"n_action_steps {self.n_action_steps!s:.40} must be 1 to the horizon, {self.horizon}")

    @functools.cached_property
    def identity(self) -> str:
        """The name, which of a checkpoint has its weights' digest, and the beginning of a SHA-256 of all that the spec
        says, settings among it: what chunks and results call the policy."""
        said = json.dumps(PolicySpec.from_dict(self.to_dict()).to_dict(), sort_keys=True)
        return f"{self.name[: MAX_NAME - 9]}@{hashlib.sha256(said.encode()).hexdigest()[:8]}"

    @property
    def robots(self) -> tuple[str, ...]:
        """Names of the robots it was trained on; empty for any."""
        return tuple(name.strip() for name in (self.robot or "").split(",") if name.strip())

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "inputs": _features_to_dict(self.inputs),
            "action": self.action.to_dict(),
            "horizon": self.horizon,
            "observation_offsets": list(self.observation_offsets),
            "takes_prefix": self.takes_prefix,
            "fps": self.fps,
            "n_action_steps": self.n_action_steps,
            "casts": self.casts,
            "robot": self.robot,
            "details": dict(self.details),
            "own_names": dict(self.own_names),
            "can_lack": list(self.can_lack),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PolicySpec:
        """Raises SpecError if `data` is not what `to_dict` gives."""
        with _reading("a policy's spec"):
            fps, steps = data.get("fps"), data.get("n_action_steps")
            return cls(
                name=str(data["name"]),
                inputs=_features_from_dict(data["inputs"]),
                action=Feature.from_dict(data["action"]),
                horizon=int(data["horizon"]),
                observation_offsets=tuple(int(k) for k in data["observation_offsets"]),
                takes_prefix=bool(data["takes_prefix"]),
                fps=None if fps is None else float(fps),
                n_action_steps=None if steps is None else int(steps),
                casts=bool(data.get("casts", False)),
                robot=None if data.get("robot") is None else str(data["robot"]),
                details={str(key): str(value) for key, value in data.get("details", {}).items()},
                own_names={str(key): str(value) for key, value in data.get("own_names", {}).items()},
                can_lack=tuple(str(name) for name in data.get("can_lack", ())),
            )


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, some of which are made when first read (a camera that renders on demand)."""

    def __init__(self, arrays: Mapping[str, np.ndarray | Callable[[], np.ndarray]]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._arrays[name]
        if not isinstance(value, np.ndarray):
            value = self._arrays[name] = value()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@dataclass(frozen=True)
class Observation:
    """Arrays by feature name as they were at the start of `tick`.

    stamps_ns: monotonic capture time per array, in ns, on the clock of the machine that made it.
    tick, task: filled in by the robot node; a robot knows neither.
    """

    arrays: Mapping[str, np.ndarray]
    stamps_ns: Mapping[str, int] = field(default_factory=dict)
    tick: int = 0
    task: str = ""


@dataclass(frozen=True)
class Chunk:
    """`actions[i]` is for tick `start + i`.

    actions: [H, *action.shape], the action's dtype.
    timings_ms: where its time went ("queued", "preprocess", "infer", "postprocess"), on the policy node.
    raw: [H, R], the chunk in a form that means the same at the session's next observation (normalised, maybe wider;
        or what is executed, of a policy whose own numbers are relative to what it observed); never sent, and given
        back as the prefix of the session's next chunk. None if the policy takes no prefix.
    version: of the weights it was inferred with; 0 for those that the policy was loaded with.
    beside: arrays that travel with it: how it was drawn, for a learner.
    policy: whose it is, PolicySpec.identity; filled in on the wire.
    """

    start: int
    actions: np.ndarray
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    raw: np.ndarray | None = None
    version: int = 0
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    policy: str = ""
