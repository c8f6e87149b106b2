"""Training: the items that LeRobot's own reader gives, from memory; and the command around lerobot-train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets_made
import pytest
import torch
from processes import serving
from safetensors.torch import load_file

from tactus.runtime.commands import main
from tactus.runtime.commands.train import LAST


@pytest.mark.slow
@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("episodes", [None, [0, 2]])
def test_the_items_are_lerobots(video: bool, episodes: list[int] | None, tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from tactus.runtime.training.frames_in_memory import FramesInMemory

    root = datasets_made.write(tmp_path / "data", cameras={"image": (64, 96)}, video=video, tasks=("push", "pull"))
    deltas = {"action": [0.0, 0.1, 0.2], "observation.state": [-0.1, 0.0]}
    theirs = LeRobotDataset("tactus/made", root, episodes=episodes, delta_timestamps=deltas)
    reader = theirs.reader
    ours = FramesInMemory(reader)
    assert len(ours) == len(theirs)
    for row in range(len(theirs)):
        expected, found = theirs[row], ours.item(row)
        assert {*expected} == {*found}
        for name, value in expected.items():
            if name == "observation.images.image":
                assert torch.equal(found[name].float() / 255, value), row
            elif isinstance(value, torch.Tensor):
                assert torch.equal(found[name].reshape(value.shape), value), (row, name)
                assert found[name].dtype == value.dtype, name
            else:
                assert found[name] == value


def keys(*recordings: Path, folder: Path, **more: object) -> list[str]:
    given = {"steps": 6, "batch_size": 4, "save_every": 3, "lerobot": "{policy.channels: 16, policy.width: 32}"} | more
    words = [f"--dataset_root=[{','.join(map(str, recordings))}]", f"--output_dir={folder}"]
    return ["train", *words, *(f"--{key}={value}" for key, value in given.items() if value is not None)]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recorded")
    one, other = (
        datasets_made.write(folder / name, cameras={"image": (32, 32)}, tasks=(name,), episodes=2, robot=name)
        for name in ("push", "pull")
    )
    return one, other


@pytest.mark.slow
def test_recordings_of_robots_of_other_names_are_joined(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from tactus.runtime.training.lerobot_process import join

    join([*recordings], tmp_path / "data")
    whole = LeRobotDataset("tactus/data", tmp_path / "data")
    parts = [LeRobotDataset("tactus/part", one) for one in recordings]
    assert whole.meta.robot_type == "pull and push" and whole.num_episodes == 4
    assert [whole[row]["task"] for row in (0, len(whole) - 1)] == ["push", "pull"]
    expected = [part[row] for part in parts for row in range(len(part))]
    for found, true in zip((whole[row] for row in range(len(whole))), expected, strict=True):
        assert all(torch.equal(found[name], true[name]) for name in ("observation.images.image", "action"))
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


ROBOT = ("--robot.type=synthetic", "--robot.width=3", "--robot.steps=12")
ROBOT += ("--robot.cameras=1", "--robot.image_size=[32,32]")


@pytest.mark.long
@pytest.mark.slow
def test_recorded_trained_evaluated_and_put_on_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole chain, of two recordings, through the commands."""
    recordings = []
    ticker = ("--policy.type=ticker", "--policy.width=3", "--policy.cameras=1", "--policy.image_size=[32,32]")
    with serving(tmp_path / "log", *ticker) as (_, endpoint):
        for seed in (1, 2):
            recordings.append(tmp_path / f"seed_{seed}")
            words = [*ROBOT, f"--connect={endpoint}", "--episodes=2", f"--seed={seed}", "--dataset_video=false"]
            out = [f"--dataset_root={recordings[-1]}", f"--output_dir={tmp_path / f'record_{seed}'}"]
            assert main(["record", *words, *out]) == 0
    assert main(keys(*recordings, folder=tmp_path / "run", steps=30, save_every=30)) == 0
    checkpoint = tmp_path / "run" / LAST
    trained = json.loads((checkpoint / "train_config.json").read_text())
    assert (trained["steps"], trained["policy"]["channels"], trained["policy"]["scheduler_decay_steps"]) == (30, 16, 30)
    with serving(tmp_path / "log_2", f"--policy.path={checkpoint}", "--policy.threads=1") as (_, endpoint):
        words = [*ROBOT, f"--connect={endpoint}", "--episodes=2", f"--output_dir={tmp_path / 'eval'}"]
        assert main(["eval", *words]) == 0
    capsys.readouterr()
    assert main(["card", str(checkpoint), f"--results={tmp_path / 'eval'}"]) == 0
    card = (checkpoint / "README.md").read_text()
    for words in ("keypoints policy", "| seed_1 | 2 | 24 | 1 |", "30 steps of 4", "| synthetic | fixed:0 | 2 |"):
        assert words in card, card
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    summary["policy"]["name"] = "act:another:12345678"
    (tmp_path / "eval" / "summary.json").write_text(json.dumps(summary))
    assert main(["card", str(checkpoint), f"--results={tmp_path / 'eval'}"]) == 2
    assert "is of the policy act:another:12345678" in capsys.readouterr().err
    assert main(["card", str(tmp_path)]) == 2
    assert "is no checkpoint in an output_dir of tactus train" in capsys.readouterr().err


@pytest.mark.long
def test_what_was_interrupted_goes_on_to_the_same_bits(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(keys(*recordings, folder=tmp_path / "whole")) == 0
    assert main(keys(*recordings, folder=tmp_path / "cut")) == 0
    steps = tmp_path / "cut" / "training" / "checkpoints"
    shutil.rmtree(steps / "000006")
    (steps / "last").unlink()
    (steps / "last").symlink_to("000003")
    assert main(["train", f"--output_dir={tmp_path / 'cut'}", "--resume"]) == 0  # it knows its recordings
    whole, cut = (load_file(tmp_path / name / LAST / "model.safetensors") for name in ("whole", "cut"))
    assert {*whole} == {*cut} and all(torch.equal(whole[name], cut[name]) for name in whole)


def test_what_a_killed_join_left_is_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for left in ("data.partial", "data.parts"):
        (tmp_path / "run" / left).mkdir(parents=True)
    assert main(["train", "--dataset_root=/nowhere", f"--output_dir={tmp_path / 'run'}"]) == 2
    assert "/nowhere has no meta/info.json" in capsys.readouterr().err, "it would begin, had it recordings"


@pytest.mark.long
def test_it_begins_with_the_weights_of_a_checkpoint(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(keys(*recordings, folder=tmp_path / "first")) == 0
    begin, still = tmp_path / "first" / LAST, "{policy.optimizer_lr: 0, policy.optimizer_weight_decay: 0}"
    assert main(keys(recordings[0], folder=tmp_path / "next", steps=1, begin_with=begin, lerobot=still)) == 0
    before, after = (load_file(tmp_path / name / LAST / "model.safetensors") for name in ("first", "next"))
    assert {*before} == {*after} and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.long
def test_as_many_steps_as_fit_into_the_time(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(keys(*recordings, folder=tmp_path / "run", steps=None, minutes=0.05, save_every=1000)) == 0
    assert json.loads((tmp_path / "run" / LAST / "train_config.json").read_text())["steps"] > 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"dataset_root": "[/nowhere]"}, "dataset_root: /nowhere has no meta/info.json"),
        ({"dataset_root": "[]"}, "dataset_root: not given"),
        ({"cameras": "[wrist]"}, "cameras: wrist not in"),
        ({"environment_state": "true"}, "has no observation.environment_state; leave it out"),
        ({"minutes": 1}, "minutes: steps are given too"),
        ({"resume": "true"}, "has no checkpoint yet"),
        ({"lerobot": "{output_dir: x}"}, "lerobot: output_dir cannot be given here"),
        pytest.param({"type": "resnet", "lerobot": None}, "invalid choice: 'resnet'", marks=pytest.mark.long),
    ],
)
def test_what_cannot_be_trained_is_said(
    more: dict[str, object], words: str, recordings: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    assert main(keys(recordings[0], folder=tmp_path / "run", **more)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "training").exists()


@pytest.mark.slow
def test_recordings_that_differ_are_not_joined(recordings: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    other = datasets_made.write(tmp_path / "other", cameras={"image": (48, 32)})
    assert main(keys(recordings[0], other, folder=tmp_path / "run")) == 2
    assert "differ in observation.images.image; train apart" in capsys.readouterr().err
