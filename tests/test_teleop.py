"""`tactus teleop` and `tactus replay` on the twin: a hand on a leader, keys at a terminal, recordings of both."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from person import ROOT, Person
from twins import RunningTwin, running_twin

from tactus.hal.spec import Feature
from tactus.hal.twin.config import JOINTS
from tactus.policies.scripted.replay import read_actions, write_actions

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

FPS = 30
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)
UNITS = ("deg",) * 5 + ("%",)


@pytest.fixture(scope="module")
def module_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    arms = ["--arms.follower.kind=so101", "--arms.leader.kind=so101", "--arms.leader.role=leader"]
    with running_twin(tmp_path_factory.mktemp("twin"), "--world=kinematic", *arms) as twin:
        yield twin


@pytest.fixture
def twin(module_twin: RunningTwin) -> RunningTwin:
    """Both arms near their middles, the leader held there."""
    place(module_twin, dict.fromkeys(JOINTS, 0.05))
    hold(module_twin, dict.fromkeys(JOINTS, 0.05))
    return module_twin


def hold(twin: RunningTwin, angles: dict[str, float], arm: str = "leader") -> None:
    twin.ask(do="hand", arm=arm, angles_rad=angles)


def place(twin: RunningTwin, angles: dict[str, float]) -> None:
    """Move the limp follower there, and let it go."""
    hold(twin, angles, "follower")
    until_s = time.monotonic() + 10
    while any(abs(twin.arm("follower")["angles_rad"][name] - at) > 1e-3 for name, at in angles.items()):
        assert time.monotonic() < until_s, "the follower does not move: is it limp?"
        time.sleep(0.02)
    hold(twin, {}, "follower")


def robot_keys(twin: RunningTwin) -> list[str]:
    calibration = twin.about["arms"]["follower"]["calibration"]
    return ["--robot.type=so100", f"--robot.port={twin.port('follower')}", f"--robot.calibration={calibration}"]


def leader_keys(twin: RunningTwin) -> list[str]:
    calibration = twin.about["arms"]["leader"]["calibration"]
    kind = ["--teleop.type=leader", "--teleop.arm.type=so100"]
    return [*kind, f"--teleop.arm.port={twin.port('leader')}", f"--teleop.arm.calibration={calibration}"]


def tactus(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tactus", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def angle(twin: RunningTwin, joint: str, arm: str = "follower") -> float:
    """Degrees."""
    return math.degrees(twin.arm(arm)["angles_rad"][joint])


def writes(twin: RunningTwin, arm: str, register: str) -> list[dict]:
    return [w for w in twin.writes() if w["arm"] == arm and w["register"] == register]


def test_the_follower_follows_the_leader_on_the_beat_within_its_limits(twin: RunningTwin, tmp_path: Path) -> None:
    config = tmp_path / "follower.yaml"
    table = {name: {"id": i, "model": "sts3215"} for i, name in enumerate(JOINTS, 1)}
    table["gripper"]["unit"] = "range_0_100"
    table["elbow_flex"] |= {"low": -20, "high": 20}
    config.write_text(yaml.safe_dump({"robot": {"type": "so100", "joints": table}}, sort_keys=False))
    before = len(writes(twin, "follower", "Goal_Position"))

    def hand() -> None:
        until_s = time.monotonic() + 60
        while len(writes(twin, "follower", "Goal_Position")) < before + 6 * 60 and time.monotonic() < until_s:
            time.sleep(0.05)
        hold(twin, {"shoulder_pan": 1.5, "elbow_flex": 1.0, "gripper": 0.3})  # faster than the follower may

    person = threading.Thread(target=hand)
    person.start()
    keys = [f"--config_path={config}", *robot_keys(twin)[1:], *leader_keys(twin)]
    done = tactus("teleop", *keys, "--max_ticks=180", f"--output_dir={tmp_path}", "--record_actions")
    person.join()
    assert done.returncode == 0, done.stderr
    assert "elbow_flex.pos: asked for 57.3, outside" in done.stdout
    assert angle(twin, "shoulder_pan") == pytest.approx(math.degrees(1.5), abs=1)
    assert angle(twin, "elbow_flex") == pytest.approx(20, abs=1)
    assert angle(twin, "elbow_flex", "leader") == pytest.approx(math.degrees(1.0), abs=1)
    actions, feature = read_actions(tmp_path / "actions" / "episode_00000.npz")
    assert (feature.names, feature.unit) == (NAMES, UNITS)
    steps = np.abs(np.diff(actions[:, 0]))
    # a tick that came late may go on by two ticks' worth, and no more
    assert steps.max() <= 2 * 180 / FPS * 1.01 and actions[:, 2].max() <= 20
    assert np.median(steps[steps > 1]) == pytest.approx(180 / FPS, rel=0.1), "at its velocity limit on the way"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rate_hz"] == pytest.approx(FPS, abs=2)
    assert writes(twin, "leader", "Goal_Position") == []
    assert {w["value"] for w in writes(twin, "leader", "Torque_Enable")} == {0}
    assert set(twin.arm("follower")["torque_on"].values()) == {False}


def test_keys_at_a_terminal_move_the_arm(twin: RunningTwin, tmp_path: Path) -> None:
    place(twin, {"shoulder_pan": 0.0, "gripper": 0.0})
    with Person("teleop", *robot_keys(twin), f"--output_dir={tmp_path}", "--teleop.step=4") as person:
        person.waits_for("q/a shoulder_pan.pos")
        person.waits_for("Enter ends the episode; space or Esc: emergency stop")
        until_s = time.monotonic() + 20
        while not all(twin.arm("follower")["torque_on"].values()):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        time.sleep(0.3)
        person.presses("qqqqqa")
        person.presses("\x1b[A")  # an arrow is neither Esc nor a joint
        person.presses("hh")
        until_s = time.monotonic() + 10
        while abs(angle(twin, "shoulder_pan") - 16) > 0.5 or angle(twin, "gripper") > -7:
            assert time.monotonic() < until_s, (angle(twin, "shoulder_pan"), angle(twin, "gripper"))
            time.sleep(0.05)
        person.presses("\n")
        person.waits_for("episode   0  ended")
        assert person.status() == 0
    assert set(twin.arm("follower")["torque_on"].values()) == {False}


def test_space_is_an_emergency_stop(twin: RunningTwin, tmp_path: Path) -> None:
    with Person("teleop", *robot_keys(twin), *leader_keys(twin), f"--output_dir={tmp_path}") as person:
        person.waits_for("space, q or Esc: emergency stop")
        until_s = time.monotonic() + 20
        while not all(twin.arm("follower")["torque_on"].values()):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        person.presses(" ")
        person.waits_for("stopped: key space")
        assert person.status() == 1
    assert set(twin.arm("follower")["torque_on"].values()) == {False}


LEROBOT = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset("tactus/demo", root=sys.argv[1])
frames = dataset.hf_dataset.with_format("numpy")
print(json.dumps({
    "episodes": dataset.num_episodes, "fps": dataset.fps, "names": dataset.features["action"]["names"],
    "task": dataset[0]["task"], "episode": [int(i) for i in frames["episode_index"]],
    "action": [list(map(float, a)) for a in frames["action"]],
    "state": [list(map(float, a)) for a in frames["observation.state"]],
}))
"""


@pytest.mark.long
def test_what_a_person_records_lerobot_opens_and_replay_repeats(twin: RunningTwin, tmp_path: Path) -> None:
    root = tmp_path / "demo"
    keys = [*robot_keys(twin), "--robot.task=wave", *leader_keys(twin)]
    with Person(
        "teleop", *keys, f"--dataset_root={root}", "--episodes=2", f"--output_dir={tmp_path / 'made'}"
    ) as person:
        for episode in range(2):
            person.waits_for(f"episode {episode}: Enter when the scene is ready", 60)
            person.presses("\n")
            time.sleep(1.0)
            hold(twin, {"shoulder_pan": 0.3 + 0.3 * episode, "wrist_flex": -0.4})
            time.sleep(1.0)
            person.presses("\n")
            person.waits_for(f"episode   {episode}  ended", 60)
        assert person.status(60) == 0
    out = subprocess.run([sys.executable, "-c", LEROBOT, str(root)], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    seen = json.loads(out.stdout)
    assert (seen["episodes"], seen["fps"], tuple(seen["names"]), seen["task"]) == (2, FPS, NAMES, "wave")
    own = np.array(seen["episode"]) == 1
    actions, states = np.array(seen["action"])[own], np.array(seen["state"])[own]
    assert actions[-1, 0] == pytest.approx(math.degrees(0.6), abs=0.5)

    played = tmp_path / "played"
    keys = [*robot_keys(twin), f"--output_dir={played}", "--record_actions"]
    assert tactus("replay", *keys, f"--actions={root}", "--dataset_episode=1").returncode == 0
    sent, _ = read_actions(played / "actions" / "episode_00000.npz")
    np.testing.assert_allclose(sent, actions[: len(sent)], atol=3)  # a late tick steps less far, by up to 6 in one
    assert len(sent) >= len(actions) - 5, "ticks that an overrun skipped"
    assert angle(twin, "shoulder_pan") == pytest.approx(states[-1, 0], abs=1)

    place(twin, {"shoulder_pan": 0.0})
    npz = played / "actions" / "episode_00000.npz"
    again = tactus("replay", *robot_keys(twin), f"--output_dir={tmp_path / 'again'}", f"--actions={npz}")
    assert again.returncode == 0, again.stderr
    assert angle(twin, "shoulder_pan") == pytest.approx(states[-1, 0], abs=1)


def test_replay_begins_slowly_where_the_recording_does(twin: RunningTwin, tmp_path: Path) -> None:
    file = tmp_path / "far.npz"
    place(twin, {"shoulder_pan": -1.0})
    start = np.array([50, 0, 0, 0, 0, 50], np.float32)
    wave = [start + np.float32(math.sin(i / 5)) * (np.arange(6) == 0) for i in range(30)]
    write_actions(file, [a.astype(np.float32) for a in wave], Feature((6,), "float32", UNITS, NAMES))
    out = tmp_path / "out"
    done = tactus("replay", *robot_keys(twin), f"--actions={file}", f"--output_dir={out}", "--record_actions")
    assert done.returncode == 0, done.stderr
    sent, _ = read_actions(out / "actions" / "episode_00000.npz")
    np.testing.assert_allclose(sent, np.array(wave)[: len(sent)], atol=1e-4)


@pytest.mark.parametrize(
    "keys, words",
    [
        ([], "actions: not given"),
        (["--actions=/nope"], "actions: /nope does not exist"),
        (["--actions={other}"], r"actions: names: the recording has ('left', "),
        (["--actions={degrees}"], "actions: units: the recording has ('rad', "),
        (["--actions={dataset}", "--dataset_episode=3"], "dataset_episode: found 3;"),
        (["--actions={empty}"], "is no LeRobotDataset"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_torque_off(
    twin: RunningTwin, tmp_path: Path, keys: list[str], words: str
) -> None:
    paths = {name: tmp_path / name for name in ("other", "degrees", "dataset", "empty")}
    names = ("left", *NAMES[1:])
    actions = [np.zeros(6, np.float32)] * 3
    for key, feature in (
        ("other", Feature((6,), "float32", UNITS, names)),
        ("degrees", Feature((6,), "float32", "rad", NAMES)),
    ):
        paths[key] = tmp_path / f"{key}.npz"
        write_actions(paths[key], actions, feature)
    (paths["dataset"] / "meta").mkdir(parents=True)
    (paths["dataset"] / "meta" / "info.json").write_text('{"total_episodes": 2, "fps": 30, "features": {"action": {}}}')
    paths["empty"].mkdir()
    before = len(twin.writes())
    done = tactus("replay", *robot_keys(twin), *(key.format(**paths) for key in keys), f"--output_dir={tmp_path}/out")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not [w for w in twin.writes()[before:] if w["register"] == "Torque_Enable" and w["value"]]


@pytest.mark.parametrize(
    "keys, words",
    [
        (["--teleop.type=leader"], "teleop.arm: not given"),
        (["--teleop.type=leader", "--teleop.arm.type=so100"], "teleop.arm.port: not given"),
        (
            ["--teleop.type=leader", "--teleop.arm.type=synthetic", "--teleop.arm.width=3"],
            "the follower takes shoulder_pan.pos, shoulder_lift.pos",
        ),
        (["--teleop.type=keyboard"], "the keyboard needs a terminal"),
        (["--teleop.step=0"], "teleop.step: found 0; must be positive"),
    ],
)
def test_a_teleoperator_that_cannot_be_is_told(twin: RunningTwin, tmp_path: Path, keys: list[str], words: str) -> None:
    before = len(twin.writes())
    done = tactus("teleop", *robot_keys(twin), *keys, f"--output_dir={tmp_path}")
    assert done.returncode in (1, 2) and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert twin.writes()[before:] == []


def test_another_rate_is_refused(twin: RunningTwin, tmp_path: Path) -> None:
    from tactus.runtime.recording.recorded_actions import Recording

    recording = Recording(np.zeros((3, 6), np.float32), Feature((6,), "float32", UNITS, NAMES), 20.0)
    from tactus.hal.arm import So100Config

    config = So100Config(port=twin.port("follower"), calibration=twin.about["arms"]["follower"]["calibration"])
    with pytest.raises(ValueError, match="recorded at 20 Hz, so100 runs at 30; set robot.fps"):
        recording.connect(config.make().spec)
