"""`tactus calibrate` at a terminal, with a person whose hands move the twin's joints."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from person import CTRL_C, ROOT, Person
from twins import RunningTwin, running_twin

from tactus.hal.twin.arm import EmulatedArm
from tactus.hal.twin.config import JOINTS, ArmConfig
from tactus.hal.twin.faults import Faults
from tactus.hal.twin.kinematic_world import HIGH_RAD, KinematicJoints
from tactus.hal.twin.servo import no_log

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

HIGH = dict(zip(JOINTS, HIGH_RAD.tolist(), strict=True))
MIDDLE: dict[str, float] = dict.fromkeys(JOINTS, 0.0)
KINDS = ("so101", "koch")
FOLLOWER = {"so101": "so100", "koch": "koch"}


def true_calibration(kind: str, folder: Path) -> dict[str, dict[str, int]]:
    """What a perfect calibration of the twin's arm `follower` finds."""
    file = EmulatedArm("follower", ArmConfig(kind), KinematicJoints(), Faults(), no_log).write_calibration(folder)
    assert file is not None
    return json.loads(file.read_text())


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, RunningTwin]]:
    """An arm as from the factory, of either protocol."""
    yield from _twin(request.param, tmp_path)


@pytest.fixture
def so101(tmp_path: Path) -> Iterator[RunningTwin]:
    for _, twin in _twin("so101", tmp_path):
        yield twin


def _twin(kind: str, folder: Path) -> Iterator[tuple[str, RunningTwin]]:
    arm = f"--arms.follower.kind={kind}"
    with running_twin(folder / "twin", "--world=kinematic", arm, "--arms.follower.calibrated=false") as twin:
        yield kind, twin


def keys(twin: RunningTwin, kind: str, file: Path) -> list[str]:
    port = f"--robot.port={twin.port('follower')}"
    return ["calibrate", f"--robot.type={FOLLOWER[kind]}", port, f"--robot.calibration={file}"]


def move(twin: RunningTwin, angles: Mapping[str, float]) -> None:
    """A hand moves limp joints there, and holds them."""
    twin.ask(do="hand", arm="follower", angles_rad=angles)
    until_s = time.monotonic() + 10
    while any(abs(twin.arm("follower")["angles_rad"][name] - angle) > 1e-3 for name, angle in angles.items()):
        assert time.monotonic() < until_s, "the joints do not move: are they limp?"
        time.sleep(0.02)


def begin(person: Person, twin: RunningTwin) -> None:
    """Up to and with homing."""
    person.waits_for("goes limp")
    person.presses("\n")
    person.waits_for("middle of its range")
    move(twin, MIDDLE)
    person.presses("\n")


def check_joints(person: Person, twin: RunningTwin) -> None:
    angles = dict(MIDDLE)
    for name in JOINTS:
        person.waits_for(f"Move {name}")
        angles[name] = 0.3
        move(twin, angles)
        person.presses("\n")
    move(twin, MIDDLE)


def sweep(person: Person, twin: RunningTwin, left_out: str = "") -> None:
    person.waits_for("stop to stop")
    for share in (-1.0, 1.0, 0.0):
        move(twin, {name: 0.0 if name == left_out else share * high for name, high in HIGH.items()})
        time.sleep(0.8)  # so that it is seen there
    person.presses("\n")


def torque(twin: RunningTwin) -> set[bool]:
    return set(twin.arm("follower")["torque_on"].values())


def test_a_calibration_found_by_hand_is_the_twins_own(fresh: tuple[str, RunningTwin], tmp_path: Path) -> None:
    kind, twin = fresh
    file = tmp_path / "found.json"
    with Person(*keys(twin, kind, file)) as person:
        begin(person, twin)
        check_joints(person, twin)
        sweep(person, twin)
        person.waits_for("calibration: ")
        assert person.status() == 0
    found, truth = json.loads(file.read_text()), true_calibration(kind, tmp_path)
    turning = {"wrist_roll"} if kind == "so101" else {"wrist_roll", "shoulder_pan"}
    for name in JOINTS:
        wanted = truth[name] | ({"range_min": 0, "range_max": 4095} if name in turning else {})
        assert found[name].keys() == wanted.keys()
        for key, value in wanted.items():
            assert abs(found[name][key] - value) <= 3, (name, key)
    assert torque(twin) == {False}
    registers = twin.arm("follower")["registers"]
    for name, joint in found.items():
        for register, key in zip(
            ("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit"),
            ("homing_offset", "range_min", "range_max"),
            strict=True,
        ):
            assert registers[name][register] == joint[key]


def test_a_joint_that_was_not_moved_is_named(so101: RunningTwin, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    with Person(*keys(so101, "so101", file), "--check_joints=false") as person:
        begin(person, so101)
        sweep(person, so101, left_out="elbow_flex")
        person.waits_for("elbow_flex hardly moved")
        assert person.status() == 1
    assert not file.exists()


def test_exchanged_ids_are_told_by_name(so101: RunningTwin, tmp_path: Path) -> None:
    ids = {**{name: i for i, name in enumerate(JOINTS, 1)}, "shoulder_lift": 3, "elbow_flex": 2}
    table = {name: {"id": motor_id, "model": "sts3215"} for name, motor_id in ids.items()}
    config = tmp_path / "exchanged.yaml"
    file = tmp_path / "found.json"
    robot = {"type": "so100", "port": so101.port("follower"), "calibration": str(file), "joints": table}
    config.write_text(yaml.safe_dump({"robot": robot}, sort_keys=False))
    with Person("calibrate", "--config_path", str(config)) as person:
        begin(person, so101)
        person.waits_for("Move shoulder_pan")
        move(so101, MIDDLE | {"shoulder_pan": 0.3})
        person.presses("\n")
        person.waits_for("Move shoulder_lift")
        move(so101, MIDDLE | {"shoulder_pan": 0.3, "shoulder_lift": 0.3})
        person.presses("\n")
        person.waits_for("shoulder_lift was to be moved, and elbow_flex (id 2) turned: their ids are exchanged")
        assert person.status() == 1
    assert not file.exists()


@pytest.mark.parametrize(
    "angle, words",
    [
        (-0.3, "shoulder_pan counts down where it should count up (to the arm's right)"),
        (0.01, "shoulder_pan: nothing moved"),
    ],
)
def test_a_wrong_sign_or_no_movement_is_told(so101: RunningTwin, tmp_path: Path, angle: float, words: str) -> None:
    file = tmp_path / "found.json"
    with Person(*keys(so101, "so101", file)) as person:
        begin(person, so101)
        person.waits_for("Move shoulder_pan to the arm's right, and nothing else")
        move(so101, MIDDLE | {"shoulder_pan": angle})
        person.presses("\n")
        person.waits_for(words)
        assert person.status() == 1
    assert not file.exists()


@pytest.mark.long
def test_a_joint_that_was_not_homed_in_its_middle_is_told(so101: RunningTwin, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    with Person(*keys(so101, "so101", file), "--check_joints=false") as person:
        person.waits_for("goes limp")
        person.presses("\n")
        person.waits_for("middle of its range")
        move(so101, MIDDLE | {"shoulder_pan": -HIGH["shoulder_pan"]})
        person.presses("\n")
        sweep(person, so101)
        person.waits_for("shoulder_pan went past the end of the turn")
        assert person.status() == 1
    assert not file.exists()


def registers(twin: RunningTwin) -> dict[str, list[int]]:
    names = ("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit")
    return {joint: [values[name] for name in names] for joint, values in twin.arm("follower")["registers"].items()}


@pytest.mark.parametrize("kind", ["koch", pytest.param("so101", marks=pytest.mark.long)])
def test_ctrl_c_leaves_no_file_torque_off_and_the_servos_as_they_were(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    with running_twin(tmp_path / "twin", "--world=kinematic", f"--arms.follower.kind={kind}") as twin:
        before = registers(twin)
        with Person(*keys(twin, kind, file)) as person:
            begin(person, twin)
            person.waits_for("Move shoulder_pan")
            assert registers(twin) != before
            person.presses(CTRL_C)
            person.waits_for("interrupted; no file was written")
            assert person.status() == 130
        assert registers(twin) == before
        assert torque(twin) == {False}
    assert not file.exists()


LEROBOT = """
import sys
kind, port, folder = sys.argv[1:]
if kind == "so101":
    from lerobot.robots.so_follower import SO101Follower as Robot, SO101FollowerConfig as Config
else:
    from lerobot.robots.koch_follower import KochFollower as Robot, KochFollowerConfig as Config
robot = Robot(Config(port=port, id="mine", calibration_dir=__import__("pathlib").Path(folder)))
assert len(robot.calibration) == 6
robot.bus.connect()
print("calibrated:", robot.is_calibrated)
robot.bus.disconnect(disable_torque=False)
"""


def is_calibrated(kind: str, twin: RunningTwin, folder: Path) -> bool:
    """Whether LeRobot loads folder/mine.json and finds the servos to hold it."""
    arguments = [sys.executable, "-c", LEROBOT, kind, twin.port("follower"), str(folder)]
    out = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    return "calibrated: True" in out.stdout


@pytest.mark.parametrize("fresh", ["so101", pytest.param("koch", marks=pytest.mark.long)], indirect=True)
def test_a_file_is_written_to_the_servos_as_lerobot_has_it(fresh: tuple[str, RunningTwin], tmp_path: Path) -> None:
    kind, twin = fresh
    truth = tmp_path / "given.json"
    truth.write_text(json.dumps(true_calibration(kind, tmp_path)))
    folder = tmp_path / "lerobot"
    folder.mkdir()
    (folder / "mine.json").write_text(truth.read_text())
    assert not is_calibrated(kind, twin, folder)
    (folder / "mine.json").unlink()
    arguments = [*keys(twin, kind, folder / "mine.json"), f"--from={truth}"]
    out = subprocess.run([sys.executable, "-m", "tactus", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert json.loads((folder / "mine.json").read_text()) == json.loads(truth.read_text())
    assert is_calibrated(kind, twin, folder)
    assert torque(twin) == {False}


def test_a_file_that_cannot_be_written_leaves_the_servos_alone(fresh: tuple[str, RunningTwin], tmp_path: Path) -> None:
    kind, twin = fresh
    truth = tmp_path / "given.json"
    truth.write_text(json.dumps(true_calibration(kind, tmp_path)))
    (tmp_path / "file").write_text("kept")
    written = len(twin.writes())
    arguments = [*keys(twin, kind, tmp_path / "file" / "mine.json"), f"--from={truth}"]
    out = subprocess.run([sys.executable, "-m", "tactus", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 1 and "mine.json cannot be written: " in out.stderr and "Traceback" not in out.stderr
    assert len(twin.writes()) == written and (tmp_path / "file").read_text() == "kept"


LEADER = """
import sys
from pathlib import Path
from lerobot.teleoperators.koch_leader import KochLeader, KochLeaderConfig
leader = KochLeader(KochLeaderConfig(port=sys.argv[1], id="mine"))
assert len(leader.calibration) == 6
leader.bus.connect()
print("calibrated:", leader.is_calibrated, leader.get_action()["elbow_flex.pos"])
leader.bus.disconnect(disable_torque=False)
"""


@pytest.mark.long
def test_a_koch_leaders_elbow_counts_as_lerobot_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_CALIBRATION", str(tmp_path))
    for _, twin in _twin("koch", tmp_path):
        twin.ask(do="fault", kind="wrong_model", motor="all", value=1190)  # all are XL330-M077 now
        robot = ["--robot.type=koch_leader", f"--robot.port={twin.port('follower')}", "--robot.id=mine"]
        with Person("calibrate", *robot) as person:
            begin(person, twin)
            check_joints(person, twin)
            sweep(person, twin)
            assert person.status() == 0
        found = json.loads((tmp_path / "teleoperators" / "koch_leader" / "mine.json").read_text())
        assert {name for name, joint in found.items() if joint["drive_mode"]} == {"elbow_flex"}
        move(twin, MIDDLE | {"elbow_flex": 0.5})
        arguments = [sys.executable, "-c", LEADER, twin.port("follower")]
        out = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert out.returncode == 0, out.stderr
        said = out.stdout.split("calibrated: ")[1].split()
        share = -100 * 0.5 / HIGH["elbow_flex"]  # LeRobot has this arm in ±100
        assert said[0] == "True" and float(said[1]) == pytest.approx(share, abs=0.5)


def test_without_a_person_or_a_file_it_says_so(so101: RunningTwin, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "tactus", *keys(so101, "so101", tmp_path / "found.json")]
    out = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert out.returncode == 1 and "needs a person at a terminal; or give --from=FILE" in out.stderr
    assert so101.writes() == []
