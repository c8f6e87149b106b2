"""A robot that is held to its word: its errors are sentences, and it observes what its spec says, at every tick."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.interrupts import not_swallowed
from tactus.hal.robot import Command, Outcome, Robot, RobotConfig, RobotError, Scene
from tactus.hal.spec import DTYPES, Feature, Observation
from tactus.hal.wrappers.wrapper import RobotWrapper


def make(config: RobotConfig, name: str = "robot") -> Robot:
    """The robot that a config describes, checked. Whatever making it raises is a RobotError. name: of the part."""
    part = f"{name} ({RobotConfig.get_choice_name(type(config))})"
    with Fence(part, "making it"), not_swallowed():
        return CheckedRobot(config.make(), part)


class CheckedRobot(RobotWrapper):
    """Passes everything on to `robot`; what is not ours may be behind it.

    Whatever its code raises is a RobotError that says what it was doing, and names the file with the traceback. An
    array that is missing, or has another shape or dtype than the spec states, is one too; numbers that are not finite
    are told as an event, once until they are gone. Arrays that nobody reads are not checked, and stay unread.
    """

    def __init__(self, robot: Robot, part: str) -> None:
        super().__init__(robot)
        self._part = part
        self._features = dict(robot.spec.observations)
        self._action = robot.spec.action
        self._not_finite: set[str] = set()
        self._said: list[str] = []
        calls = "connect scene reset observe act rest stop events counters outcome close"
        self._fences = {call: Fence(part, call) for call in calls.split()}

    def connect(self) -> None:
        with self._fences["connect"], not_swallowed():
            self._robot.connect()

    def scene(self, episode: int) -> Scene:
        with self._fences["scene"]:
            return self._robot.scene(episode)

    def reset(self, episode: int, seed: int) -> None:
        self._not_finite.clear()
        with self._fences["reset"], not_swallowed():
            self._robot.reset(episode, seed)

    def observe(self) -> Observation:
        with self._fences["observe"]:
            seen = self._robot.observe()
            arrays = _Arrays(seen.arrays, self._features, self._read)
            return Observation(arrays, seen.stamps_ns, seen.tick, seen.task)

    def _read(self, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        feature = self._features[name]
        with self._fences["observe"]:  # a simulator may render only now
            array = arrays.get(name)
        if not (isinstance(array, np.ndarray) and (array.shape, array.dtype) == (feature.shape, DTYPES[feature.dtype])):
            raise RobotError(f"{self._part}: observe gave {name} as {_found(array)}; its spec says {_wanted(feature)}")
        if array.dtype.kind == "f":
            self._tell_finite(name, array, feature)
        return array

    def _tell_finite(self, name: str, array: np.ndarray, feature: Feature) -> None:
        finite = np.isfinite(array)
        if finite.all():
            self._not_finite.discard(name)
        elif name not in self._not_finite:
            self._not_finite.add(name)
            [first, *_] = np.argwhere(~finite).tolist()
            where = feature.names[first[0]] if feature.names else first
            self._said.append(f"observed {name} {where} is {array[tuple(first)]}, which is no number to act on")

    def act(self, action: np.ndarray) -> np.ndarray:
        return self.follow(Command(action))

    def follow(self, command: Command) -> np.ndarray:
        with self._fences["act"]:
            sent = self._robot.follow(command)
        if not isinstance(sent, np.ndarray) or sent.shape != self._action.shape:
            wanted = _wanted(self._action)
            raise RobotError(f"{self._part}: act returned {_found(sent)}; what was really sent is {wanted}")
        return sent

    def rest(self) -> None:
        with self._fences["rest"]:
            self._robot.rest()

    def stop(self, reason: str) -> None:
        with self._fences["stop"]:
            self._robot.stop(reason)

    def events(self) -> list[str]:
        said, self._said = self._said, []
        with self._fences["events"]:
            return said + self._robot.events()

    def counters(self) -> Mapping[str, float]:
        with self._fences["counters"]:
            return self._robot.counters()

    def outcome(self) -> Outcome | None:
        with self._fences["outcome"]:
            return self._robot.outcome()

    def close(self) -> None:
        with self._fences["close"]:
            self._robot.close()


class _Arrays(Mapping[str, np.ndarray]):
    """The arrays of a spec, each checked when it is first read."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        features: Mapping[str, Feature],
        read: Callable[[Mapping[str, np.ndarray], str], np.ndarray],
    ) -> None:
        self._arrays, self._features, self._read = arrays, features, read
        self._checked: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._checked:
            if name not in self._features:
                raise KeyError(name)
            self._checked[name] = self._read(self._arrays, name)
        return self._checked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)


def _found(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _wanted(feature: Feature) -> str:
    return f"{feature.dtype}{list(feature.shape)}"
