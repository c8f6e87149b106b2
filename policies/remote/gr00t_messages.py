"""How the versions of Isaac-GR00T lay out an observation and its answer; their serializers are in array_messages.py.

    n1.7   {video: {front: uint8[1, T, H, W, 3]}, state: {arm: float32[1, T, D]}, language: {task: [[text]]}}
           → [{arm: float32[1, H, D]}, info]                                     arrays in ND
    n1.6   the same                                                              arrays in NPY
    n1.5   {video.front: uint8[T, H, W, 3], state.arm: float64[T, D], annotation.human.task_description: [text]}
           → {action.arm: float32[H, D]}                                         arrays in NPY

A request is {endpoint, data, api_token}; what the map calls its keys is what is sent, flat or nested.
Source: gr00t/policy/server_client.py and gr00t_policy.py (N1.6, N1.7), gr00t/eval/service.py (N1.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from tactus.policies.remote.array_messages import ND, NPY, Form

Version = Literal["n1.7", "n1.6", "n1.5"]
FORMS: Mapping[Version, Form] = {"n1.7": ND, "n1.6": NPY, "n1.5": NPY}


def call(endpoint: str, data: Mapping[str, Any] | None, api_token: str | None) -> dict[str, Any]:
    """A request. data: None for an endpoint that takes none."""
    request: dict[str, Any] = {"endpoint": endpoint}
    if data is not None:
        request["data"] = data
    if api_token is not None:
        request["api_token"] = api_token
    return request


def observed(version: Version, observation: Mapping[str, Any]) -> dict[str, Any]:
    """What get_action is given."""
    return dict(observation) if version == "n1.5" else {"observation": observation, "options": None}


def batched(version: Version, array: np.ndarray) -> np.ndarray:
    """An array that begins with its time axis, as it stands in an observation."""
    return array if version == "n1.5" else array[None]


def instruction(version: Version, task: str) -> list[Any]:
    """The instruction, as it stands in an observation."""
    return [task] if version == "n1.5" else [[task]]


def actions_of(answer: object, parts: Mapping[str, int]) -> np.ndarray:
    """[H, A] of what get_action has answered. parts: widths by name, in order. Raises ValueError for another shape."""
    found = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(found, Mapping):
        raise ValueError(f"{type(found).__name__}, expected the actions' parts")
    return np.concatenate([_part(found, name, width) for name, width in parts.items()], axis=1)


def _part(found: Mapping[str, Any], name: str, width: int) -> np.ndarray:
    """[H, width]. Some versions say action.NAME, some batch, and some leave out the axis of a part that is one wide."""
    array = found.get(name, found.get(f"action.{name}"))
    if not isinstance(array, np.ndarray):
        raise ValueError(f"no part {name!r}; there is {', '.join(map(str, found))[:200] or 'nothing'}")
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 1 and width == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"part {name!r} is {array.dtype}{list(array.shape)}, expected {width} wide")
    return array
