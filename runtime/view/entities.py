"""The entities of a Rerun recording: which cameras, joints and state values of a robot are shown, and their names."""

from __future__ import annotations

from dataclasses import dataclass

from tactus.hal.spec import IMAGES, STATE, Feature, RobotSpec


@dataclass(frozen=True)
class Joint:
    """A dimension of the action.

    index: its place there. measured: its place in the state, None where the state has nothing that compares with it (an
    increment, a switch, no such name). range: what its axis shows, None for as much as there is: a switch jumps, and
    its last bits are nothing to look at.
    """

    name: str
    unit: str
    index: int
    measured: int | None
    range: tuple[float, float] | None = None

    @property
    def title(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


@dataclass(frozen=True)
class Entities:
    """cameras: name in the recording -> name of the observation. joints: one an action dimension. state: name -> place
    in the state, of what no joint is compared with.
    """

    cameras: dict[str, str]
    joints: list[Joint]
    state: dict[str, int]

    @classmethod
    def of(cls, spec: RobotSpec) -> Entities:
        """Pictures are uint8[H, W, 3]; what else has three axes is no picture."""
        cameras = {
            name.removeprefix(IMAGES).removeprefix("observation."): name
            for name, feature in spec.observations.items()
            if feature.is_image and feature.dtype == "uint8" and feature.shape[2] == 3
        }
        state = spec.observations.get(STATE, Feature((0,), "float32"))
        named = [*enumerate(_names(state))]
        joints = [_joint(spec.action, index, named, state) for index in range(spec.action.shape[0])]
        compared = {joint.measured for joint in joints}
        return cls(cameras, joints, {name: place for place, name in named if place not in compared})


def _joint(action: Feature, index: int, state: list[tuple[int, str]], feature: Feature) -> Joint:
    """`x` in px is measured by `x`, or by `agent.x` in px; an increment by nothing."""
    name, unit = _names(action)[index], _unit(action, index)
    found = [place for place, own in state if own == name] or [
        place for place, own in state if own.endswith(f".{name}") and _unit(feature, place) == unit
    ]
    mode = action.mode[index] if action.mode else "absolute"
    shown = None
    if mode == "binary" and action.low and action.high:
        low, high = action.low[index], action.high[index]
        shown = (low - 0.1 * (high - low), high + 0.1 * (high - low))
    return Joint(name, unit, index, found[0] if mode == "absolute" and len(found) == 1 else None, shown)


def _names(feature: Feature) -> tuple[str, ...]:
    return feature.names or tuple(f"{index}" for index in range(feature.shape[0]))


def _unit(feature: Feature, index: int) -> str:
    unit = feature.unit if isinstance(feature.unit, str) else feature.unit[index]
    return "" if unit == "1" else unit
