"""Calibration files that are there: found in every folder LeRobot has had, and never written over unless they are this
arm's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_servo_calibration import GOOD, MOTORS, edited

from tactus.hal.arm.config import ArmConfig, KochConfig, So100Config, So100LeaderConfig
from tactus.hal.arm.joints import SO100, Joint
from tactus.hal.config import ConfigError
from tactus.hal.diagnostics.arm import measure_arm
from tactus.hal.robot import RobotError
from tactus.hal.servo import calibration as cal

OLD = {
    "homing_offset": [2048, 3072, 3072, -1024, -2048, -2048],
    "drive_mode": [0, 1, 1, 0, 1, 0],
    "start_pos": [2045, 3100, 3050, 1000, 2040, 2010],
    "end_pos": [1020, -2000, -2010, 2030, 3050, 3000],
    "calib_mode": ["DEGREE", "DEGREE", "DEGREE", "DEGREE", "DEGREE", "LINEAR"],
    "motor_names": list(GOOD),
}
NOT_OURS: dict[str, tuple[str, str]] = {
    "of 2024": (json.dumps(OLD), "in LeRobot's format of 2024"),
    "cut of 2024": (json.dumps(OLD)[:200], "is no calibration"),
    "another arm's": (json.dumps({"left": {}}), "is for another arm"),
    "other ids": (edited(gripper={"id": 9}), "is for another arm: gripper has id 9"),
    "other fields": (edited(wrist_roll={"turns": 1}), "expected integers id, drive_mode"),
    "list": ("[1]", "found a list"),
    "notes": ("shoulder: 2048\n", "is no calibration"),
    "no text": ("\x00\x01", "is no calibration"),
    "nested": ("[" * 100_000, "is no calibration"),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_what_is_not_this_arms_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    """Whoever reads it, and whoever would write it: nobody proposes to overwrite it, nobody does."""
    text, said = NOT_OURS[kind]
    file, good = tmp_path / "arm.json", tmp_path / "good.json"
    file.write_text(text)
    cal.save(good, GOOD)
    for act in (cal.load, cal.check_replaceable):
        with pytest.raises(RobotError) as caught:
            act(file, MOTORS)
        told = str(caught.value)
        assert said in told and "it is left as it is" in told and str(tmp_path / "arm_new.json") in told
        assert "which writes" not in told and "\n" not in told
    robot = ["--robot.type=so100", "--robot.port=/dev/null", f"--robot.calibration={file}"]
    command = [sys.executable, "-m", "tactus", "calibrate", *robot, f"--from={good}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert file.read_text() == text


@pytest.mark.parametrize("text", [None, "", edited(), edited(elbow_flex={"range_min": 100, "range_max": 100})])
def test_nothing_or_this_arms_may_be_written(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "arm.json").write_text(text)
    cal.check_replaceable(tmp_path / "arm.json", MOTORS)


@pytest.mark.parametrize("kind", NOT_OURS)
def test_doctor_does_not_propose_it_either(tmp_path: Path, kind: str) -> None:
    from twins import running_twin

    from tactus.hal.diagnostics.diagnose_arm import diagnose_arm

    if kind not in ("of 2024", "other ids"):
        pytest.skip("the file is looked at by the same function; two kinds are asked of a twin")
    (tmp_path / "arm.json").write_text(NOT_OURS[kind][0])
    with running_twin(tmp_path / "twin", "--world=kinematic", "--arms.follower.kind=so101") as twin:
        facts = measure_arm(So100Config(port=twin.port("follower"), calibration=str(tmp_path / "arm.json")), reads=2)
    [finding] = [one for one in diagnose_arm("", facts, "--robot.type=so100") if one.about == "calibration"]
    assert finding.level == "fault" and NOT_OURS[kind][1] in finding.found
    assert finding.fix == "give this arm's file, or a name that is free and then tactus calibrate"


Config = type[ArmConfig]
PLACES: list[tuple[Config, str]] = [
    (So100Config, "robots/so_follower"),
    (So100Config, "robots/so100_follower"),
    (So100Config, "robots/so101_follower"),
    (So100LeaderConfig, "teleoperators/so_leader"),
    (So100LeaderConfig, "teleoperators/so100_leader"),
    (So100LeaderConfig, "teleoperators/so101_leader"),
    (KochConfig, "robots/koch_follower"),
]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_LEROBOT_HOME", "HF_LEROBOT_CALIBRATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "hf" / "lerobot" / "calibration"


def put(file: Path, text: str = "{}") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(("config", "place"), PLACES)
def test_an_id_is_looked_for_where_lerobot_has_had_it(base: Path, config: Config, place: str) -> None:
    file = put(base / place / "blue.json")
    arm = config(id="blue")
    assert arm.calibration_file() == file
    today = base / (arm.lerobot_folder) / "blue.json"
    assert arm.calibration_file(new=True) == today, "a new one goes where LeRobot has them today"
    put(today, "[]")
    assert arm.calibration_file() == today


@pytest.mark.parametrize("top", ["work", "home"])
@pytest.mark.parametrize(
    ("config", "kind"), [(So100Config, "so100"), (KochConfig, "koch"), (So100LeaderConfig, "so100")]
)
def test_one_of_2024_is_found_and_told(base: Path, tmp_path: Path, top: str, config: Config, kind: str) -> None:
    put(tmp_path / top / ".cache/calibration" / kind / "main_follower.json", json.dumps(OLD))
    arm = config(id="main_follower")
    assert arm.calibration_file().resolve() == tmp_path / top / ".cache/calibration" / kind / "main_follower.json"
    with pytest.raises(RobotError, match="in LeRobot's format of 2024"):
        cal.load(arm.calibration_file(), MOTORS)
    assert base in arm.calibration_file(new=True).parents


def test_older_folders_that_disagree(base: Path) -> None:
    one, other = (put(base / f"robots/{kind}_follower" / "blue.json") for kind in ("so100", "so101"))
    assert So100Config(id="blue").calibration_file() == one
    put(other, "[]")
    with pytest.raises(RobotError, match=r"blue is in .*so100_follower.* and in .*so101_follower.*, which differ"):
        So100Config(id="blue").calibration_file()


def test_an_id_that_is_nowhere_is_told_those_that_are(base: Path) -> None:
    put(base / "robots/so_follower" / "blue.json")
    with pytest.raises(RobotError, match=r"no calibration at .*/green.json \(there are blue\): run `tactus calibrate`"):
        cal.load(So100Config(id="green").calibration_file(), MOTORS)


@pytest.mark.parametrize("config", [So100Config, KochConfig, So100LeaderConfig])
def test_one_key_for_policies_from_before_degrees(config: Config) -> None:
    arm: Any = config(unit="range_m100_100")
    found = {name: joint.unit for name, joint in arm.joints.items()}
    assert found == {name: "range_0_100" if name == "gripper" else "range_m100_100" for name in SO100}
    assert {name: joint.unit for name, joint in config().joints.items()}["elbow_flex"] == "degrees"


def test_bounds_in_degrees_are_not_shares() -> None:
    with pytest.raises(ConfigError, match="unit: elbow has low or high in degrees"):
        ArmConfig(unit="range_m100_100", joints={"elbow": Joint(1, "sts3215", low=-10.0)})
