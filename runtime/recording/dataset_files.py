"""Reads a LeRobotDataset's own files: what its info.json says, and columns of its frames.

LeRobot's class asks the hub for what is not there, and wants the videos too; this reads what is asked for and nothing
else. `key` is the config's that names the dataset: what is raised begins with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.json_file import FETCH, is_pointer, read_json
from tactus.hal.spec import Feature, SpecError


def read_info(key: str, path: Path) -> dict[str, Any]:
    """A dataset's meta/info.json. Raises SpecError: it is not there, not JSON, not a dataset's, of another version."""
    file = path / "meta" / "info.json"
    try:
        info = read_json(file, dict)
    except ValueError as error:
        raise SpecError(f"{key}: {path} is no LeRobotDataset: {file.name}: {error}") from error
    needed = {"total_episodes": int, "fps": int | float, "features": dict}
    wrong = [name for name, kind in needed.items() if not isinstance(info.get(name), kind)]
    if wrong or not isinstance(info["features"].get("action"), dict):
        raise SpecError(
            f"{key}: {path} is no LeRobotDataset: {file.name} lacks {', '.join(wrong) or 'the feature action'}"
        )
    version = str(info.get("codebase_version", "v3.0"))
    if not version.startswith("v3"):
        raise SpecError(
            f"{key}: {path} is a LeRobotDataset {version}; accepted: v3.0, which LeRobot's "
            "lerobot/scripts/convert_dataset_v21_to_v30.py makes of it"
        )
    return info


def vector_feature(
    key: str, path: Path, info: dict[str, Any], name: str, dtype: str, shape: Sequence[int] | None = None
) -> Feature:
    """A vector that info.json describes, with its names and units. shape: if known otherwise. Raises SpecError."""
    stated = info["features"][name]
    try:
        names, units = stated.get("names"), (stated.get("info") or {}).get("unit", "")
        if isinstance(names, dict):  # LeRobot's older datasets have {"motors": [...]}
            names = next(iter(names.values()), None)
        unit = tuple(units) if isinstance(units, list) else units
        return Feature(tuple(stated["shape"] if shape is None else shape), dtype, unit, tuple(names or ()))
    except (TypeError, KeyError, AttributeError, SpecError) as error:
        raise SpecError(f"{key}: {path}: info.json does not describe its {name}: {error}") from error


def read_frames(key: str, path: Path, episodes: Sequence[int], columns: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """The columns of each of these episodes, [T] or [T, width], in the order of its frames.

    Raises SpecError: a file is missing, cut or not fetched, or an episode's frames are not all there.
    """
    try:
        import pyarrow
        from pyarrow import dataset
    except ImportError as error:
        raise SpecError(
            f"{key}: a dataset needs LeRobot ({error}); install it: pip install 'tactus[policy]'"
        ) from error
    files = sorted(file for file in (path / "data").rglob("*.parquet") if file.is_file())
    try:
        if pointers := [file.relative_to(path) for file in files if is_pointer(file)]:
            raise ValueError(f"{pointers[0]} is {FETCH}")
        if not files:
            raise ValueError("there is no data/chunk-000/file-000.parquet in it")
        wanted = [*dict.fromkeys([*columns, "episode_index", "frame_index"])]
        of_episodes = dataset.field("episode_index").isin([*episodes])
        table = dataset.dataset([str(file) for file in files]).to_table(wanted, filter=of_episodes)
        table = table.sort_by([("episode_index", "ascending"), ("frame_index", "ascending")])
        numbers, of_frame = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
        arrays = {name: table[name].to_numpy() for name in columns}
        found = []
        for episode in episodes:
            low, high = np.searchsorted(numbers, [episode, episode + 1])
            if not np.array_equal(of_frame[low:high], np.arange(max(1, high - low))):
                raise ValueError(f"its files under data/ lack frames of episode {episode}")
            found.append({name: np.stack(array[low:high]) for name, array in arrays.items()})
        return found
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise SpecError(f"{key}: {path} cannot be read: {why:.300}") from error
