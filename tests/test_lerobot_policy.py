"""lerobot-eval with --policy.type=tactus, against a policy node that serves the checkpoint: the bits of the checkpoint
itself in lerobot-eval, and so of our own evaluation (test_lerobot_parity.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Serve
from test_lerobot_parity import CHECKPOINTS, PUSHT_STEPS, SEED, pusht_reference
from twins import running_twin

import lerobot_policy_tactus  # as LeRobot does with whatever is installed under such a name
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.scripted.config import TickerConfig
from tactus.runtime.wire.link import Refused

pytestmark = pytest.mark.slow


def tactus_in_lerobot(endpoint: str, rows: int = 1, **keys: Any) -> dict[str, Any]:
    """LeRobot's `rollout` of its PushT with --policy.type=tactus, made as lerobot-eval makes it."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import make_env, make_env_pre_post_processors
    from lerobot.envs.configs import PushtEnv
    from lerobot.policies import make_policy, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout
    from lerobot.utils.random_utils import set_seed

    assert PreTrainedConfig.get_choice_class("tactus") is lerobot_policy_tactus.TactusConfig
    torch.set_num_threads(1)
    env_config = PushtEnv(episode_length=PUSHT_STEPS)
    env = make_env(env_config, n_envs=rows)["pusht"][0]
    config: Any = lerobot_policy_tactus.TactusConfig(endpoint=endpoint, fps=10.0, seed=SEED, device="cpu", **keys)
    policy: Any = make_policy(config, env_cfg=env_config)
    before, after = make_pre_post_processors(config)
    env_before, env_after = make_env_pre_post_processors(env_config, config)
    try:
        set_seed(SEED)
        seeds = [SEED + row for row in range(rows)]
        return rollout(env, policy, env_before, env_after, before, after, seeds=seeds)  # pyright: ignore
    finally:
        policy.close()
        env.close()


@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla", "keypoints"])
def test_lerobot_eval_over_the_node_has_the_checkpoints_bits(kind: str, serve: Serve, tmp_path: Path) -> None:
    """With histories (diffusion), noise (smolvla) and chunks that are not played to their end (act)."""
    CHECKPOINTS[kind](tmp_path / kind)
    expected = pusht_reference(tmp_path / kind)
    node = serve(LeRobotConfig(path=str(tmp_path / kind), threads=1).make())
    actions = tactus_in_lerobot(node.endpoint)["action"][0, : len(expected.actions)].numpy()
    assert len(np.unique(expected.actions, axis=0)) > PUSHT_STEPS / 2, "the policy moves"
    np.testing.assert_array_equal(actions, expected.actions)
    assert node.sessions == 0 or node.counters.errors == 0


def test_rows_of_a_batch_are_episodes_of_their_own(serve: Serve, tmp_path: Path) -> None:
    """Two envs at once do what each does alone."""
    CHECKPOINTS["act"](tmp_path / "act")
    node = serve(LeRobotConfig(path=str(tmp_path / "act"), threads=1).make())
    both = tactus_in_lerobot(node.endpoint, rows=2)["action"]
    alone = tactus_in_lerobot(node.endpoint)["action"]
    np.testing.assert_array_equal(both[0, :PUSHT_STEPS], alone[0, :PUSHT_STEPS])
    assert not np.array_equal(both[0], both[1])


def test_what_does_not_fit_is_said_before_anything_moves(serve: Serve, tmp_path: Path) -> None:
    CHECKPOINTS["act"](tmp_path / "act")
    node = serve(LeRobotConfig(path=str(tmp_path / "act"), threads=1, robot="so101").make())
    with pytest.raises(Refused, match="trained on so101, this is lerobot"):
        tactus_in_lerobot(node.endpoint)
    tactus_in_lerobot(node.endpoint, robot="so101")


@pytest.mark.long
def test_lerobot_rollout_plays_a_folder_that_says_where_the_node_is(serve: Serve, tmp_path: Path) -> None:
    """What lerobot-rollout does with --policy.path: its own loading, processors and engine, frames as of a robot."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import make_pre_post_processors
    from lerobot.rollout.context import _load_pretrained_policy
    from lerobot.rollout.inference.sync import SyncInferenceEngine

    node = serve(TickerConfig(width=6, horizon=4, cameras=1, image_size=(8, 8)).make())
    folder = tmp_path / "node"
    command = ["-m", "lerobot_policy_tactus", folder, "--action_width=6", f"--endpoint={node.endpoint}", "--fps=30"]
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    config: Any = PreTrainedConfig.from_pretrained(str(folder))
    config.pretrained_path, config.device = folder, "cpu"
    policy: Any = _load_pretrained_policy(config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    names = [f"joint_{i}.pos" for i in range(6)]
    features = {"action": {"dtype": "float32", "shape": (6,), "names": names}}
    engine = SyncInferenceEngine(policy, before, after, features, names, "go", "cpu", "so101")
    frame = {"observation.state": np.zeros(6, np.float32), "observation.images.camera_0": np.zeros((8, 8, 3), np.uint8)}
    try:
        for episode in range(2):
            engine.reset()
            played = [engine.get_action(frame) for _ in range(10)]
            assert [float(action[0]) for action in played if action is not None] == [*map(float, range(10))], episode
    finally:
        policy.close()
    assert node.counters.chunks == 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{folder}", "--action_width=6"], "cannot be made: File exists; give a folder that is not there yet"),
        (["{folder}/new", "--action_width=0"], "--action_width: found 0; must be positive"),
        (["{folder}/new", "--action_width=6", "--endpoint=127.0.0.1:5555"], "--endpoint: "),
    ],
)
def test_a_folder_that_cannot_be_is_a_sentence(words: list[str], says: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lerobot_policy_tactus", *(word.format(folder=tmp_path) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not [*tmp_path.iterdir()]


def lerobot(command: str, *words: object) -> str:
    """What a LeRobot command says, as it is typed."""
    done = subprocess.run(
        [Path(sys.executable).with_name(command), *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.long
def test_lerobot_eval_as_it_is_typed(serve: Serve, tmp_path: Path) -> None:
    CHECKPOINTS["act"](tmp_path / "act")
    node = serve(LeRobotConfig(path=str(tmp_path / "act"), threads=1).make())
    env = ["--env.type=pusht", f"--env.episode_length={PUSHT_STEPS}", "--eval.n_episodes=2", "--eval.batch_size=1"]
    here = "--policy.discover_packages_path=tactus.runtime.lerobot_policy"
    asked = [here, "--policy.type=tactus", f"--policy.endpoint={node.endpoint}", "--policy.fps=10"]
    found = []
    for name, words in (("node", asked), ("itself", [f"--policy.path={tmp_path / 'act'}"])):
        lerobot("lerobot-eval", *words, *env, "--policy.device=cpu", f"--output_dir={tmp_path / name}")
        about = json.loads((tmp_path / name / "eval_info.json").read_text())
        found.append([task["metrics"]["sum_rewards"] for task in about["per_task"]])
    assert found[0] == found[1] and len(found[0][0]) == 2
    assert node.counters.chunks > 2


@pytest.mark.long
@pytest.mark.realtime
def test_lerobot_rollout_as_it_is_typed(serve: Serve, tmp_path: Path) -> None:
    """On a follower of LeRobot's own, at an emulated arm's serial port: a degree a tick, from the first tick on."""
    node = serve(TickerConfig(width=6, horizon=8).make())
    folder = tmp_path / "node"
    words = ["--action_width=6", f"--endpoint={node.endpoint}", "--fps=30"]
    subprocess.run([sys.executable, "-m", "lerobot_policy_tactus", folder, *words], check=True, capture_output=True)
    with running_twin(tmp_path, "--world=kinematic", "--arms.a.kind=so101") as twin:
        calibration = Path(twin.about["arms"]["a"]["calibration"])
        arm = ["--robot.type=so101_follower", f"--robot.port={twin.port('a')}", "--robot.use_degrees=true"]
        arm += [f"--robot.calibration_dir={calibration.parent}", f"--robot.id={calibration.stem}"]
        more = ["--task=go", "--duration=2", "--device=cpu", "--play_sounds=false"]
        lerobot("lerobot-rollout", f"--policy.path={folder}", *arm, *more, "--return_to_initial_position=false")
        pan = [write["value"] for write in twin.writes() if write["register"] == "Goal_Position" and write["id"] == 1]
    degrees = np.diff(pan[-40:]) * 360 / 4096
    np.testing.assert_allclose(degrees, 1.0, atol=0.1)
