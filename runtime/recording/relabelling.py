"""A recording once more, with the actions that another policy takes at each of its frames.

What a policy saw where it went by itself, and what one that knows better does there: DAgger (arXiv 1011.0686).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy, Request, Session
from tactus.runtime.recording.demonstrations import Demonstrations, Frame


def actions_of(
    policy: Policy, demonstrations: Demonstrations, seed: int, done: Callable[[int], object] = lambda frames: None
) -> np.ndarray:
    """float64[N, A]: the first action of the policy's chunk at every frame, asked in order, an episode a session.

    demonstrations: every episode of a recording. done: told how many more frames were asked. Raises SpecError: a frame
    cannot be read, the policy raises, or answers what is no action.
    """
    shape = (sum(len(one.rows) for one in demonstrations.episodes), int(np.prod(demonstrations.action.shape)))
    actions = np.full(shape, np.nan)
    for place, episode in enumerate(demonstrations.episodes):
        session = f"episode {episode.number}"
        with Fence(f"policy {policy.spec.name}", f"acting in {session}", SpecError):
            for frame, row in enumerate(episode.rows):
                observation = demonstrations.observation(Frame(place, frame))
                if not frame:
                    policy.reset(Session(session, seed + episode.number, observation.task))
                [chunk] = policy.infer([Request(session, observation)])
                actions[row] = chunk.actions[0].reshape(-1)
            policy.end(session)
        if not np.isfinite(actions[episode.rows]).all():
            raise SpecError(f"policy {policy.spec.name} took an action that is not finite in {session}")
        done(len(episode.rows))
    return actions


def write_relabelled(source: Path, target: Path, actions: np.ndarray) -> None:
    """The recording `source` as `target`, which must not exist yet, with these actions [N, A]; whole, or not there.

    Raises OSError."""
    import pyarrow
    from lerobot.datasets.dataset_tools import recompute_stats
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from pyarrow import parquet

    scratch = target.with_name(f"{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(source, scratch, ignore=shutil.ignore_patterns("images"))  # what videos and tables were made of
        for file in sorted((scratch / "data").rglob("*.parquet")):
            table = parquet.read_table(file)
            place = table.column_names.index("action")
            field = table.schema.field(place)
            found = actions[table["index"].to_numpy()].astype(np.float32)
            values = found[:, 0] if pyarrow.types.is_floating(field.type) else found.tolist()  # one alone is a number
            table = table.set_column(place, field, pyarrow.array(values, field.type))
            parquet.write_table(table, file)
        logging.getLogger("lerobot").setLevel(logging.WARNING)
        recompute_stats(LeRobotDataset("tactus/relabelled", root=scratch))
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
