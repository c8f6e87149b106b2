"""Observations of several ticks, as policies with a history want them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tactus.hal.spec import LazyArrays, Observation


def stacked(
    seen: Sequence[Observation], tick: int, offsets: Sequence[int], names: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """Arrays of those names at `tick` + each offset, on a leading time axis unless there is one offset only; made when
    first read. seen: ascending by tick, not empty; before its first the first is repeated."""
    if len(offsets) == 1:
        return seen[-1].arrays
    past = [next((one for one in reversed(seen) if one.tick <= tick + offset), seen[0]) for offset in offsets]

    def made(name: str) -> Callable[[], np.ndarray]:
        return lambda: np.stack([one.arrays[name] for one in past])

    return LazyArrays({name: made(name) for name in names})
