"""`tactus train`: lerobot-train on recordings, with frames in memory and as many steps as there is time for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tactus.hal.interrupts import interrupted_by
from tactus.hal.json_file import read_json
from tactus.hal.spec import SpecError
from tactus.policies.lerobot.config import PLUGINS
from tactus.runtime.commands.config import Train
from tactus.runtime.commands.verification import INTERRUPTED, PASSED, bars, told
from tactus.runtime.evaluation.results import ResultsError, make_folder, write_whole
from tactus.runtime.training.card import MADE, TRAINED, write_card
from tactus.runtime.training.corrections import Weights
from tactus.runtime.training.training import (
    LeRobotTrain,
    about,
    check_alike,
    fits_in_memory,
    has_plans,
    inputs_of,
    tell_who_drove,
)

STEPS = 20_000
LAST = Path("training") / "checkpoints" / "last" / "pretrained_model"
LEFT = {"data", "data.partial", "data.parts", "training", "training.log", MADE}
"""What may be there already, of one that did not come to its first checkpoint."""
PRECISION = {"float32": "no", "bfloat16": "bf16"}
OURS = (
    "dataset.root",
    "dataset.repo_id",
    "output_dir",
    "resume",
    "config_path",
    "steps",
    "batch_size",
    "seed",
    "num_workers",
)
"""Of lerobot-train's keys, those that have one of ours."""


def main(config: Train, arguments: list[str]) -> int:
    """Exit status 0 when all steps are done, 2 if it cannot begin or go on."""
    return told("train", lambda: _train(config, arguments))


def _train(config: Train, arguments: list[str]) -> int:
    interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    folder = Path(config.output_dir or f"outputs/train_{time.strftime('%Y%m%d_%H%M%S')}")
    checkpoint = folder / LAST
    begun = checkpoint.is_dir() or (folder.is_dir() and {file.name for file in folder.iterdir()} - LEFT)
    if begun and not config.resume:
        raise ResultsError(f"output_dir: {folder} is not empty; --resume goes on with it, or give another folder")
    if config.resume and not checkpoint.is_dir():
        raise ResultsError(f"resume: {folder} has no checkpoint yet ({LAST}); without --resume it begins anew")
    made = json.loads((folder / MADE).read_text()) if config.resume else _made(config, arguments)
    recordings = [Path(one) for one in made["dataset_root"]]
    if wrong := [key for key in config.lerobot if key in OURS]:
        raise SpecError(f"lerobot: {', '.join(wrong)} cannot be given here; use the keys of tactus train")
    check_alike(recordings)
    weights = Weights(made.get("correction_weight", 1.0), made.get("own_weight", 1.0))
    for key, weight in (("correction_weight", weights.corrected), ("own_weight", weights.own)):
        if weight != 1 and not tell_who_drove(recordings):
            raise SpecError(f"{key}: no recording says who drove; tactus record --intervene makes one that does")
    in_memory = fits_in_memory(recordings)
    if not in_memory and has_plans(recordings):
        raise SpecError(
            "dataset_root: relabelled recordings are learned from in memory, and these do not fit into it; give fewer"
        )
    if not in_memory:
        print("the recordings do not fit into memory: frames are read as LeRobot reads them, which is slower")
    where = (recordings, folder / "data", in_memory, folder / "training.log")
    rest = ({**os.environ, "ACCELERATE_MIXED_PRECISION": PRECISION[made["precision"]]}, weights)
    if config.resume:
        kept = json.loads((checkpoint / TRAINED).read_text())
        words, steps = [*_plugin(kept["policy"]["type"]), f"--config_path={checkpoint / TRAINED}"], kept["steps"]
        words.append("--resume=true")
    else:
        words, steps = _words(config), config.steps or STEPS
        make_folder(folder)
        for left in ("training", "data"):
            shutil.rmtree(folder / left, ignore_errors=True)
        if config.minutes is not None:
            print("measuring how long a step takes …", flush=True)
            steps = LeRobotTrain(words, *where, *rest).steps_within(60 * config.minutes)
        words += [f"--steps={steps}", f"--output_dir={folder / 'training'}"]
        if config.type in PLUGINS:
            words.append(f"--policy.scheduler_decay_steps={steps}")
    began_s = time.monotonic()
    _write(folder, made, began_s)  # now: what is killed goes on too
    try:
        with bars() as bar:
            advance, done = bar("training", steps), 0
            for step in LeRobotTrain(words, *where, *rest):
                advance(step.step - done)
                done = step.step
    except KeyboardInterrupt:
        _write(folder, made, began_s)
        print(f"tactus train: interrupted; --output_dir={folder} --resume goes on from the last checkpoint", flush=True)
        return INTERRUPTED
    _write(folder, made, began_s)
    print(f"{steps} steps\ncheckpoint: {checkpoint}\ncard: {write_card(checkpoint, [])}")
    return PASSED


def _made(config: Train, arguments: list[str]) -> dict[str, Any]:
    """What the card and --resume have to know of a training that begins. Raises SpecError without recordings."""
    if not config.dataset_root:
        raise SpecError("dataset_root: not given; accepted: a LeRobotDataset, as of tactus record, or several")
    roots = [os.path.abspath(one) for one in config.dataset_root]
    return {
        "arguments": arguments,
        "dataset_root": roots,
        "recordings": about([Path(one) for one in roots]),
        "precision": config.precision,
        "correction_weight": config.correction_weight,
        "own_weight": config.own_weight,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": 0.0,
    }


def _write(folder: Path, made: dict[str, Any], began_s: float) -> None:
    write_whole(folder / MADE, json.dumps({**made, "seconds": made["seconds"] + time.monotonic() - began_s}, indent=1))


def _words(config: Train) -> list[str]:
    """lerobot-train's arguments, but for data, steps and folder. Raises SpecError for what cannot be begun with."""
    begin = config.begin_with
    if begin is not None:
        _check_beginning(Path(begin), config.type)
    inputs = inputs_of(Path(config.dataset_root[0]), config.cameras, config.environment_state)
    given: dict[str, Any] = {
        **({"policy.type": config.type} if begin is None else {"policy.path": begin}),
        "policy.device": _device(config.device),
        "policy.push_to_hub": "false",
        "policy.input_features": json.dumps(inputs),
        "batch_size": config.batch_size,
        "save_freq": config.save_every,
        "seed": config.seed,
        "num_workers": 0,
        "wandb.enable": "false",
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in config.lerobot.items()},
    }
    return [*_plugin(config.type), *(f"--{key}={value}" for key, value in given.items())]


def _check_beginning(checkpoint: Path, kind: str) -> None:
    file = checkpoint / "config.json"
    try:
        found = read_json(file, dict).get("type")
    except ValueError as error:
        raise SpecError(f"begin_with: {file}: {error}; accepted: a checkpoint's folder") from error
    if found != kind:
        raise SpecError(f"begin_with: {checkpoint} is of type {found}; accepted: {kind}, or another --type")


def _plugin(kind: str) -> list[str]:
    return [f"--env.discover_packages_path={PLUGINS[kind]}"] if kind in PLUGINS else []


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
