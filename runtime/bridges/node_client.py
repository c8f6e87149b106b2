"""One foreign robot's session at our policy node, through a Link: it asks, waits, and gets a chunk or a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tactus.hal.spec import Chunk, Feature, Observation, PolicySpec, RobotSpec
from tactus.policies.remote.feature_map import FeatureError, FeatureMap, Leaf
from tactus.runtime.wire.keys import ClientKeys
from tactus.runtime.wire.link import Link

HELLO_S, SILENT_S, LOOK_S = 10.0, 10.0, 0.1
FPS = 30.0
"""Of a robot that does not say, where the policy does not care."""


class NotAnswered(RuntimeError):
    """Why a foreign robot gets no chunk, in words."""


@dataclass(frozen=True)
class Node:
    """Where the policy node is, and what it serves. features: the robots' map."""

    endpoint: str
    spec: PolicySpec
    features: FeatureMap
    keys: ClientKeys | None = None
    insecure: bool = False


class NodeClient:
    """Belongs to one thread. An episode is as long as the instruction stays the same and the tick, if the robot tells
    it, grows; each has a number, from 0, for its seed. Raises LinkError if the node cannot be had.

    What robot it is their protocols do not say: it is taken for the one that the policy was trained on, and shapes and
    dtypes are all that is compared.
    """

    def __init__(self, node: Node, who: str) -> None:
        self._node, self._spec = node, node.spec
        self._link = Link(node.endpoint, keys=node.keys, insecure=node.insecure)
        name = self._spec.robots[0] if self._spec.robots else who
        robot = RobotSpec(name, self._spec.fps or FPS, self._spec.inputs, self._spec.action)
        try:
            self._link.hello(robot, HELLO_S)
        except BaseException:
            self._link.close()
            raise
        self._task: str | None = None
        self._episode, self._tick, self._merged = -1, -1, 0

    def ask(self, observation: object) -> Chunk:
        """observation: theirs. Raises NotAnswered, FeatureError, LinkError."""
        features = self._node.features
        arrays = features.ours(observation, self._ours)
        task, tick = features.task(observation), features.tick(observation)
        if task != self._task or (tick is not None and tick <= self._tick):
            self.begin(task)
        self._tick = self._tick + 1 if tick is None else tick
        seq = self._link.request(Observation(arrays, {}, self._tick, task), 0, self._merged)
        while True:
            self._link.wait(LOOK_S)
            for reply in self._link.poll():
                if reply.chunk is not None and reply.seq == seq:
                    self._merged = seq
                    return reply.chunk
                if reply.error and reply.seq in (seq, 0):
                    raise NotAnswered(reply.error)
            if self._link.silent_s > SILENT_S:
                raise NotAnswered(f"the policy node has been silent for {self._link.silent_s:.0f} s")

    def begin(self, task: str) -> None:
        """A new episode."""
        self._task, self._tick = task, -1
        self._episode += 1
        self._link.reset(self._episode, 0, task)

    def end_episode(self) -> None:
        """The next observation begins a new one."""
        self._task = None

    def _ours(self, leaf: Leaf, found: Any) -> np.ndarray:
        """An array of theirs as our feature has it, as far as axes of one and float widths go. Raises FeatureError."""
        feature = self._spec.inputs[leaf.name]
        try:
            array = np.asarray(found)
        except ValueError as error:
            raise FeatureError(f"{leaf.key}: found no array: {error!s:.80}") from error
        if array.dtype.kind not in "biuf":
            raise FeatureError(f"{leaf.key}: found {type(found).__name__} of {array.dtype}; accepted: numbers")
        axes = len(feature.shape) + (len(self._spec.observation_offsets) > 1)
        while array.ndim > axes and len(array) == 1:
            array = array[0]
        if array.ndim < axes == 1:
            array = array.reshape(1)
        if leaf.channels_first and array.ndim >= 3:
            array = np.moveaxis(array, -3, -1)
        return _cast(array, feature)

    def close(self) -> None:
        self._link.close()


def _cast(array: np.ndarray, feature: Feature) -> np.ndarray:
    """Vectors of floats come in any width; pictures, and all else, as they are."""
    if not feature.is_image and feature.dtype.startswith("float") and array.dtype.kind == "f":
        array = array.astype(feature.dtype, copy=False)
    return np.ascontiguousarray(array)


def described(spec: PolicySpec) -> Mapping[str, Any]:
    """What those who ask are told of the policy."""
    return {"policy": spec.name, "action_horizon": spec.horizon, "action_dim": spec.action.shape[0]}
