"""Traces of LeRobot's own programs, in a few lines: what a Recorder hears in lerobot-eval and in the async server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from tactus.policies.tracing.hooks import Tap, hooked


@contextmanager
def lerobot_eval(
    tap: Tap, policy: Any, preprocessor: Any, postprocessor: Any, layers: str = "blocks"
) -> Iterator[None]:
    """Around LeRobot's `rollout` of one environment: from what its environment's own processors leave, on.

    with lerobot_eval(recorder, policy, preprocessor, postprocessor):
        rollout(env, policy, env_preprocessor, env_postprocessor, preprocessor, postprocessor, seeds=[1000])
    """
    with hooked(tap, policy, preprocessor, postprocessor, layers):
        yield


@contextmanager
def policy_server(tap: Tap, server: Any, layers: str = "blocks") -> Iterator[None]:
    """A lerobot.async_inference.policy_server.PolicyServer that has its policy: from what its client sent, on."""
    from lerobot.async_inference import policy_server as module

    convert = module.raw_observation_to_observation
    sent: dict[str, np.ndarray] = {}

    def converted(raw: Any, features: Any, images: Any) -> Any:
        sent.clear()
        sent.update(_by_feature(raw, features))
        return convert(raw, features, images)

    with (
        mock.patch.object(module, "raw_observation_to_observation", converted),
        hooked(tap, server.policy, server.preprocessor, server.postprocessor, layers, raw=lambda: sent),
    ):
        yield


def _by_feature(raw: Any, features: Any) -> dict[str, np.ndarray]:
    """A robot's own names of motors and cameras, as a dataset of it has them."""
    arrays: dict[str, np.ndarray] = {}
    for name, feature in features.items():
        key = name.rpartition(".")[2]
        if key in raw:
            arrays[name] = np.asarray(raw[key])
        elif name.startswith("observation.") and all(each in raw for each in feature.get("names") or ("",)):
            arrays[name] = np.array([raw[each] for each in feature["names"]], np.float32)
    return arrays
