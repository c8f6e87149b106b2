"""A Robot made of named Robots: arms, cameras, a whole cell. Specs concatenate, observe merges, act splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tactus.hal.rig.config import RigConfig
from tactus.hal.rig.image_skew import ImageSkew
from tactus.hal.robot import Command, Outcome, Robot, RobotConfig, RobotError, Scene
from tactus.hal.spec import IMAGES, Feature, LazyArrays, Observation, RobotSpec, SpecError
from tactus.hal.wrappers.checked import make


class Rig(Robot):
    """Vectors that several parts have are joined, element names prefixed with the part's: `left.gripper`.

    Images keep their camera's name; where two parts share one, it becomes `<part>_<camera>`.
    Parts that act must share one rate; parts without action dimensions (cameras) may run at any.
    """

    def __init__(self, parts: dict[str, Robot], task: str = "", max_skew_ms: float | None = None) -> None:
        self._parts = parts
        self._skew = ImageSkew(max_skew_ms)
        self._task = task
        specs = {name: part.spec for name, part in parts.items()}
        rates = {name: spec.fps for name, spec in specs.items() if spec.action.shape != (0,)}
        if len(set(rates.values())) > 1:
            raise SpecError(f"parts of a rig must act at one rate; found {rates} Hz")
        uses = Counter(key for spec in specs.values() for key in spec.observations if key.startswith(IMAGES))
        self._routes: dict[str, list[tuple[str, str]]] = {}
        for name, spec in specs.items():
            for key in spec.observations:
                renamed = f"{IMAGES}{name}_{key.removeprefix(IMAGES)}" if uses[key] > 1 else key
                self._routes.setdefault(renamed, []).append((name, key))
        observations = {
            key: _join(key, [(name, specs[name].observations[source]) for name, source in route])
            for key, route in self._routes.items()
        }
        action = _join("action", [(name, spec.action) for name, spec in specs.items() if spec.action.shape != (0,)])
        self._widths = {name: spec.action.shape[0] for name, spec in specs.items()}
        fps = next(iter(rates.values())) if rates else min(spec.fps for spec in specs.values())
        details = {f"{name}.{k}": v for name, spec in specs.items() for k, v in spec.details.items()}
        self._spec = RobotSpec("+".join(spec.name for spec in specs.values()), fps, observations, action, details)

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def wall_time(self) -> bool:
        return any(part.wall_time for part in self._parts.values())

    @property
    def renders(self) -> int:
        return sum(part.renders for part in self._parts.values())

    def connect(self) -> None:
        try:
            for part in self._parts.values():
                part.connect()
        except BaseException:
            self.close()
            raise

    def scene(self, episode: int) -> Scene:
        scenes = [part.scene(episode) for part in self._parts.values()]
        task = self._task or next((scene.task for scene in scenes if scene.task), "")
        labels = {
            f"{name}.{k}": v for name, scene in zip(self._parts, scenes, strict=True) for k, v in scene.labels.items()
        }
        return Scene(task, "+".join(scene.group for scene in scenes), labels)

    def reset(self, episode: int, seed: int) -> None:
        for part in self._parts.values():
            part.reset(episode, seed)

    def observe(self) -> Observation:
        seen = {name: part.observe() for name, part in self._parts.items()}
        arrays = {}
        stamps_ns = {}
        for key, route in self._routes.items():
            if len(route) == 1:
                name, source = route[0]
                arrays[key] = lambda name=name, source=source: seen[name].arrays[source]
            else:
                arrays[key] = np.concatenate([seen[name].arrays[source] for name, source in route])
            stamps_ns[key] = min(seen[name].stamps_ns.get(source, 0) for name, source in route)
        self._skew.check(stamps_ns)
        return Observation(LazyArrays(arrays), stamps_ns)

    def live_pictures(self) -> Observation:
        seen = {name: part.live_pictures() for name, part in self._parts.items()}
        arrays, stamps_ns = {}, {}
        for key, route in self._routes.items():
            part, source = route[0]
            if len(route) == 1 and source in seen[part].arrays:
                arrays[key] = lambda one=seen[part], source=source: one.arrays[source]
                stamps_ns[key] = seen[part].stamps_ns.get(source, 0)
        return Observation(LazyArrays(arrays), stamps_ns)

    def act(self, action: np.ndarray) -> np.ndarray:
        return self.follow(Command(action))

    def follow(self, command: Command) -> np.ndarray:
        self._spec.action.check("action", command.action)
        sent, at = [], 0
        for name, part in self._parts.items():
            width = self._widths[name]
            sent.append(part.follow(replace(command, action=command.action[at : at + width])))
            at += width
        return np.concatenate(sent)

    def rest(self) -> None:
        for part in self._parts.values():
            part.rest()

    def stop(self, reason: str) -> None:
        _each("stop", self._parts, lambda part: part.stop(reason))

    def events(self) -> list[str]:
        return [f"{name}: {line}" for name, part in self._parts.items() for line in part.events()]

    def counters(self) -> dict[str, float]:
        parts = {f"{name}.{key}": n for name, part in self._parts.items() for key, n in part.counters().items()}
        return parts | self._skew.counters()

    def outcome(self) -> Outcome | None:
        known = [outcome for part in self._parts.values() if (outcome := part.outcome()) is not None]
        if not known:
            return None
        return Outcome(
            success=all(outcome.success for outcome in known),
            done=any(outcome.done for outcome in known),
            reward=sum(outcome.reward for outcome in known),
        )

    def close(self) -> None:
        _each("close", self._parts, lambda part: part.close())


def build(config: RigConfig) -> Rig:
    """The robot of a config; what is wrong with a part is said with its name."""
    if not config.parts:
        raise SpecError("robot.parts: none; name at least one robot")
    return Rig({name: _made(name, part) for name, part in config.parts.items()}, config.task, config.max_skew_ms)


def _made(name: str, config: RobotConfig) -> Robot:
    """The part; what is wrong with its config is said with its name."""
    try:
        return make(config, name)
    except (RobotError, SpecError) as error:
        raise type(error)(f"{name}: {error}") from error


def _each(verb: str, parts: dict[str, Robot], do: Callable[[Robot], None]) -> None:
    """Do it to every part, whatever happens to the others, an interrupt included, and complain afterwards."""
    errors: list[Exception] = []
    interrupt: KeyboardInterrupt | None = None
    for part in parts.values():
        try:
            do(part)
        except Exception as error:  # noqa: BLE001 - the other parts are still to be seen to
            errors.append(error)
        except KeyboardInterrupt as error:
            interrupt = error
    if errors:
        raise ExceptionGroup(f"some parts of the rig did not {verb}", errors)
    if interrupt is not None:
        raise interrupt


def _join(key: str, parts: list[tuple[str, Feature]]) -> Feature:
    if not parts:
        return Feature((0,), "float32")
    if len(parts) == 1:
        return parts[0][1]
    for _, feature in parts:
        if len(feature.shape) != 1 or feature.dtype != parts[0][1].dtype:
            found = ", ".join(f"{n}: {f.dtype}{list(f.shape)}" for n, f in parts)
            raise SpecError(f"{key} cannot be joined across parts; found {found}; expected vectors of one dtype")

    def elements(field: str, default: object) -> tuple:
        values = [getattr(feature, field) or (default,) * feature.shape[0] for _, feature in parts]
        return tuple(value for group in values for value in group)

    units = [f.unit if isinstance(f.unit, tuple) else (f.unit,) * f.shape[0] for _, f in parts]
    names = [f"{name}.{element}" for name, f in parts for element in (f.names or range(f.shape[0]))]
    bounded = all(feature.low for _, feature in parts)
    return Feature(
        shape=(len(names),),
        dtype=parts[0][1].dtype,
        unit=tuple(unit for group in units for unit in group),
        names=tuple(names),
        low=elements("low", 0.0) if bounded else (),
        high=elements("high", 0.0) if bounded else (),
        mode=elements("mode", "absolute") if any(f.mode for _, f in parts) else (),
    )
