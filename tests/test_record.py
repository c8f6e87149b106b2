"""Recording: what LeRobot reads back is what the robot observed, was asked for, and really did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, synthetic
from test_commands import ROOT, TACTUS, TICKER, lines, tactus

from tactus.hal.gym import GymConfig, PushTConfig
from tactus.hal.gym.robot import GymRobot
from tactus.hal.libero import LiberoConfig
from tactus.hal.robot import Outcome, Robot, RobotConfig
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Chunk, PolicySpec, SpecError
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.hal.synthetic.robot import SyntheticRobot
from tactus.hal.wrappers.noise import NoisyRobot
from tactus.policies.policy import Policy, Session
from tactus.policies.scripted.replay import write_actions
from tactus.runtime.evaluation.evaluate import evaluate
from tactus.runtime.evaluation.results import Results
from tactus.runtime.recording.dataset import QUEUE_FRAMES, DatasetConfig, DatasetError, DatasetRecorder
from tactus.runtime.recording.recorded_actions import read_recording
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import Beginning, TickView, Watcher
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

pytestmark = [pytest.mark.slow, pytest.mark.realtime]


class Clipped(SyntheticRobot):
    """Takes steps of at most 1, and reaches its goal in every other episode."""

    def reset(self, episode: int, seed: int) -> None:
        super().reset(episode, seed)
        self.episode = episode

    def act(self, action: np.ndarray) -> np.ndarray:
        return super().act(np.clip(action, -1, 1))

    def outcome(self) -> Outcome:
        outcome = super().outcome()
        return Outcome(outcome.done and self.episode % 2 == 1, outcome.done, reward=0.5)


class Wanderer(Policy):
    """For any robot: a random walk inside the action's bounds, which reads every input."""

    def __init__(self, robot: Robot) -> None:
        self._spec = PolicySpec("wanderer", robot.spec.observations, robot.spec.action, 8)
        self._generator = np.random.default_rng(0)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        pass

    def infer(self, requests: Any) -> list[Chunk]:
        low, high = self._spec.action.low, self._spec.action.high
        shape = (8, *self._spec.action.shape)
        return [
            Chunk(r.observation.tick, self._generator.uniform(low, high, shape).astype(self._spec.action.dtype))
            for r in requests
        ]


class Witness(Watcher):
    """A Watcher that remembers what there was to see."""

    def __init__(self) -> None:
        self.frames: list[dict[str, np.ndarray]] = []

    def before(self, view: TickView) -> None:
        arrays = view.observe().arrays
        self.frames.append({name: np.array(arrays[name]) for name in arrays} | {"requested": view.action.copy()})

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        self.frames[-1]["sent"] = sent.copy()


Record = Callable[..., list[list[dict[str, np.ndarray]]]]


@pytest.fixture
def record(serve: Serve, tmp_path: Path) -> Iterator[Record]:
    """Records episodes of a robot with a policy in virtual time; what a witness saw of each."""

    def run(robot: Robot, policy: Policy, episodes: int, **options: Any) -> list[list[dict[str, np.ndarray]]]:
        link, clock = Link(serve(policy).endpoint), VirtualClock(robot.spec.fps)
        seen = []
        with DatasetRecorder(DatasetConfig(tmp_path / "data", **options), robot, waits=True) as recorder:
            spec = link.hello(robot.spec, 5)
            node = RobotNode(
                robot, spec, VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:2"), 30), clock, LoopConfig()
            )
            for episode in range(episodes):
                witness, scene = Witness(), robot.scene(episode)
                stats = node.run_episode(episode, 7, [recorder, witness])
                recorder.save(episode, 7, scene, stats)
                seen.append(witness.frames)
        link.close()
        return seen

    yield run


def load(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(f"tactus/{root.name}", root=root, **options)


def pusht(**kwargs: Any) -> GymRobot:
    robot = GymConfig(kwargs={"max_episode_steps": 25, **kwargs}, task="push the T onto its place").make()
    assert isinstance(robot, GymRobot)
    return robot


def test_frames_are_what_pusht_observed(record: Record, tmp_path: Path) -> None:
    robot = pusht(obs_type="pixels_agent_pos")
    seen = record(robot, Wanderer(robot), 2, video=False)
    robot.close()
    data = load(tmp_path / "data")
    assert (data.num_episodes, data.num_frames, data.fps) == (2, 50, 10)
    expected = [frame for episode in seen for frame in episode]
    for i, frame in enumerate(expected):
        item = data[i]
        assert item[STATE].numpy().dtype == np.float32
        np.testing.assert_array_equal(item[STATE].numpy(), frame[STATE].astype(np.float32))
        np.testing.assert_array_equal(item["action"].numpy(), frame["sent"])
        picture = (item["observation.image"].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        np.testing.assert_array_equal(picture, frame["observation.image"])
        assert item["task"] == "push the T onto its place"
        assert bool(item["next.done"]) == (i in (24, 49)) and int(item["frame_index"]) == i % 25
    assert [line["episode"] for line in lines(tmp_path / "data" / "meta" / "tactus.jsonl")] == [0, 1]


@pytest.mark.parametrize("column", ["sent", "requested"])
def test_what_was_asked_for_stands_beside_what_was_sent(record: Record, tmp_path: Path, column: str) -> None:
    from lerobot.utils.feature_utils import dataset_to_policy_features

    robot = Clipped(synthetic())
    seen = record(robot, FunctionPolicy(lambda request: np.full((8, 3), 3.0, np.float32)), 2, action=column)
    data = load(tmp_path / "data")
    other = {"sent": "requested_action", "requested": "sent_action"}[column]
    sent, requested = ("action", other) if column == "sent" else (other, "action")
    for i, frame in enumerate(frame for episode in seen for frame in episode):
        item = data[i]
        np.testing.assert_array_equal(item[sent].numpy(), frame["sent"])
        np.testing.assert_array_equal(item[requested].numpy(), frame["requested"])
        assert (item[sent].numpy() == 1).all() and (item[requested].numpy() == 3).all()
        assert float(item["next.reward"]) == 0.5 and bool(item["next.success"]) == (i == 79)
    assert data.features["action"]["names"] == ["joint_0", "joint_1", "joint_2"]
    assert data.features["action"]["info"]["unit"] == ["1", "1", "1"]
    learned = dataset_to_policy_features(data.features)
    assert {*learned} == {STATE, "action"}, "a policy must not learn to output the other column"


def test_only_successes_are_kept_if_asked(record: Record, tmp_path: Path) -> None:
    robot = Clipped(synthetic(cameras=1, image_size=(64, 80)))
    policy = FunctionPolicy(lambda request: np.zeros((8, 3), np.float32))
    seen = record(robot, policy, 4, successful_only=True)
    data = load(tmp_path / "data")
    assert data.num_episodes == 2 and data.num_frames == 80
    labels = lines(tmp_path / "data" / "meta" / "tactus.jsonl")
    assert [(line["dataset_episode"], line["episode"], line["success"]) for line in labels] == [
        (0, 1, True),
        (1, 3, True),
    ]
    np.testing.assert_array_equal(data[0][STATE].numpy(), seen[1][0][STATE])
    np.testing.assert_array_equal(data[40][STATE].numpy(), seen[3][0][STATE])
    # mp4 is lossy; the synthetic camera's grey level is its tick
    levels = [float(data[40 + i]["observation.images.camera_0"].mean()) * 255 for i in (0, 20, 39)]
    assert np.abs(np.array(levels) - [0, 20, 39]).max() < 4


def test_no_episode_leaves_no_folder(record: Record, tmp_path: Path) -> None:
    robot = Clipped(synthetic())
    record(robot, FunctionPolicy(lambda request: np.zeros((8, 3), np.float32)), 1, successful_only=True)
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_recorded_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Hardware(SyntheticRobot):
        def outcome(self) -> None:  # type: ignore[override]
            return None

    camera = synthetic(cameras=1).make()
    (tmp_path / "there").mkdir()
    for config, robot, words in (
        (DatasetConfig(tmp_path / "there"), camera, "exists already"),
        (DatasetConfig(tmp_path / "d", cameras=("wrist",)), camera, "found wrist; this robot has camera_0"),
        (DatasetConfig(tmp_path / "d"), synthetic(fps=12.5).make(), "found 12.5; a LeRobotDataset takes whole"),
        (DatasetConfig(tmp_path / "d", successful_only=True), Hardware(synthetic()), "cannot tell a success"),
    ):
        with pytest.raises(SpecError, match=words):
            DatasetRecorder(config, robot, waits=True)
    assert not (tmp_path / "d").exists()


def test_hardware_has_no_reward_column(record: Record, tmp_path: Path) -> None:
    class Hardware(SyntheticRobot):
        def outcome(self) -> None:  # type: ignore[override]
            return None

    robot = Hardware(synthetic())
    with DatasetRecorder(DatasetConfig(tmp_path / "data", cameras=()), robot, waits=True) as recorder:
        recorder.begin(Beginning(0, 7, "wave"))
        for tick in range(3):
            action = np.full(3, tick, np.float32)
            recorder.before(TickView(tick, action, False, 0, robot.observe))
            recorder.after(tick, robot.act(action), robot.outcome())
        recorder.save(0, 7, robot.scene(0), EpisodeStats(ticks=3))
    data = load(tmp_path / "data")
    assert not {"next.reward", "next.success"} & {*data.features}
    assert [bool(data[i]["next.done"]) for i in range(3)] == [False, False, True]


def test_a_writer_that_falls_behind_on_a_real_clock_ends_the_run(tmp_path: Path) -> None:
    robot = synthetic().make()
    recorder = DatasetRecorder(DatasetConfig(tmp_path / "data"), robot, waits=False)
    recorder._jobs.put(lambda: time.sleep(0.5))  # a disk that stalls
    recorder.begin(Beginning(0, 7, ""))
    started_s = time.monotonic()
    with pytest.raises(DatasetError, match=f"{QUEUE_FRAMES} frames behind"):
        for tick in range(QUEUE_FRAMES + 10):
            action = np.zeros(3, np.float32)
            recorder.before(TickView(tick, action, False, 0, robot.observe))
            recorder.after(tick, action, None)
    assert time.monotonic() - started_s < 0.4, "the control thread must not wait for the disk"
    recorder.close()
    assert not (tmp_path / "data").exists()


def test_a_failing_disk_is_an_error_and_keeps_what_was_saved(record: Record, tmp_path: Path, serve: Serve) -> None:
    robot = Clipped(synthetic())
    link = Link(serve(FunctionPolicy(lambda request: np.zeros((8, 3), np.float32))).endpoint)
    clock = VirtualClock(50)
    delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:0"), 30)
    node = RobotNode(robot, link.hello(robot.spec, 5), delayed, clock, LoopConfig())
    results = Results(tmp_path / "out", {}, False)
    recorder = DatasetRecorder(DatasetConfig(tmp_path / "data"), robot, waits=True)
    evaluate(robot, node, results, 1, 7, recorder=recorder)

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    recorder._dataset.save_episode = full
    with pytest.raises(DatasetError, match="No space left on device"):
        evaluate(robot, node, results, 3, 7, recorder=recorder)
    recorder.close()
    link.close()
    assert results.finished == {0} and load(tmp_path / "data").num_episodes == 1


def test_noise_is_what_was_sent_and_repeats(record: Record) -> None:
    robot = pusht(obs_type="state")
    noisy = NoisyRobot(robot, std=0.1, hold_ticks=5)
    offsets = []
    for seed in (7, 7, 8):
        noisy.reset(0, seed)
        asked = np.full(2, 256, np.float32)
        offsets.append(np.stack([noisy.act(asked) - asked for _ in range(25)]))
    robot.close()
    assert np.array_equal(offsets[0], offsets[1]) and not np.array_equal(offsets[0], offsets[2])
    assert 5 < offsets[0].std() < 60, "a tenth of half the range of 512"
    assert len(np.unique(offsets[0][:, 0])) == 5 and np.ptp(offsets[0][:5, 0]) == 0
    switch = NoisyRobot(synthetic().make(), std=0.5)
    switch.reset(0, 7)
    moved = np.stack([switch.act(np.zeros(3, np.float32)) for _ in range(20)])
    assert (moved[:, 2] == 0).all() and (moved[:, :2] != 0).all(), "a switch is not disturbed"
    bounded = NoisyRobot(pusht(obs_type="state"), std=1.0)
    bounded.reset(0, 7)
    edge = np.stack([bounded.act(np.full(2, 512, np.float32)) for _ in range(20)])
    bounded.close()
    assert edge.max() == 512 and edge.min() >= 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    endpoint = f"ipc://{tmp_path}/node"
    arguments = [*TICKER, "--policy.cameras=2", "--policy.image_size=[64,80]"]
    process = subprocess.Popen(
        [*TACTUS, "serve", f"--connect={endpoint}", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and endpoint in process.stdout.readline()
    yield endpoint
    process.terminate()
    assert process.wait(timeout=60) == 0


ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=30", "--robot.fps=20"]
CAMERAS = ["--robot.cameras=2", "--robot.image_size=[64,80]"]


@pytest.mark.long
def test_the_command_on_the_wall_clock_with_one_camera_as_video(node: str, tmp_path: Path) -> None:
    out = tactus(
        "record",
        *ROBOT,
        *CAMERAS,
        f"--connect={node}",
        "--real_time",
        "--episodes=2",
        "--dataset_cameras=[camera_1]",
        f"--dataset_root={tmp_path}/data",
        f"--output_dir={tmp_path}/o",
    )
    assert out.returncode == 0, out.stderr
    assert f"dataset: {tmp_path}/data, 2 episodes" in out.stdout
    rows = lines(tmp_path / "o" / "episodes.jsonl")
    data = load(tmp_path / "data")
    assert data.meta.video_keys == ["observation.images.camera_1"] and data.num_episodes == 2
    assert data.num_frames == sum(row["ticks"] for row in rows) == 60
    np.testing.assert_array_equal(data[7]["action"].numpy(), [7, 7, 7])
    again = tactus("record", *ROBOT, *CAMERAS, f"--connect={node}", f"--dataset_root={tmp_path}/data")
    assert again.returncode == 2 and "exists already" in again.stderr


@pytest.mark.long
def test_an_interrupted_recording_can_be_read(node: str, tmp_path: Path) -> None:
    arguments = [*ROBOT, *CAMERAS, "--robot.work_ms=10", f"--connect={node}", "--episodes=50", "--dataset_video=false"]
    process = subprocess.Popen(
        [*TACTUS, "record", *arguments, f"--dataset_root={tmp_path}/data", f"--output_dir={tmp_path}/o"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    episodes = tmp_path / "o" / "episodes.jsonl"
    while not episodes.exists() or len(episodes.read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130 and "finished episodes are kept" in complaint
    data = load(tmp_path / "data")
    assert data.num_episodes >= 2 and data.num_frames == 30 * data.num_episodes
    assert float(data[31]["observation.images.camera_1"].mean()) * 255 == pytest.approx(1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "dataset_root: not given"),
        (["--dataset_root=x", "--resume", "--output_dir=y"], "--resume is not a key of `tactus record`"),
        (["--dataset_root=x", "--dataset_action=wished"], "'wished'"),
        (["--dataset_root=x", "--action_noise=-1"], "action_noise: found -1; must not be negative"),
    ],
)
def test_bad_input_is_told(arguments: list[str], words: str) -> None:
    out = tactus("record", *ROBOT, *arguments)
    assert out.returncode == 2 and words in out.stderr, out.stderr


@pytest.mark.long
def test_lerobot_trains_on_it(record: Record, tmp_path: Path) -> None:
    robot = pusht(obs_type="environment_state_agent_pos")
    record(robot, Wanderer(robot), 3)
    robot.close()
    small = ["chunk_size=8", "n_action_steps=8", "dim_model=32", "n_heads=2", "dim_feedforward=64", "use_vae=false"]
    subprocess.run(
        [
            str(Path(sys.executable).parent / "lerobot-train"),
            "--policy.type=act",
            *(f"--policy.{key}" for key in [*small, "n_encoder_layers=1", "device=cpu", "push_to_hub=false"]),
            "--dataset.repo_id=tactus/data",
            f"--dataset.root={tmp_path}/data",
            f"--output_dir={tmp_path}/train",
            "--steps=3",
            "--batch_size=4",
            "--num_workers=0",
            "--wandb.enable=false",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=200,
    )
    checkpoint = tmp_path / "train" / "checkpoints" / "last" / "pretrained_model"
    config = json.loads((checkpoint / "config.json").read_text())
    assert {*config["input_features"]} == {STATE, ENVIRONMENT_STATE} and {*config["output_features"]} == {"action"}
    assert (checkpoint / "model.safetensors").stat().st_size > 0


@pytest.mark.parametrize(
    "config",
    [
        SyntheticConfig(width=3, limit=1.0, steps=20),
        SyntheticConfig(width=1, limit=1.0, steps=20),
        PushTConfig(obs_type="state", max_steps=20),
        LiberoConfig(assets="primitive", cameras=[], max_steps=20),
    ],
    ids=lambda config: f"{type(config).__name__}",
)
def test_what_is_recorded_is_played(record: Record, config: RobotConfig, tmp_path: Path) -> None:
    """One unit for all dimensions, one each, none: as a dataset and as an .npz."""
    with config.make() as robot:
        [frames] = record(robot, Wanderer(robot), 1)
        spec = robot.spec
    sent = [frame["sent"] for frame in frames]
    write_actions(tmp_path / "a.npz", sent, spec.action)
    for place in ("data", "a.npz"):
        recording = read_recording(tmp_path / place, 0)
        recording.connect(spec)
        recording.reset(np.zeros(0))
        played = [recording.decide() for _ in sent]
        assert np.array_equal(played, sent) and recording.decide() is None


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (None, "is no LeRobotDataset: info.json: "),
        ("[]", "info.json: found a list"),
        ("{}", "info.json lacks total_episodes, fps, features"),
        ("{", "is no LeRobotDataset: info.json: "),
        ('{"total_episodes": 1, "fps": 30, "features": {}}', "lacks the feature action"),
        ('{"total_episodes": "1", "fps": 30, "features": {"action": {}}}', "lacks total_episodes"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer: `git lfs pull`"),
        (
            '{"total_episodes": 1, "fps": 30, "features": {"action": {}}, "codebase_version": "v2.1"}',
            "is a LeRobotDataset v2.1; accepted: v3.0",
        ),
        (
            '{"total_episodes": 1, "fps": 30, "features": {"action": {}}, "codebase_version": "v3.0"}',
            "cannot be read: ",
        ),
    ],
)
def test_what_is_no_dataset_is_told(info: str | None, words: str, tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    if info is not None:
        (tmp_path / "meta" / "info.json").write_text(info)
    with pytest.raises(SpecError) as told:
        read_recording(tmp_path, 0)
    assert words in str(told.value) and str(tmp_path) in str(told.value)


def test_a_cut_file_of_a_dataset_is_told(record: Record, tmp_path: Path) -> None:
    with SyntheticConfig(width=3, limit=1.0, steps=20).make() as robot:
        record(robot, Wanderer(robot), 1)
    [data] = (tmp_path / "data" / "data").rglob("*.parquet")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(SpecError, match="data cannot be read: "):
        read_recording(tmp_path / "data", 0)
