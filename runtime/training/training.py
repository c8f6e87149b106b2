"""A training with lerobot-train: its arguments, its process, how far it is, and how many steps fit into the time.

OUTPUT_DIR/data/         the recordings in one, if there are several
OUTPUT_DIR/training/     what lerobot-train writes: checkpoints/last/pretrained_model is what is served
OUTPUT_DIR/training.log  what it says
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, SpecError
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.lab.worker_limit import free_bytes
from tactus.runtime.recording.relabelling import PLAN
from tactus.runtime.training.corrections import WHO, Weights

TRIAL_STEPS, WARM_STEPS = 30, 10
"""Steps that are timed to know how many fit into the time, and those among them that begin slowly."""
SHARE = 0.5
"""Of the free memory, what frames may take."""
UNWEIGHTED = Weights()
Words = Sequence[str]


class Step(NamedTuple):
    """One that lerobot-train has done. at_s: monotonic."""

    step: int
    loss: float
    at_s: float


def check_alike(recordings: Sequence[Path]) -> None:
    """Raise SpecError for one that is no LeRobotDataset, and for several that cannot be joined."""
    infos = [_info(folder) for folder in recordings]
    features = [
        {name: (f["shape"], f["dtype"]) for name, f in info["features"].items() if name not in WHO} for info in infos
    ]
    for folder, found, info in zip(recordings, features, infos, strict=True):
        differ = sorted(name for name in {*found, *features[0]} if found.get(name) != features[0].get(name))
        differ += ["fps"] if info["fps"] != infos[0]["fps"] else []
        if differ:
            raise SpecError(f"dataset_root: {folder} and {recordings[0]} differ in {', '.join(differ)}; train apart")


def _info(folder: Path) -> dict[str, Any]:
    file = folder / "meta" / "info.json"
    if not file.is_file():
        raise SpecError(
            f"dataset_root: {folder} has no meta/info.json; accepted: a LeRobotDataset, as of tactus record"
        )
    return json.loads(file.read_text())


def about(recordings: Sequence[Path]) -> list[dict[str, Any]]:
    """How much there is in each."""
    return [
        {
            "name": folder.name,
            "episodes": info["total_episodes"],
            "frames": info["total_frames"],
            "tasks": info["total_tasks"],
        }
        for folder in recordings
        for info in [_info(folder)]
    ]


def inputs_of(root: Path, cameras: Sequence[str] | None, environment_state: bool) -> dict[str, dict[str, Any]]:
    """LeRobot's input_features, of a recording: these cameras, or all; the robot's state; poses only where they are
    asked for. Raises SpecError for a camera that was not recorded."""
    features = _info(root)["features"]
    recorded = [name.removeprefix(IMAGES) for name in features if name.startswith(IMAGES)]
    if unknown := [name for name in cameras or () if name not in recorded]:
        raise SpecError(f"cameras: {', '.join(unknown)} not in {root}; recorded: {', '.join(recorded) or 'none'}")
    found: dict[str, dict[str, Any]] = {}
    for name in recorded if cameras is None else cameras:
        height, width, depth = features[f"{IMAGES}{name}"]["shape"]
        found[f"{IMAGES}{name}"] = {"type": "VISUAL", "shape": [depth, height, width]}
    if STATE in features:
        found[STATE] = {"type": "STATE", "shape": features[STATE]["shape"]}
    if environment_state:
        if ENVIRONMENT_STATE not in features:
            raise SpecError(f"environment_state: {root} has no {ENVIRONMENT_STATE}; leave it out")
        found[ENVIRONMENT_STATE] = {"type": "ENV", "shape": features[ENVIRONMENT_STATE]["shape"]}
    return found


def tell_who_drove(recordings: Sequence[Path]) -> bool:
    """Whether any of them is one in which a person could take over."""
    return any(WHO.keys() <= _info(folder)["features"].keys() for folder in recordings)


def has_plans(recordings: Sequence[Path]) -> bool:
    """Whether tactus relabel wrote them."""
    return PLAN in _info(recordings[0])["features"]


def fits_in_memory(recordings: Sequence[Path]) -> bool:
    """Whether their frames do, with room to spare."""
    needed = 0
    for info in map(_info, recordings):
        pictures = [prod(f["shape"]) for f in info["features"].values() if f["dtype"] in ("image", "video")]
        vectors = [prod(f["shape"]) for f in info["features"].values() if f["dtype"] not in ("image", "video")]
        needed += info["total_frames"] * (sum(pictures) + 4 * sum(vectors))
    return needed < SHARE * free_bytes()


class LeRobotTrain:
    """words: lerobot-train's arguments, but for its dataset. recordings: what that is, made one in `data` if they are
    several. in_memory: frames are kept in memory. weights: of frames where a person could take over. log: gets what is
    printed. environment: of the process.

    Iterating runs it, a Step at a time; raises ResultsError with its last words if it fails."""

    def __init__(
        self,
        words: Words,
        recordings: Sequence[Path],
        data: Path,
        in_memory: bool,
        log: Path,
        environment: Mapping[str, str],
        weights: Weights = UNWEIGHTED,
    ) -> None:
        several = len(recordings) > 1
        root = data if several else recordings[0]
        dataset = [f"--dataset.root={root}", f"--dataset.repo_id=tactus/{root.name}"]
        join = [str(one) for one in recordings] if several and not root.exists() else []
        self._asked = {"words": [*words, *dataset], "join": join, "data": str(data), "in_memory": in_memory}
        self._asked |= {"root": str(root), "weights": weights}
        self._log, self._environment = log, dict(environment)

    def __iter__(self) -> Iterator[Step]:
        return self._steps(self._asked["words"])

    def _steps(self, words: Words) -> Iterator[Step]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tactus.runtime.training.lerobot_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                text=True,
                start_new_session=True,  # a terminal's Ctrl-C is for whoever started it
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**self._asked, "words": [*words]}) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                yield Step(**json.loads(line))
            if process.wait():
                last = self._log.read_text(errors="replace").strip().splitlines()[-1]
                raise ResultsError(f"{last} (lerobot-train's last words, status {process.returncode}; {self._log})")
        finally:
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def steps_within(self, seconds: float) -> int:
        """How many steps of this training fit into the time, by the median of some that are thrown away."""
        words = self._asked["words"]
        with tempfile.TemporaryDirectory(prefix="tactus_train_") as scratch:
            trial = [f"--steps={TRIAL_STEPS}", "--save_checkpoint=false", f"--output_dir={scratch}/trial"]
            times = [step.at_s for step in self._steps([*words, *trial])][WARM_STEPS:]
        return max(1, int(seconds / median(after - before for before, after in pairwise(times))))
