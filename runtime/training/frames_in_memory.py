"""A LeRobotDataset's frames, kept in memory: the items of LeRobot's reader, without a file or a decoder for each.

LeRobot's takes 2 ms for a frame of vectors and more for one with pictures, which a small network learns from in less.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from lerobot.datasets.dataset_reader import DatasetReader
from lerobot.datasets.video_utils import decode_video_frames
from torch import Tensor

from tactus.runtime.recording.relabelling import PLAN

AT_ONCE = 256
"""Rows that are read at a time."""


class FramesInMemory:
    """reader: LeRobot's, whose data is there. Pictures are uint8[N, 3, H, W], as LeRobot's training loop takes them."""

    def __init__(self, reader: DatasetReader) -> None:
        self._reader, meta = reader, reader._meta
        self._cameras = [*meta.camera_keys]
        assert meta.tasks is not None
        self._columns = _read(reader)
        rows = self._columns["episode_index"].reshape(-1)
        ends = torch.searchsorted(rows, rows, right=True)
        self._begin, self._end = torch.searchsorted(rows, rows), ends
        self._deltas = {key: torch.tensor(found) for key, found in (reader.delta_indices or {}).items()}
        self._tasks = [*meta.tasks.index]

    def __len__(self) -> int:
        return len(self._begin)

    def item(self, row: int) -> dict[str, Any]:
        """As DatasetReader.get_item, but for pictures, which stay bytes, and for plans, which are what is learned."""
        item: dict[str, Any] = {name: column[row] for name, column in self._columns.items()}
        for key, deltas in self._deltas.items():
            wanted = row + deltas
            begin, end = self._begin[row], self._end[row]
            item[key] = self._columns[key][wanted.clamp(begin, end - 1)]
            item[f"{key}_is_pad"] = (wanted < begin) | (wanted >= end)
        if PLAN in item and "action" in self._deltas:
            item["action"], item["action_is_pad"] = self._planned(item["action"], item[PLAN])
        if self._reader._image_transforms is not None:
            item |= {camera: self._reader._image_transforms(item[camera]) for camera in self._cameras}
        item["task"] = self._tasks[int(item["task_index"])]
        return item

    def _planned(self, actions: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        """The chunk that was planned at a frame, in the place of the actions of the frames that followed."""
        whole = plan.reshape(-1, actions.shape[-1])
        if len(whole) < len(actions) or self._deltas["action"][0] != 0:
            raise ValueError(f"plans have {len(whole)} actions, this policy learns {len(actions)} from the frame on")
        return whole[: len(actions)], torch.zeros(len(actions), dtype=torch.bool)


def _read(reader: DatasetReader) -> dict[str, Tensor]:
    """Every column of the dataset, and its videos' frames."""
    meta, table = reader._meta, reader.hf_dataset
    assert table is not None
    count = len(table)
    columns: dict[str, Tensor] = {}
    rows = table.with_format("numpy")

    def fill(begin: int) -> None:
        for name, values in rows[begin : begin + AT_ONCE].items():
            if np.asarray(values).dtype.kind not in "biuf":  # a text, which no policy reads from a column
                continue
            found = torch.from_numpy(np.ascontiguousarray(np.stack(values)))  # type: ignore[arg-type]
            if name in meta.image_keys:
                found = found.permute(0, 3, 1, 2)
            if name not in columns:
                columns[name] = torch.empty(count, *found.shape[1:], dtype=found.dtype)
            columns[name][begin : begin + len(found)] = found

    fill(0)  # makes the columns
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # pictures are decoded outside of Python's lock
        list(pool.map(fill, range(AT_ONCE, count, AT_ONCE)))
    for key in meta.video_keys:
        columns[key] = _decoded(reader, key, columns)
    return columns


def _decoded(reader: DatasetReader, key: str, columns: dict[str, Tensor]) -> Tensor:
    """uint8[N, 3, H, W] of a camera's videos, an episode at a time."""
    meta, episodes = reader._meta, columns["episode_index"].reshape(-1)
    assert meta.episodes is not None
    found = None
    for episode in episodes.unique().tolist():
        rows = (episodes == episode).nonzero()[:, 0]
        begin_s = meta.episodes[episode][f"videos/{key}/from_timestamp"]
        times = [begin_s + float(time) for time in columns["timestamp"][rows]]
        file = reader.root / meta.get_video_file_path(episode, key)
        frames = decode_video_frames(file, times, reader._tolerance_s, reader._video_backend, return_uint8=True)
        if found is None:
            found = torch.empty(len(episodes), *frames.shape[1:], dtype=torch.uint8)
        found[rows] = frames
    assert found is not None
    return found
