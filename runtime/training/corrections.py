"""What a person corrected, in training: recordings that say who drove beside those that do not, and how often their
frames are drawn.

A frame's weight is how often it is drawn against a demonstration's. Intervention-weighted regression (Mandlekar et al.
2020, arXiv:2012.06733) raises that of corrections until they are as frequent as all else; HG-DAgger (Kelly et al. 2019,
arXiv:1810.02890) leaves out what the policy did itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tactus.runtime.robot_node.watcher import PERSON, POLICY

WHO = {"intervention": ("bool", False), "driver": ("string", "demonstrator")}
"""Columns of a recording in which a person may take over: LeRobot's dtype, and what they are where nobody could."""


def say_nobody_did(root: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """Give a recording the columns, in files of its own below root/data; returns its info with them."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"bool": pa.bool_(), "string": pa.string()}
    linked = root / "data"
    source = linked.resolve()
    linked.unlink()
    for file in sorted(source.rglob("*.parquet")):
        table = parquet.read_table(file)
        for name, (dtype, value) in WHO.items():
            table = table.append_column(name, pa.array([value] * len(table), kinds[dtype]))
        to = linked / file.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, to)
    added = {name: {"dtype": dtype, "shape": [1], "names": None} for name, (dtype, _) in WHO.items()}
    return {**info, "features": {**info["features"], **added}}


class Weights(NamedTuple):
    """corrected: of frames that a person drove. own: of those that the policy did, where a person could take over."""

    corrected: float = 1.0
    own: float = 1.0


def weights_of(root: Path, weights: Weights) -> np.ndarray:
    """float64 per frame of a recording, in its order; 1 where nobody could take over. ValueError if all are 0."""
    from pyarrow import dataset

    files = sorted(str(file) for file in (root / "data").rglob("*.parquet"))
    table = dataset.dataset(files).to_table(["index", "driver"]).sort_by("index")
    weight = {PERSON: weights.corrected, POLICY: weights.own}
    found = np.array([weight.get(driver, 1.0) for driver in table["driver"].to_pylist()])
    if not found.any():
        raise ValueError("own_weight: found 0, and nothing but what the policy did itself was recorded")
    return found


def weighted_sampler(weights: np.ndarray) -> type[Any]:
    """LeRobot's sampler, which draws frames as often as `weights` says, with repetition: the same for equal seeds, and
    it goes on where it was interrupted."""
    import torch
    from lerobot.datasets import EpisodeAwareSampler

    class WeightedSampler(EpisodeAwareSampler):
        def _iter_epoch(self, epoch: int, start: int) -> Iterator[int]:
            frames = np.array(self.indices)
            upto = torch.from_numpy(np.cumsum(weights[frames]))
            drawn = torch.rand(len(frames), generator=self._epoch_generator(epoch), dtype=torch.float64) * upto[-1]
            yield from frames[torch.searchsorted(upto, drawn).numpy()][start:].tolist()

    return WeightedSampler
