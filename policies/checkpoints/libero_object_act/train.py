"""lerobot-train on recordings of vectors, with all frames in memory: 35 times less time per item, the same items.

python train.py RECORDING… --lerobot-train's keys, but for --dataset.*

Joins the recordings into OUTPUT_DIR.data, raises the standard deviations that would blow up (see FLOOR), and hands
over to lerobot-train.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.dataset_reader import DatasetReader
from lerobot.scripts.lerobot_train import main as lerobot_train

FLOOR = {"observation.environment_state": 0.01}
"""The basket hardly moves: divided by a deviation of 1e-10 m, a nudge at run time would be a million."""


def join(recordings: list[Path], root: Path) -> None:
    """One LeRobotDataset out of several, with floored deviations in its stats."""
    aggregate_datasets([f"tactus/{r.name}" for r in recordings], f"tactus/{root.name}", recordings, root)
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    for name, floor in FLOOR.items():
        stats[name]["std"] = [max(std, floor) for std in stats[name]["std"]]
    file.write_text(json.dumps(stats, indent=4))


def in_memory(self: Any, idx: int) -> dict[str, Any]:
    """DatasetReader.get_item for vectors at one time, and the action's chunk."""
    if not hasattr(self, "frames"):
        table = self.hf_dataset.with_format("numpy")[:]
        self.frames = {name: torch.from_numpy(np.stack(column)) for name, column in table.items()}
        self.ends = torch.from_numpy(np.array(self._meta.episodes["dataset_to_index"]))
    item = {name: column[idx] for name, column in self.frames.items()}
    wanted = idx + torch.tensor(self.delta_indices["action"])
    last = self.ends[item["episode_index"]] - 1
    item["action"] = self.frames["action"][wanted.clamp(max=last)]
    item["action_is_pad"] = wanted > last
    item["task"] = self._meta.tasks.iloc[int(item["task_index"])].name
    return item


def main() -> None:
    """Join the recordings, and train on them."""
    recordings = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    keys = [word for word in sys.argv[1:] if word.startswith("--")]
    output = next(key.partition("=")[2] for key in keys if key.startswith("--output_dir="))
    root = Path(output + ".data")
    if not root.exists():
        join(recordings, root)
    DatasetReader.get_item = in_memory
    sys.argv = ["lerobot-train", *keys, f"--dataset.repo_id=tactus/{root.name}", f"--dataset.root={root}"]
    lerobot_train()


if __name__ == "__main__":
    main()
