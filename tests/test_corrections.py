"""What a person did beside a policy, in recordings and in training: every frame says who drove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, synthetic
from test_intervention import HELD, Hand
from test_training import keys

from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.policies.scripted.config import PickerConfig
from tactus.runtime.commands import main
from tactus.runtime.evaluation.evaluate import evaluate
from tactus.runtime.evaluation.results import Results
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.recording.dataset import DatasetConfig, DatasetRecorder, Frames
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.intervention import Intervention
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

pytestmark = [pytest.mark.slow]

AT = {10: True, 20: False, 30: True}


def record(node: PolicyNode, root: Path, frames: Frames | None, episodes: int = 2) -> None:
    robot = SyntheticRobot(synthetic(cameras=1, image_size=(32, 32)))
    clock, link = VirtualClock(robot.spec.fps), Link(node.endpoint)
    policy = link.hello(robot.spec, 5, real_time=False)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:0"), 10)
    person = None if frames is None else Intervention(Hand(AT), robot.spec, 0)
    loop = RobotNode(robot, policy, delayed, clock, LoopConfig(), lambda line: None, person)
    with DatasetRecorder(
        DatasetConfig(root, video=False, frames=frames), robot, waits=True, say=lambda line: None
    ) as recorder:
        evaluate(robot, loop, Results(root.with_suffix(".results"), {}, False), episodes, 1, recorder=recorder)
    link.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two episodes each: without a person, with one, and what that one did."""
    import threading

    folder = tmp_path_factory.mktemp("recorded")
    node = PolicyNode(FunctionPolicy(count), "tcp://127.0.0.1:*")
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    kinds: dict[str, Frames | None] = {"plain": None, "all": "all", "corrections": "corrections"}
    for name, frames in kinds.items():
        record(node, folder / name, frames)
    node.stop()
    thread.join()
    return {name: folder / name for name in kinds}


def read(root: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(f"tactus/{root.name}", root)


def test_whole_attempts_say_of_every_frame_who_drove(recorded: dict[str, Path]) -> None:
    dataset = read(recorded["all"])
    assert (dataset.num_episodes, len(dataset)) == (2, 80)
    for frame in (dataset[row] for row in range(len(dataset))):
        tick = int(frame["frame_index"])
        by_person = 10 <= tick < 20 or tick >= 30
        assert bool(frame["intervention"]) == by_person and frame["driver"] == ("person" if by_person else "policy")
        assert bool((frame["requested_action"] == HELD).all()) == by_person
    lines = [json.loads(line) for line in (recorded["all"] / "meta" / "tactus.jsonl").read_text().splitlines()]
    assert [line["interventions"] for line in lines] == [[[10, 20], [30, 40]]] * 2


def test_corrections_are_an_episode_each_and_nothing_else_is_kept(recorded: dict[str, Path]) -> None:
    whole, dataset = read(recorded["all"]), read(recorded["corrections"])
    assert (dataset.num_episodes, len(dataset)) == (4, 40)
    rows = [*range(10, 20), *range(30, 40), *range(50, 60), *range(70, 80)]
    for row, found in zip(rows, (dataset[i] for i in range(40)), strict=True):
        assert bool(found["intervention"]) and int(found["frame_index"]) == row % 10
        assert bool(found["next.done"]) == (row % 10 == 9)
        np.testing.assert_array_equal(found["observation.state"], whole[row]["observation.state"])
    lines = [json.loads(line) for line in (recorded["corrections"] / "meta" / "tactus.jsonl").read_text().splitlines()]
    assert [(line["episode"], line["correction"]) for line in lines] == [
        (0, [10, 20]), (0, [30, 40]), (1, [10, 20]), (1, [30, 40]),
    ]  # fmt: skip


def test_recordings_with_and_without_a_person_are_made_one(recorded: dict[str, Path], tmp_path: Path) -> None:
    from tactus.runtime.training.corrections import Weights, weights_of
    from tactus.runtime.training.lerobot_process import join

    join([recorded["plain"], recorded["corrections"], recorded["all"]], tmp_path / "data")
    whole = read(tmp_path / "data")
    drivers = [whole[row]["driver"] for row in range(len(whole))]
    assert (
        drivers[:80] == ["demonstrator"] * 80
        and drivers[80:120] == ["person"] * 40
        and drivers[120:].count("person") == 40
    )
    assert [bool(whole[row]["intervention"]) for row in range(len(whole))] == [who == "person" for who in drivers]
    weight = {"person": 3.0, "policy": 0.5, "demonstrator": 1.0}
    assert weights_of(tmp_path / "data", Weights(3.0, 0.5)).tolist() == [weight[who] for who in drivers]
    assert drivers.count("policy") == 40 and weights_of(recorded["all"], Weights(own=0.0)).sum() == 40
    assert "driver" not in json.loads((recorded["plain"] / "meta" / "info.json").read_text())["features"]


def test_corrections_are_drawn_as_often_as_their_weight_says() -> None:
    from tactus.runtime.training.corrections import weighted_sampler

    weights = np.where(np.arange(100) < 20, 4.0, 1.0)
    sampler = weighted_sampler(weights)([0, 20], [20, 100], shuffle=True, seed=3)
    drawn = np.array([[*sampler] for _ in range(300)])
    assert drawn.shape == (300, 100)
    share = (drawn < 20).mean()
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(drawn.size)
    sampler.load_state_dict({"epoch": 7, "start_index": 40})
    assert [*sampler] == drawn[7][40:].tolist(), "where it was interrupted"


@pytest.mark.long
def test_a_policy_learns_from_them_with_a_weight(recorded: dict[str, Path], tmp_path: Path) -> None:
    words = keys(recorded["plain"], recorded["all"], folder=tmp_path / "trained", correction_weight=5, own_weight=0)
    assert main(words) == 0
    assert (tmp_path / "trained" / "training" / "checkpoints" / "last" / "pretrained_model").is_dir()


def test_a_weight_without_anybody_who_drove_is_refused(
    recorded: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, weight in (("correction_weight", 5), ("own_weight", 0)):
        assert main(keys(recorded["plain"], folder=tmp_path / "t", **{key: weight})) == 2
        assert f"{key}: no recording says who drove" in capsys.readouterr().err


TWIN = ["--robot.type=twin", "--robot.cameras=[]", "--robot.max_steps=300", "--latency=fixed:1", "--episodes=1"]
SCRIPTED = ["--intervene", "--teleop.type=scripted", "--teleop.patience_s=1"]


def test_a_script_takes_over_from_one_that_stands_still(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the emulated SO-101, twice, to the bit; the policy reaches for nothing, the person lifts the cube."""
    node = serve(Still(PickerConfig().make()))
    for name in "ab":
        words = ["record", *TWIN, *SCRIPTED, f"--connect={node.endpoint}", "--dataset_video=false"]
        words += [f"--output_dir={tmp_path}/{name}", f"--dataset_root={tmp_path}/data_{name}"]
        assert main(words) == 0
    rows = [(tmp_path / name / "episodes.jsonl").read_text() for name in "ab"]
    assert rows[0] == rows[1]
    [[first, end]] = json.loads(rows[0])["interventions"]
    assert 30 < first < 50 and first + 60 < end < 250
    dataset = read(tmp_path / "data_a")
    flags = [bool(dataset[row]["intervention"]) for row in range(len(dataset))]
    assert flags == [first <= tick < end for tick in range(len(dataset))]
    heights = [float(dataset[row]["observation.environment_state"][2]) for row in range(len(dataset))]
    assert max(heights[:first]) < 0.03 < 0.05 < max(heights[first:end])
    capsys.readouterr()
    assert main(["report", str(tmp_path / "a")]) == 0
    assert "1 interventions, 1 an episode, one in" in " ".join(capsys.readouterr().out.split())


class Still(FunctionPolicy):
    """What the picker takes and gives; it holds the joints where they are."""

    def __init__(self, like: Any) -> None:
        self._spec = like.spec
        self.opened, self.ended, self.batches = [], [], []

    def infer(self, requests: Any) -> Any:
        self._answer = lambda request: np.repeat(
            request.observation.arrays["observation.state"][None], self._spec.horizon, 0
        )
        return super().infer(requests)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--dataset_frames=corrections"], "dataset_frames: corrections needs --intervene"),
        (["--intervene"], "teleop: keyboard is a hand, which lives in real time"),
        ([*SCRIPTED, "--teleop.policy.type=expert"], "teleop.policy: expert cannot drive twin"),
        ([*SCRIPTED, "--dataset_frames=corrections", "--successful_only"], "successful_only: says nothing of correct"),
        (["--intervene", "--teleop.type=leader", "--real_time"], "teleop.arm: not given"),
    ],
)
def test_who_cannot_take_over_is_told_before_anything_moves(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    node = serve(Still(PickerConfig().make()))
    root = f"--dataset_root={tmp_path}/data"
    assert main(["record", *TWIN, f"--connect={node.endpoint}", f"--output_dir={tmp_path}/a", root, *words]) in (1, 2)
    assert error in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
