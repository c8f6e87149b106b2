"""A recording with another policy's actions: those that it would have taken, and nothing else is changed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from processes import serving

from tactus.runtime.commands import main
from tactus.runtime.recording.dataset_files import read_frames

PUSHER = "--policy.type=pusher"
EVERY_TICK = ("--latency=fixed:0", "--chunk_size_threshold=1", "--dataset_action=requested")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of the scripted pusher, disturbed, asked at every tick."""
    folder = tmp_path_factory.mktemp("relabel")
    with serving(folder / "log", PUSHER) as (_, endpoint):
        words = ["--robot.type=push", f"--connect={endpoint}", "--episodes=2", "--action_noise=0.2", *EVERY_TICK]
        out = [f"--dataset_root={folder / 'seen'}", f"--output_dir={folder / 'results'}"]
        assert main(["record", *words, *out]) == 0
    return folder / "seen"


def relabel(recording: Path, target: Path, *more: str) -> int:
    return main(["relabel", f"--dataset_root={recording}", f"--relabelled_root={target}", PUSHER, *more])


def columns(root: Path) -> dict[str, np.ndarray]:
    names = pq.read_schema(next((root / "data").rglob("*.parquet"))).names
    found = read_frames("dataset_root", root, [0, 1], names)
    return {name: np.concatenate([episode[name] for episode in found]) for name in names}


@pytest.mark.slow
def test_its_own_policy_would_have_done_what_it_did(recording: Path, tmp_path: Path) -> None:
    assert relabel(recording, tmp_path / "again") == 0
    before, after = columns(recording), columns(tmp_path / "again")
    assert {*after} - {*before} == {"plan"}
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], name)
    assert (recording / "meta/tactus.jsonl").read_bytes() == (tmp_path / "again" / "meta/tactus.jsonl").read_bytes()


@pytest.mark.long
@pytest.mark.slow
def test_no_copy_of_a_recording_is_left_behind(recording: Path, tmp_path: Path) -> None:
    """Hugging Face's library makes one of all that it reads, and keeps it."""
    left, others = (tmp_path / "cache" / f"tactus-{host}-999999999" for host in (socket.gethostname(), "elsewhere"))
    for folder in (left, others):
        folder.mkdir(parents=True)
    words = [f"--dataset_root={recording}", f"--relabelled_root={tmp_path / 'again'}", PUSHER]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "tactus", "relabel", *words]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stderr
    assert [*(tmp_path / "cache").iterdir()] == [others]


@pytest.mark.slow
def test_another_policy_s_actions_come_with_their_statistics(recording: Path, tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    assert relabel(recording, tmp_path / "bad", "--policy.mistakes=1") == 0
    before, after = columns(recording), columns(tmp_path / "bad")
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["action"]
    stats = json.loads((tmp_path / "bad" / "meta" / "stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["mean"], after["action"].mean(0), atol=1e-6)
    dataset = LeRobotDataset("tactus/bad", root=tmp_path / "bad")
    assert np.array_equal(np.stack([dataset[row]["action"].numpy() for row in range(len(dataset))]), after["action"])


@pytest.mark.slow
def test_what_is_learned_is_the_chunk_planned_at_a_frame(recording: Path, tmp_path: Path) -> None:
    """Not the actions of the frames after it, which a policy that went elsewhere led to."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from tactus.policies.policy import Request, Session
    from tactus.policies.scripted.config import PusherConfig
    from tactus.runtime.recording.demonstrations import Demonstrations, Frame
    from tactus.runtime.training.frames_in_memory import FramesInMemory

    assert relabel(recording, tmp_path / "planned") == 0
    steps = {"action": [frame / 20 for frame in range(5)]}
    dataset = LeRobotDataset("tactus/planned", root=tmp_path / "planned", delta_timestamps=steps)
    frames, pusher = FramesInMemory(dataset.reader), PusherConfig().make()
    demonstrations = Demonstrations(recording, pusher.spec)
    last = demonstrations.episodes[0].rows[-1]
    pusher.reset(Session("one", 1000, ""))
    for row in range(last + 1):
        [chunk] = pusher.infer([Request("one", demonstrations.observation(Frame(0, row)))])
        item = frames.item(row)
        np.testing.assert_array_equal(item["action"].numpy(), chunk.actions[:5].astype(np.float32))
        assert not item["action_is_pad"].any()
    followed = LeRobotDataset("tactus/seen", root=recording, delta_timestamps=steps)
    assert not np.array_equal(followed[3]["action"].numpy(), frames.item(3)["action"].numpy())
    with pytest.raises(ValueError, match="plans have 8 actions, this policy learns 9"):
        frames._planned(torch.zeros(9, 2), frames.item(0)["plan"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--policy.type=ticker",), "does not fit the dataset"),
        (("--dataset_root=/nowhere",), "/nowhere is no LeRobotDataset"),
        ((), "exists already; give a folder that does not"),
    ],
)
def test_what_cannot_be_relabelled(
    more: tuple[str, ...], words: str, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path if not more else tmp_path / "new"
    assert relabel(recording, target, *more) == 2
    assert words in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
