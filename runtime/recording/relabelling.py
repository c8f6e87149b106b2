"""A recording once more, with what another policy would do at each of its frames.

What a policy saw where it went by itself, and what one that knows better does from there: DAgger (arXiv 1011.0686).
A policy of chunks learns the whole chunk that the other plans at a frame. The actions that it takes at this frame and
at those after it are no such plan: they answer where the first one went on going.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy, Request, Session
from tactus.runtime.recording.dataset_cache import keep_no_copies
from tactus.runtime.recording.demonstrations import Demonstrations, Frame

PLAN = "plan"
"""The feature that a relabelled recording has besides: float32[H·A], the chunk planned at each frame."""


def plans_of(
    policy: Policy, demonstrations: Demonstrations, seed: int, done: Callable[[int], object] = lambda frames: None
) -> np.ndarray:
    """float32[N, H, A]: the policy's chunk at every frame, asked in order, an episode a session.

    demonstrations: every episode of a recording. done: told how many more frames were asked. Raises SpecError: a frame
    cannot be read, the policy raises, or plans what is no action.
    """
    frames, width = demonstrations.total_frames, int(np.prod(demonstrations.action.shape))
    plans = np.full((frames, policy.spec.horizon, width), np.nan, np.float32)
    for place, episode in enumerate(demonstrations.episodes):
        session = f"episode {episode.number}"
        with Fence(f"policy {policy.spec.name}", f"acting in {session}", SpecError):
            for frame, row in enumerate(episode.rows):
                observation = demonstrations.observation(Frame(place, frame))
                if not frame:
                    policy.reset(Session(session, seed + episode.number, observation.task))
                [chunk] = policy.infer([Request(session, observation)])
                plans[row] = chunk.actions.reshape(-1, width)
            policy.end(session)
        if not np.isfinite(plans[episode.rows]).all():
            raise SpecError(f"policy {policy.spec.name} planned an action that is not finite in {session}")
        done(len(episode.rows))
    return plans


def write_relabelled(source: Path, target: Path, plans: np.ndarray) -> None:
    """The recording `source` as `target`, which must not exist yet, with these plans [N, H, A], and their first actions
    as its own; whole, or not there. Raises OSError."""
    from lerobot.datasets.dataset_tools import recompute_stats
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from pyarrow import parquet

    scratch = target.with_name(f"{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(source, scratch, ignore=shutil.ignore_patterns("images"))  # what videos and tables were made of
        for file in sorted((scratch / "data").rglob("*.parquet")):
            parquet.write_table(_with_plans(parquet.read_table(file), plans), file)
        file = scratch / "meta" / "info.json"
        info = json.loads(file.read_text())
        info["features"][PLAN] = {"dtype": "float32", "shape": [plans[0].size], "names": None}
        file.write_text(json.dumps(info, indent=4))
        logging.getLogger().setLevel(logging.WARNING)
        with contextlib.redirect_stderr(io.StringIO()):  # a bar of LeRobot's
            keep_no_copies()
            recompute_stats(LeRobotDataset("tactus/relabelled", root=scratch))
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _with_plans(table: Any, plans: np.ndarray) -> Any:
    """A pyarrow table of frames. Its note for Hugging Face's library, which lists the columns, goes: info.json does."""
    import pyarrow

    found = plans[table["index"].to_numpy()]
    place = table.column_names.index("action")
    field = table.schema.field(place)
    first = found[:, 0, 0] if pyarrow.types.is_floating(field.type) else found[:, 0].tolist()  # one alone is a number
    table = table.set_column(place, field, pyarrow.array(first, field.type))
    if PLAN in table.column_names:
        table = table.drop_columns(PLAN)
    whole = pyarrow.array(found.reshape(len(found), -1).tolist(), pyarrow.list_(pyarrow.float32(), plans[0].size))
    return table.append_column(PLAN, whole).replace_schema_metadata()
