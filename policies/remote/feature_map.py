"""Which of our features another system's observation is made of, both ways.

A map has their keys and our names, nested as their observation is:

    {observation/image: observation.images.image, observation/state: "observation.state[0:6]", prompt: task}
    {video: {front: observation.images.front}, state: {arm: "observation.state[0:5]"}, language: {task: task}}

NAME[a:b] is some elements of a vector, NAME:chw a picture with its channels first; `task` is the instruction and `tick`
the tick. Where several keys are parts of one vector of ours, they are put together in the order of their elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tactus.hal.spec import Feature

TASK, TICK = "task", "tick"
MAX_DEPTH = 8
MAX_TASK = 10_000
_LEAF = re.compile(r"(?P<name>[^\[\]:]+)(?:\[(?P<first>\d{1,9}):(?P<last>\d{1,9})\])?(?P<chw>:chw)?")


class FeatureError(ValueError):
    """A map that cannot be, or an observation that does not have what it names: what, and what is accepted."""


class Leaf(NamedTuple):
    """One of their keys, and what of ours it is. part: elements of a vector; None for the whole array."""

    path: tuple[str, ...]
    name: str
    part: tuple[int, int] | None = None
    channels_first: bool = False

    @property
    def key(self) -> str:
        """Their key, for people."""
        return ".".join(self.path)


class FeatureMap:
    """Raises FeatureError for a map that cannot be."""

    def __init__(self, features: Mapping[str, Any]) -> None:
        self.leaves = [*_leaves(features, ())]

    @property
    def names(self) -> set[str]:
        """Our names that it reads, without task and tick."""
        return {leaf.name for leaf in self.leaves} - {TASK, TICK}

    def check(self, inputs: Mapping[str, Feature], whole: bool) -> None:
        """Raises FeatureError unless every name is one of `inputs`, parts lie within them, and no input is left out.
        whole: also unless the parts of a vector make up all of it, as they must where it is put together again."""
        known = ", ".join(inputs) or "none"
        for leaf in self.leaves:
            if leaf.name in (TASK, TICK):
                continue
            if leaf.name not in inputs:
                raise FeatureError(f"{leaf.key}: found {leaf.name!r}; accepted: {known}, task, tick")
            shape = inputs[leaf.name].shape
            if leaf.part is not None and (len(shape) != 1 or not leaf.part[0] < leaf.part[1] <= shape[0]):
                raise FeatureError(f"{leaf.key}: found {leaf.name}[{leaf.part[0]}:{leaf.part[1]}] of shape {shape}")
        if left := [name for name in inputs if name not in self.names]:
            raise FeatureError(f"nothing is {', '.join(left)}; give the key that is")
        if whole:
            for name in inputs:
                self._check_whole(name, inputs[name])

    def _check_whole(self, name: str, feature: Feature) -> None:
        parts = sorted(self._of(name), key=lambda leaf: leaf.part or (0, 0))
        if parts[0].part is None and len(parts) == 1:
            return
        ends = [0, *(leaf.part[1] if leaf.part else -1 for leaf in parts)]
        if [leaf.part[0] if leaf.part else -1 for leaf in parts] != ends[:-1] or ends[-1] != feature.shape[0]:
            raise FeatureError(f"{name}: its keys are not all of its {feature.shape[0]} elements, each once")

    def _of(self, name: str) -> list[Leaf]:
        return [leaf for leaf in self.leaves if leaf.name == name]

    def theirs(self, value: Callable[[Leaf], Any]) -> dict[str, Any]:
        """Their observation, nested. value: what stands at a leaf."""
        found: dict[str, Any] = {}
        for leaf in self.leaves:
            place = found
            for key in leaf.path[:-1]:
                place = place.setdefault(key, {})
            place[leaf.path[-1]] = value(leaf)
        return found

    def ours(self, observation: object, value: Callable[[Leaf, Any], np.ndarray]) -> dict[str, np.ndarray]:
        """Our arrays by name. value: of a leaf, what it is of what was found there. Raises FeatureError."""
        arrays: dict[str, np.ndarray] = {}
        for name in sorted(self.names):
            leaves = sorted(self._of(name), key=lambda leaf: leaf.part or (0, 0))
            parts = [value(leaf, found_at(observation, leaf)) for leaf in leaves]
            for leaf, part in zip(leaves, parts, strict=True):
                if leaf.part is not None and (not part.ndim or part.shape[-1] != leaf.part[1] - leaf.part[0]):
                    width = leaf.part[1] - leaf.part[0]
                    raise FeatureError(f"{leaf.key}: found shape {list(part.shape)}, expected {width} elements")
            try:
                arrays[name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
            except ValueError as error:
                shapes = ", ".join(f"{leaf.key} {list(part.shape)}" for leaf, part in zip(leaves, parts, strict=True))
                raise FeatureError(f"{name}: cannot be put together of {shapes}") from error
        return arrays

    def task(self, observation: object) -> str:
        """The instruction, "" if the map has none. Raises FeatureError."""
        leaves = self._of(TASK)
        if not leaves:
            return ""
        found = found_at(observation, leaves[0])
        while isinstance(found, list) and len(found) == 1:  # GR00T's, by batch and time
            found = found[0]
        if not isinstance(found, str) or len(found) > MAX_TASK:
            raise FeatureError(f"{leaves[0].key}: found {type(found).__name__}; accepted: a text of up to {MAX_TASK}")
        return found

    def tick(self, observation: object) -> int | None:
        """The tick, None if the map has none. Raises FeatureError."""
        leaves = self._of(TICK)
        if not leaves:
            return None
        found = np.asarray(found_at(observation, leaves[0]))
        if found.size != 1 or found.dtype.kind not in "iu" or not 0 <= int(found.item()) < 2**31:
            raise FeatureError(f"{leaves[0].key}: found {found!s:.40}; accepted: a tick, a whole number from 0")
        return int(found.item())


def found_at(observation: object, leaf: Leaf) -> Any:
    """Raises FeatureError if there is nothing at the leaf."""
    place = observation
    for depth, key in enumerate(leaf.path):
        if not isinstance(place, dict) or key not in place:
            has = ", ".join(str(key) for key in place)[:200] if isinstance(place, dict) else type(place).__name__
            raise FeatureError(f"{'.'.join(leaf.path[: depth + 1])} is missing; found {has or 'nothing'}")
        place = place[key]
    return place


def equal_names(inputs: Collection[str]) -> dict[str, str]:
    """The map of a client that calls everything as we do."""
    return {name: name for name in inputs} | {TASK: TASK}


def _leaves(features: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Leaf]:
    if len(path) > MAX_DEPTH:
        raise FeatureError(f"{'.'.join(path)}: nested deeper than {MAX_DEPTH}")
    if not features:
        raise FeatureError(f"{'.'.join(path) or 'features'}: empty; expected their key: our name")
    for key, value in features.items():
        place = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, place)
            continue
        found = _LEAF.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise FeatureError(
                f"{'.'.join(place)}: found {value!r:.60}; accepted: NAME, NAME[a:b], NAME:chw, task, tick"
            )
        part = (int(found["first"]), int(found["last"])) if found["first"] else None
        yield Leaf(place, found["name"], part, bool(found["chw"]))
