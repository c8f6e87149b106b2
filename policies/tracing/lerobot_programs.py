"""Traces of LeRobot's policy server. Its rollout, that of lerobot-eval, takes no more than hooks.py: hooked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tactus.policies.tracing.hooks import Tap, hooked, wrapped


@contextmanager
def policy_server(tap: Tap, server: Any, layers: str = "blocks") -> Iterator[None]:
    """A lerobot.async_inference.policy_server.PolicyServer that has its policy: from what its client sent, on."""
    from lerobot.async_inference import policy_server as module

    sent: dict[str, np.ndarray] = {}

    def noting(convert: Callable[..., Any]) -> Callable[..., Any]:
        def converted(raw: Any, features: Any, images: Any) -> Any:
            sent.clear()
            sent.update(_by_feature(raw, features))
            return convert(raw, features, images)

        return converted

    with (
        wrapped(module, "raw_observation_to_observation", noting),
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
