"""The small policy that looks: what decides its actions, that LeRobot's own commands take it, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import checkpoints
import datasets_made
import numpy as np
import pytest
import torch

from tactus.hal.spec import IMAGES, STATE, Observation
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Policy, Request, Session

ROOT = Path(__file__).parents[1]
CAMERAS = {f"{IMAGES}image": (48, 64), f"{IMAGES}image2": (32, 32)}
PLUGIN = "--env.discover_packages_path=tactus.policies.keypoints"
"""lerobot-eval takes --policy.… for a key of the checkpoint's config."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = checkpoints.keypoints(tmp_path_factory.mktemp("keypoints") / "one", images=CAMERAS)
    made = LeRobotConfig(path=str(folder), threads=1).make()
    made.reset(Session("robot", 0, 0, ""))
    return made


def seen(seed: int, task: str = "pick up the milk") -> Observation:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.integers(0, 255, (*size, 3), np.uint8) for name, size in CAMERAS.items()}
    arrays[STATE] = rng.standard_normal(8).astype(np.float32)
    return Observation(arrays, dict.fromkeys(arrays, 0), 0, task)


def chunk(policy: Policy, *observations: Observation) -> np.ndarray:
    return np.stack([one.actions for one in policy.infer([Request("robot", seen) for seen in observations])])


@pytest.mark.parametrize("what", [*CAMERAS, STATE, "task"])
def test_everything_that_it_is_given_decides(policy: Policy, what: str) -> None:
    one = seen(0)
    other = seen(0, "pick up the butter") if what == "task" else seen(0)
    if what != "task":
        other.arrays[what][...] = seen(1).arrays[what]  # type: ignore[index]
    assert np.abs(chunk(policy, one) - chunk(policy, other)).max() > 1e-4


def test_robots_in_one_pass_get_what_each_gets_alone(policy: Policy) -> None:
    several = [seen(seed, f"task {seed}") for seed in range(4)]
    alone = np.concatenate([chunk(policy, one) for one in several])
    np.testing.assert_allclose(chunk(policy, *several), alone, atol=1e-5)


def test_words_are_numbers_without_a_vocabulary() -> None:
    from lerobot.processor import TransitionKey

    from tactus.policies.keypoints.processor_keypoints import HashedWordsStep

    def tokens(*tasks: str) -> torch.Tensor:
        step = HashedWordsStep(words=64, longest=6)
        transition = {
            TransitionKey.OBSERVATION: {STATE: torch.zeros(len(tasks), 8)},
            TransitionKey.COMPLEMENTARY_DATA: {"task": [*tasks]},
        }
        return step(transition)[TransitionKey.OBSERVATION]["observation.language.tokens"]  # type: ignore[arg-type,index]

    found = tokens("Pick up the Milk!", "pick up the milk", "", "one two three four five six seven eight")
    assert found.shape == (4, 6) and found.dtype == torch.int64
    assert torch.equal(found[0], found[1]) and found[0, 4:].tolist() == [0, 0]
    assert found[2].tolist() == [0] * 6 and (found[3] > 0).all() and found.max() <= 64
    with pytest.raises(ValueError, match="expected the instruction"):
        tokens(*[None])  # type: ignore[list-item]


def test_it_learns_what_it_is_told_and_is_not_asked_for_it_later(tmp_path: Path) -> None:
    from tactus.policies.keypoints.modeling_keypoints import KeypointsPolicy

    poses, torch_threads = "observation.environment_state", torch.get_num_threads()
    torch.set_num_threads(1)
    folder = checkpoints.keypoints(tmp_path / "one", images={f"{IMAGES}image": (32, 32)}, told_dims=[0, 3])
    policy = KeypointsPolicy.from_pretrained(folder).train()
    assert poses not in LeRobotConfig(path=str(folder), threads=1).make().spec.inputs
    random = torch.Generator().manual_seed(0)
    batch = {f"{IMAGES}image": torch.rand(8, 3, 32, 32, generator=random), STATE: torch.zeros(8, 8)}
    batch |= {"observation.language.tokens": torch.ones(8, 4, dtype=torch.int64), "action": torch.zeros(8, 10, 7)}
    batch |= {"action_is_pad": torch.zeros(8, 10, dtype=torch.bool)}
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    errors = []
    for _ in range(150):
        batch[poses] = 100 + torch.rand(8, 14, generator=torch.Generator().manual_seed(1))
        loss, said = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(said["told_loss"])
    torch.set_num_threads(torch_threads)
    assert errors[-1] < 0.2 * errors[0], (errors[0], errors[-1])
    assert np.isfinite(policy.forward({name: value[:1] for name, value in batch.items()})[1]["told_loss"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {}}, "no camera"),
        ({"n_obs_steps": 2}, "n_obs_steps: found 2"),
        ({"n_action_steps": 11}, "n_action_steps: found 11; accepted: 1 to chunk_size, 10"),
    ],
)
def test_what_it_cannot_be_is_said(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        checkpoints.keypoints(tmp_path / "one", **changes)  # type: ignore[arg-type]


def lerobot(command: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    words = [str(Path(sys.executable).parent / command), PLUGIN, *arguments]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.long
def test_lerobot_trains_it(tmp_path: Path) -> None:
    root = datasets_made.write(tmp_path / "data", cameras={"image": (32, 32)}, tasks=("push", "pull"))
    lerobot(
        "lerobot-train",
        "--dataset.repo_id=tactus/made", f"--dataset.root={root}", f"--output_dir={tmp_path / 'run'}",
        "--policy.type=keypoints", "--policy.device=cpu", "--policy.push_to_hub=false", "--policy.channels=16",
        "--steps=3", "--batch_size=4", "--num_workers=0", "--wandb.enable=false",
    )  # fmt: skip
    folder = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    policy = LeRobotConfig(path=str(folder), threads=1).make()
    policy.reset(Session("robot", 0, 0, ""))
    arrays = {f"{IMAGES}image": np.zeros((32, 32, 3), np.uint8), STATE: np.zeros(2, np.float32)}
    observation = Observation(arrays, dict.fromkeys(arrays, 0), 0, "push")
    assert np.isfinite(chunk(policy, observation)).all() and policy.spec.horizon == 16


@pytest.mark.long
def test_lerobot_evaluates_it(tmp_path: Path) -> None:
    size = {"images": {"observation.image": (96, 96)}, "state": 2, "action": 2}
    folder = checkpoints.keypoints(tmp_path / "one", **size)  # type: ignore[arg-type]
    lerobot(
        "lerobot-eval",
        f"--policy.path={folder}", "--policy.device=cpu", "--env.type=pusht", "--env.episode_length=20",
        "--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert (tmp_path / "out" / "eval_info.json").is_file()
