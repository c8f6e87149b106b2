"""A process of its own around lerobot-train: python -m tactus.runtime.training.lerobot_process.

The first line of standard input is JSON: `words`, lerobot-train's arguments; `join`, recordings that are made one, in
`data`, before; `in_memory`, whether frames are kept there; `weights`, of frames in `root`. Standard output gets a line
of JSON for each step: `step`, `loss`, `at_s`; all that LeRobot prints goes to standard error. It ends when standard
input does: with whoever started it, however that ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tactus.runtime.recording.dataset_cache import keep_no_copies
from tactus.runtime.training.corrections import WHO, Weights, say_nobody_did, weighted_sampler, weights_of


def main() -> int:
    """Exit status: lerobot-train's."""
    asked = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    from lerobot.datasets.dataset_reader import DatasetReader
    from lerobot.scripts import lerobot_train

    keep_no_copies()
    if asked["join"]:
        join([Path(one) for one in asked["join"]], Path(asked["data"]))
    if asked["in_memory"]:
        from tactus.runtime.training.frames_in_memory import FramesInMemory

        def get_item(self: Any, idx: int) -> dict[str, Any]:
            if not hasattr(self, "frames_in_memory"):
                self.frames_in_memory = FramesInMemory(self)
            return self.frames_in_memory.item(idx)

        DatasetReader.get_item = get_item
    if (weights := Weights(*asked["weights"])) != Weights():
        lerobot_train.EpisodeAwareSampler = weighted_sampler(weights_of(Path(asked["root"]), weights))
    update: Any = lerobot_train.update_policy

    def told(tracker: Any, *args: Any, **more: Any) -> Any:
        found = update(tracker, *args, **more)
        line = {"step": tracker.steps + 1, "loss": found[0].loss.val, "at_s": time.monotonic()}
        out.write(json.dumps(line) + "\n")
        return found

    lerobot_train.update_policy = told
    sys.argv = ["lerobot-train", *asked["words"]]
    lerobot_train.main()
    return 0


def join(recordings: list[Path], root: Path) -> None:
    """One LeRobotDataset of several, whose robots LeRobot wants to have one name; whole, or not there."""
    from lerobot.datasets.aggregate import aggregate_datasets

    scratch, views = root.with_name(f"{root.name}.partial"), root.with_name(f"{root.name}.parts")
    for left in (scratch, views):
        shutil.rmtree(left, ignore_errors=True)
    infos = [json.loads((one / "meta" / "info.json").read_text()) for one in recordings]
    robot = " and ".join(sorted({str(info.get("robot_type")) for info in infos}))
    told = [WHO.keys() <= info["features"].keys() for info in infos]
    names = [f"tactus/{index}_{folder.name}" for index, folder in enumerate(recordings)]
    places = [views / str(index) for index in range(len(recordings))]
    for recording, view, info, tells in zip(recordings, places, infos, told, strict=True):
        shutil.copytree(recording / "meta", view / "meta")
        for part in ("data", "videos"):
            if (recording / part).exists():
                (view / part).symlink_to(recording / part)
        if any(told) and not tells:
            info = say_nobody_did(view, info)
        (view / "meta" / "info.json").write_text(json.dumps({**info, "robot_type": robot}))
    aggregate_datasets(names, f"tactus/{root.name}", places, scratch)
    shutil.rmtree(views)
    os.replace(scratch, root)


def _end_with_the_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
