"""The checkpoints that ship: small, whole, true to the contract, and able on initial states they have never seen."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import pytest
from conftest import MakeLibero, Serve

from tactus.hal.robot import Robot
from tactus.hal.twin.config import TwinRobotConfig
from tactus.policies.lerobot.config import CHECKPOINTS, LearnedConfig, LearnedSo101Config, LearnedStateConfig
from tactus.policies.policy import Policy
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link
from tactus.testing import PolicyConformance

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


SHIPPED = {"learned": LearnedConfig, "learned_state": LearnedStateConfig, "learned_so101": LearnedSo101Config}
CAMERAS = {"learned": ["agentview", "robot0_eye_in_hand"], "learned_state": []}


@functools.cache
def policy_of(name: str) -> Policy:
    return SHIPPED[name]().make()


@pytest.mark.parametrize("name", SHIPPED, scope="class")
class TestConformance(PolicyConformance):
    @pytest.fixture
    def policy(self, name: str) -> Policy:
        return policy_of(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_they_are_small_and_say_nothing_of_the_machine_they_were_made_on(name: str) -> None:
    folder = CHECKPOINTS / SHIPPED[name].shipped
    files = [file for file in folder.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    for file in files:
        if file.suffix in (".json", ".md", ".py"):
            assert str(ROOT) not in file.read_text() and "/home/" not in file.read_text()
    assert json.loads((folder / "train_config.json").read_text())["seed"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suite", "latency"),
    [
        ("learned", "libero_object", "fixed:2"),
        ("learned", "libero_spatial", "fixed:2"),
        ("learned_state", "libero_object", "fixed:6"),
    ],
)
def test_they_solve_tasks_from_states_they_were_not_trained_on(
    libero: MakeLibero, serve: Serve, name: str, suite: str, latency: str
) -> None:
    """Three of the fifty held-out episodes of the training card, tasks 1, 4 and 7."""
    given = {"cameras": CAMERAS[name], "image_size": (96, 96), "suite": suite}
    robot = libero(tasks=[1, 4, 7], init_states=[45, 46, 47], **given)
    assert succeeded(robot, serve(policy_of(name)).endpoint, latency, LoopConfig(), (0, 4, 8)) >= 2


def test_that_of_the_arm_puts_cubes_into_the_bin_that_it_was_not_trained_on(serve: Serve) -> None:
    with TwinRobotConfig(image_size=(96, 128)).make() as robot:
        endpoint = serve(policy_of("learned_so101")).endpoint
        assert succeeded(robot, endpoint, "fixed:2", LoopConfig(max_ticks=600), (0, 1, 2, 3)) >= 3


@pytest.mark.realtime
def test_so100_sh_plays_that_of_the_arm(tmp_path: Path) -> None:
    """With pictures of its size from the emulated cameras; a second of it, on the beat."""
    words = ["--emulated", "--policy=learned", "--episodes=1", "--max_ticks=45", f"--output_dir={tmp_path / 'o'}"]
    command = ["bash", str(ROOT / "launch" / "so100.sh"), *words]
    out = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stderr
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert "so101_keypoints" in summary["policy"]["name"] and summary["requests"] >= 3
    assert summary["starved_ticks"] == 0


def succeeded(robot: Robot, endpoint: str, latency: str, config: LoopConfig, episodes: tuple[int, ...]) -> int:
    """How many of these did, without a starved tick."""
    link, clock = Link(endpoint), VirtualClock(robot.spec.fps)
    spec = link.hello(robot.spec, 10, real_time=False)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=60)
    node = RobotNode(robot, spec, delayed, clock, config)
    found = [node.run_episode(episode, 1000) for episode in episodes]
    link.close()
    assert all(stats.starved_ticks == 0 for stats in found)
    return sum(bool(stats.outcome and stats.outcome.success) for stats in found)
