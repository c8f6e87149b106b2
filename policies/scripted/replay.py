"""A policy that plays a recorded sequence of actions by tick, as `tactus eval --record_actions` writes it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tactus.hal.json_file import FETCH, is_pointer
from tactus.hal.spec import Chunk, Feature, PolicySpec, SpecError
from tactus.policies.policy import Request
from tactus.policies.scripted.config import ReplayConfig
from tactus.policies.scripted.policy import ScriptedPolicy


def build(config: ReplayConfig) -> ReplayPolicy:
    """The policy of a config. Raises SpecError if its file is no recording."""
    return ReplayPolicy(*read_actions(Path(config.path)), horizon=config.horizon)


class ReplayPolicy(ScriptedPolicy[None]):
    """actions[i] of a chunk is the recording's action at tick start + i.

    Past the end, dimensions in mode "delta" are zero and the others keep their last value.
    """

    def __init__(self, actions: np.ndarray, action: Feature, horizon: int) -> None:
        if not len(actions):
            raise SpecError("a recording without actions cannot be replayed")
        action.check("actions[0]", actions[0])
        self._actions = actions
        self._rest = actions[-1].copy()
        self._rest[[mode == "delta" for mode in action.mode] or slice(0)] = 0
        digest = hashlib.sha256(actions.tobytes()).hexdigest()[:8]
        super().__init__(PolicySpec(f"replay {digest}", {}, action, horizon), lambda: None)

    def _chunk(self, request: Request, memory: None) -> Chunk:
        start = request.observation.tick
        chunk = np.repeat(self._rest[None], self._spec.horizon, axis=0)
        played = self._actions[start : start + self._spec.horizon]
        chunk[: len(played)] = played
        return Chunk(start, chunk)


def write_actions(file: Path, actions: Sequence[np.ndarray], action: Feature) -> None:
    """Save executed actions, one per tick, and what they mean."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, actions=np.stack(actions), feature=np.array(json.dumps(action.to_dict())))


def read_actions(file: Path) -> tuple[np.ndarray, Feature]:
    """What write_actions saved; raises SpecError naming the file and what is wrong with it."""
    try:
        if is_pointer(file):
            raise ValueError(FETCH)
        with file.open("rb") as stream:
            begins = stream.read(2)
        if not begins.startswith(b"PK"):
            raise ValueError("it is empty" if not begins else "it is no .npz file")
        with np.load(file, allow_pickle=False) as data:
            return data["actions"], Feature.from_dict(json.loads(str(data["feature"])))
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, BadZipFile, zlib.error) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise SpecError(f"policy.path: {str(file)!r} is not a recording of actions: {why}") from error
