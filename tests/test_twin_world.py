"""The twin's physics, its task, its cameras and its scene: everything behind the buses."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tactus.hal.robot import RobotError
from tactus.hal.spec import ENVIRONMENT_STATE, SpecError
from tactus.hal.twin.cameras import Cameras, CamerasConfig
from tactus.hal.twin.config import JOINTS
from tactus.hal.twin.model import build
from tactus.hal.twin.scene import TASK, TwinScene, TwinSceneConfig
from tactus.hal.twin.shared_poses import PoseReader, PoseWriter
from tactus.hal.twin.table_world import TableWorld

ROOT = Path(__file__).parents[1]
FULL = np.ones(6)
OTHER_ARM = """
<mujoco><compiler angle="degree"/><worldbody><body name="trunk">
  <geom type="box" size=".04 .04 .04" mass="1" contype="0" conaffinity="0"/>
  <body pos="0 0 .1"><joint name="shoulder_pan" axis="0 0 1" range="-90 90"/><geom size=".02" mass=".1"/>
  <body pos="0 0 .1"><joint name="shoulder_lift" axis="0 1 0" range="-80 100"/><geom size=".02" mass=".1"/>
  <body pos="0 0 .1"><joint name="elbow_flex" axis="0 1 0" range="-90 90"/><geom size=".02" mass=".1"/>
  <body pos="0 0 .1"><joint name="wrist_flex" axis="0 1 0" range="-90 90"/><geom size=".02" mass=".05"/>
  <body pos="0 0 .02"><joint name="wrist_roll" axis="0 0 1" range="-90 90"/><geom size=".02" mass=".05"/>
  <body pos="0 0 .02"><joint name="gripper" axis="0 1 0" range="0 60"/><geom size=".01" mass=".02"/>
  </body></body></body></body></body></body></body></worldbody>
  <actuator><motor joint="gripper"/></actuator></mujoco>
"""


@pytest.fixture
def world() -> TableWorld:
    return TableWorld()


def go(
    world: TableWorld, degrees: list[float], seconds: float, torque: np.ndarray = FULL, arm: str = "arm"
) -> np.ndarray:
    """Drive there, and where it then is, in degrees."""
    world.arms[arm].drive(np.deg2rad(degrees), torque)
    world.step(int(seconds * 500))
    return np.rad2deg(world.arms[arm].positions())


def lay(world: TableWorld, position: tuple[float, float, float]) -> None:
    """Put the cube there, at rest."""
    world.data.qpos[:7] = [*position, 1, 0, 0, 0]
    world.data.qvel[:6] = 0


class TestArm:
    def test_joints_have_the_published_travel_about_their_middle(self, world: TableWorld) -> None:
        joints = world.arms["arm"]
        np.testing.assert_allclose(np.rad2deg(joints.high), [110, 100, 97, 95, 160, 55])
        np.testing.assert_array_equal(joints.low, -joints.high)

    @pytest.mark.parametrize(
        "pose", [[0, 0, 0, 0, 0, 0], [90, -60, 60, 40, 90, 40], [-90, 30, -40, 60, -90, -20], [0, 50, -70, 0, 0, 0]]
    )
    def test_it_goes_where_it_is_driven_and_holds_it_against_its_weight(
        self, world: TableWorld, pose: list[float]
    ) -> None:
        found = go(world, pose, 2.5)
        np.testing.assert_allclose(found, pose, atol=0.5)
        assert np.abs(world.arms["arm"].velocities()).max() < 0.02
        assert np.abs(world.arms["arm"].loads()).max() <= 1.0

    def test_a_stretched_arm_needs_torque_to_stay(self, world: TableWorld) -> None:
        go(world, [0, 60, -60, 0, 0, 0], 2)
        load = world.arms["arm"].loads()[1]
        assert 0.1 < abs(load) < 0.6
        held = go(world, [0, 60, -60, 0, 0, 0], 1, np.array([1.0, abs(load) / 2, 1, 1, 1, 1]))
        assert held[1] > 65, "half the torque it needs must not hold it"

    def test_limp_it_falls(self, world: TableWorld) -> None:
        before = go(world, [0, 0, 0, 0, 0, 0], 2)
        after = go(world, [0, 0, 0, 0, 0, 0], 2, 0 * FULL)
        assert np.abs(after[1:4] - before[1:4]).max() > 20
        np.testing.assert_array_equal(world.arms["arm"].loads(), 0)

    def test_its_speed_is_the_servos(self, world: TableWorld) -> None:
        go(world, [-100, -60, 60, 40, 0, 0], 2)
        world.arms["arm"].drive(np.deg2rad([100, -60, 60, 40, 0, 0]), FULL)
        fastest = 0.0
        for _ in range(200):
            world.step(2)
            fastest = max(fastest, world.arms["arm"].velocities()[0])
        assert 3.5 < fastest <= 5.05

    def test_its_stops_hold(self, world: TableWorld) -> None:
        found = go(world, [170, -60, 60, 40, 0, 90], 3)
        assert found[0] == pytest.approx(110, abs=1.5)
        assert found[5] == pytest.approx(55, abs=1.5)

    def test_the_table_is_solid(self, world: TableWorld) -> None:
        go(world, [0, 60, 60, 60, 0, 0], 3)
        assert world.data.site("arm_grip").xpos[2] > -0.005

    def test_a_hand_moves_a_limp_arm_and_lets_go(self, world: TableWorld) -> None:
        go(world, [0] * 6, 0.5, 0 * FULL)
        angles = {"shoulder_pan": 0.7, "wrist_roll": -0.5, "gripper": 0.4}
        assert world.handle({"do": "hand", "arm": "arm", "angles_rad": angles}) == {}
        world.step(1500)
        found = dict(zip(JOINTS, world.arms["arm"].positions(), strict=True))
        for joint, angle in angles.items():
            assert found[joint] == pytest.approx(angle, abs=0.03)
        world.handle({"do": "hand", "arm": "arm", "angles_rad": {}})
        assert not world.data.qfrc_applied.any()

    def test_time_is_the_callers_and_gaps_are_skipped(self, world: TableWorld) -> None:
        world.advance(100.0)
        world.advance(100.05)
        assert world.data.time == pytest.approx(0.05, abs=0.003)
        world.advance(107.0)
        assert world.data.time == pytest.approx(0.05, abs=0.003)
        for i in range(1, 101):
            world.advance(107.0 + i * 0.0007)
        assert world.data.time == pytest.approx(0.12, abs=0.005)

    def test_equal_drives_give_equal_motions(self) -> None:
        ends = []
        for _ in range(2):
            world = TableWorld()
            world.handle({"do": "reset", "episode": 4, "seed": 2})
            go(world, [30, 40, 10, 60, 10, 20], 1)
            ends.append(world.data.qpos.copy())
        np.testing.assert_array_equal(ends[0], ends[1])


class TestModels:
    def test_arms_stand_side_by_side_and_move_alone(self) -> None:
        world = TableWorld(["left", "right"])
        go(world, [50, -50, 50, 0, 0, 0], 2, arm="left")
        assert abs(np.rad2deg(world.arms["right"].positions()[0])) < 1
        apart = world.data.body("left_base").xpos - world.data.body("right_base").xpos
        np.testing.assert_allclose(apart, [0, 0.5, 0])

    def test_another_arm_with_the_same_joints(self, tmp_path: Path) -> None:
        file = tmp_path / "other.xml"
        file.write_text(OTHER_ARM)
        world = TableWorld(["arm"], file)
        np.testing.assert_allclose(np.rad2deg(world.arms["arm"].high), [90, 90, 90, 90, 90, 30])
        np.testing.assert_allclose(go(world, [20, 30, 10, 0, 5, -20], 2), [20, 30, 10, 0, 5, -20], atol=0.5)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (("elbow_flex", "elbow"), "no joint named elbow_flex"),
            ((' range="-80 100"', ""), "shoulder_lift has no range"),
            (("<worldbody>", "<worldbody"), "not a model MuJoCo can load"),
        ],
    )
    def test_a_model_that_will_not_do_is_refused(self, tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
        file = tmp_path / "other.xml"
        file.write_text(OTHER_ARM.replace(*change))
        with pytest.raises(RobotError, match=complaint):
            build(["arm"], file)

    def test_a_model_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RobotError, match="absent.xml"):
            build(["arm"], tmp_path / "absent.xml")


class TestTask:
    def test_places_are_drawn_by_seed_and_episode(self, world: TableWorld) -> None:
        def place(episode: int, seed: int) -> list[float]:
            answer = world.handle({"do": "reset", "episode": episode, "seed": seed})
            assert answer is not None
            return answer["cube"]

        first = [place(i, 1) for i in range(20)]
        assert first == [place(i, 1) for i in range(20)]
        assert all(a != b for a, b in itertools.combinations(first, 2))
        assert place(0, 2) != first[0]
        radii = np.hypot(np.array(first)[:, 0] - 0.0388, np.array(first)[:, 1])
        assert radii.min() > 0.17 and radii.max() < 0.25

    def test_the_cube_lies_still_where_it_was_laid(self, world: TableWorld) -> None:
        answer = world.handle({"do": "reset", "episode": 0, "seed": 0})
        assert answer is not None
        world.step(1000)
        np.testing.assert_allclose(world.state()["cube"][:3], answer["cube"][:3], atol=1e-3)
        assert not world.state()["success"] and not world.state()["done"]

    def test_a_cube_at_rest_in_the_bin_ends_the_episode(self, world: TableWorld) -> None:
        lay(world, (0.165, -0.195, 0.10))
        assert world.handle({"do": "outcome"}) == {"success": False, "done": False, "reward": 0.0}
        seen = []
        for _ in range(100):
            world.step(10)
            seen.append(world.handle({"do": "outcome"}))
        successes = [answer["success"] for answer in seen if answer]
        dones = [answer["done"] for answer in seen if answer]
        assert successes[-1] and dones[-1]
        assert not successes[0] and successes.index(True) < dones.index(True)
        world.handle({"do": "reset", "episode": 0, "seed": 0})
        assert world.handle({"do": "outcome"}) == {"success": False, "done": False, "reward": 0.0}

    def test_beside_the_bin_is_not_in_it(self, world: TableWorld) -> None:
        lay(world, (0.165, -0.29, 0.0135))
        world.step(500)
        assert not world.state()["success"]

    def test_off_the_table_is_the_end_without_success(self, world: TableWorld) -> None:
        lay(world, (1.2, 0.0, 0.05))
        world.step(500)
        assert world.handle({"do": "outcome"}) == {"success": False, "done": True, "reward": 0.0}

    def test_the_jaws_hold_the_cube_until_it_is_taken_away(self, world: TableWorld) -> None:
        go(world, [0, 0, 0, 0, 0, -5], 2)
        gentle = np.array([1, 1, 1, 1, 1, 0.24])
        for _ in range(200):  # in the air between the jaws until they have closed
            lay(world, tuple(world.data.site("arm_grip").xpos))
            go(world, [0, 0, 0, 0, 0, -50], 0.004, gentle)
        for pose in ([40, -20, 20, 30, 60, -50], [-40, -60, 60, 60, -60, -50]):
            go(world, pose, 3, gentle)
            away = world.data.body("cube").xpos - world.data.site("arm_grip").xpos
            assert world.state()["held"] and np.linalg.norm(away) < 0.01
        assert not world.state()["success"]
        answer = world.handle({"do": "reset", "episode": 1, "seed": 0})
        assert answer is not None and not answer["held"] and answer["cube"][2] == pytest.approx(0.0135)
        before = world.arms["arm"].positions()
        world.step(1)
        np.testing.assert_allclose(world.arms["arm"].positions(), before, atol=0.01)

    @pytest.mark.parametrize(
        ("request_", "complaint"),
        [
            ({"do": "reset", "seed": 1}, "episode must be an integer"),
            ({"do": "reset", "episode": 0, "seed": "x"}, "seed must be an integer"),
            ({"do": "hand", "arm": "nobody", "angles_rad": {}}, "no arm 'nobody'"),
            ({"do": "hand", "arm": "arm", "angles_rad": {"knee": 1.0}}, "must map joints"),
        ],
    )
    def test_bad_requests_are_refused(self, world: TableWorld, request_: dict, complaint: str) -> None:
        with pytest.raises(RobotError, match=complaint):
            world.handle(request_)

    def test_other_requests_are_left_to_others(self, world: TableWorld) -> None:
        assert world.handle({"do": "dance"}) is None


def test_a_pose_is_never_read_half_written(tmp_path: Path) -> None:
    writer = PoseWriter(tmp_path / "poses", 2000)
    reader = PoseReader(tmp_path / "poses", 2000)
    assert reader.read()[1] == 0
    stop = threading.Event()

    def write() -> None:
        for i in itertools.count(1):
            writer.write(np.full(2000, float(i)), i)
            if stop.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    stamps = []
    for _ in range(2000):
        values, stamp_ns = reader.read()
        assert (values == stamp_ns).all()
        stamps.append(stamp_ns)
    stop.set()
    thread.join()
    assert stamps == sorted(stamps) and stamps[-1] > stamps[0]


def test_poses_of_another_model_are_refused(tmp_path: Path) -> None:
    PoseWriter(tmp_path / "poses", 13)
    with pytest.raises(RobotError, match="another model"):
        PoseReader(tmp_path / "poses", 19)
    with pytest.raises(RobotError, match="no poses"):
        PoseReader(tmp_path / "absent", 13)


class Stage:
    """A world whose poses a camera process films: what the physics process is to it, without a bus."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.world = TableWorld(poses=folder / "poses")
        self.cameras = Cameras(CamerasConfig(**config), ["arm"], None, folder / "poses")  # type: ignore[arg-type]
        self.show()

    def show(self) -> None:
        assert self.world._poses is not None
        self.world._poses.write(self.world.data.qpos, time.monotonic_ns())

    def picture(self, camera: str) -> np.ndarray:
        """The next whole frame after what is shown now, int16 BGR."""
        self.show()
        capture = cv2.VideoCapture(self.cameras.urls[camera])
        try:
            pictures = [capture.read() for _ in range(3)]
        finally:
            capture.release()
        assert all(good for good, _ in pictures)
        return pictures[-1][1].astype(np.int16)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("stage"), names=["top", "side", "wrist"])
    yield stage
    stage.cameras.close()


def middle_of_red(picture: np.ndarray) -> np.ndarray:
    """Mean row and column, as shares of the picture's size, of what is red."""
    blue, green, red = picture[:, :, 0], picture[:, :, 1], picture[:, :, 2]
    spots = np.argwhere((red > 110) & (red - green > 70) & (red - blue > 70))
    assert len(spots) > 20, "no red cube to be seen"
    return spots.mean(axis=0) / picture.shape[:2]


class TestCameras:
    @pytest.mark.slow
    def test_top_is_right_side_up(self, stage: Stage) -> None:
        """Ahead of the arm is up, its left is left, and the picture is to scale."""
        seen = {}
        for name, x, y in (("near", 0.20, 0.0), ("far", 0.33, 0.0), ("left", 0.20, 0.15), ("right", 0.20, -0.06)):
            lay(stage.world, (x, y, 0.0135))
            stage.world.arms["arm"].place(np.deg2rad([90, -98, 94, 70, 0, -50]))  # type: ignore[attr-defined]
            seen[name] = middle_of_red(stage.picture("top"))
        assert seen["far"][0] < seen["near"][0] - 0.1
        assert seen["left"][1] < seen["near"][1] - 0.1 < seen["right"][1]
        pixels_x = (seen["near"][0] - seen["far"][0]) * 240 / 0.13
        pixels_y = (seen["right"][1] - seen["left"][1]) * 320 / 0.21
        assert pixels_x == pytest.approx(pixels_y, rel=0.05)

    def test_pictures_have_the_size_and_colours_of_a_scene(self, stage: Stage) -> None:
        lay(stage.world, (0.22, 0.08, 0.0135))
        for name in ("top", "side"):
            picture = stage.picture(name)
            assert picture.shape == (240, 320, 3)
            middle_of_red(picture)
            assert ((picture[:, :, 0] - picture[:, :, 2]) > 50).sum() > 500, "no blue bin to be seen"
            assert picture.std() > 20

    def test_the_wrist_camera_sees_what_is_between_the_jaws(self, stage: Stage) -> None:
        stage.world.arms["arm"].place(np.deg2rad([0, 0, 0, 0, 0, -5]))  # type: ignore[attr-defined]
        stage.world.step(1)
        lay(stage.world, tuple(stage.world.data.site("arm_grip").xpos))
        row, column = middle_of_red(stage.picture("wrist"))
        assert 0.3 < row < 0.9 and 0.3 < column < 0.7

    def test_what_moves_is_seen_to_move(self, stage: Stage) -> None:
        lay(stage.world, (0.22, 0.08, 0.0135))
        before = stage.picture("side")
        stage.world.arms["arm"].place(np.deg2rad([40, 20, 20, 30, 0, 0]))  # type: ignore[attr-defined]
        assert np.abs(stage.picture("side") - before).mean() > 2

    @pytest.mark.slow
    def test_frames_carry_the_time_of_capture(self, stage: Stage) -> None:
        stage.show()
        asked_ns = time.monotonic_ns()
        stage.show()
        out = subprocess.run(
            ["curl", "-sN", "--max-time", "1", stage.cameras.urls["top"]], capture_output=True, check=False
        ).stdout
        stamps = [int(part.split(b"\r\n")[0]) for part in out.split(b"X-Timestamp: ")[1:]]
        assert len(stamps) > 10
        assert asked_ns <= stamps[-1] <= time.monotonic_ns()

    @pytest.mark.slow
    def test_faults(self, stage: Stage) -> None:
        """freeze: the connection lives and nothing comes. stop: it is closed, the port too. start: all is well."""
        url, ask = stage.cameras.urls["top"], stage.cameras.fault
        options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 700]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)
        assert capture.read()[0]
        for kind in ("freeze", "stop"):
            assert ask({"camera": "top", "kind": kind}) == {}
            began = time.monotonic()
            while capture.read()[0]:
                assert time.monotonic() - began < 5, f"frames go on after {kind}"
            if kind == "stop":
                assert not cv2.VideoCapture(url, cv2.CAP_FFMPEG, options).isOpened()
            ask({"camera": "top", "kind": "start"})
            began = time.monotonic()
            while not (capture := cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)).isOpened():
                assert time.monotonic() - began < 5, f"no frames after {kind} and start"
            assert capture.read()[0]
        capture.release()

    def test_faults_that_do_not_exist_are_refused(self, stage: Stage) -> None:
        with pytest.raises(RobotError, match="accepted: top, side, wrist"):
            stage.cameras.fault({"camera": "rear", "kind": "stop"})
        with pytest.raises(RobotError, match="accepted: freeze, stop, start"):
            stage.cameras.fault({"camera": "top", "kind": "explode"})

    @pytest.mark.slow
    def test_a_camera_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RobotError, match="no camera 'rear'; there are top, side, arm_wrist"):
            Stage(tmp_path, names=["rear"])

    @pytest.mark.slow
    def test_the_process_ends_with_its_parent(self, tmp_path: Path) -> None:
        TableWorld(poses=tmp_path / "poses")
        code = (
            "import sys, time; from pathlib import Path; from tactus.hal.twin.cameras import Cameras, CamerasConfig\n"
            f"cameras = Cameras(CamerasConfig(names=['top']), ['arm'], None, Path({str(tmp_path / 'poses')!r}))\n"
            "print(cameras.pid, flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            ended = os.pidfd_open(pid)
            parent.kill()
            until = time.monotonic() + 10
            while time.monotonic() < until and _alive(pid):
                time.sleep(0.05)
            os.close(ended)
        assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"names": ["top", "top"]}, "names: found top, top; each may be named once"),
        ({"width": 5}, "width: found 5; must be at least 16"),
        ({"fps": 0}, "fps: found 0; must be positive"),
        ({"quality": 0}, "quality: found 0; must be at least 1"),
    ],
)
def test_unusable_cameras_are_refused(wrong: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CamerasConfig(**wrong)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("twin")
    command = [sys.executable, "-m", "tactus", "twin", f"--folder={folder}", "--cameras.names=[]"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("twin: ready" in line for line in process.stdout)
        yield folder
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


@pytest.fixture
def scene(twin: Path) -> Iterator[TwinScene]:
    robot = TwinSceneConfig(folder=str(twin)).make()
    assert isinstance(robot, TwinScene)
    with robot:
        yield robot


class TestScene:
    @pytest.mark.slow
    def test_it_says_where_the_cube_is(self, scene: TwinScene) -> None:
        scene.reset(3, seed=5)
        poses = scene.observe().arrays[ENVIRONMENT_STATE]
        scene.spec.observations[ENVIRONMENT_STATE].check("poses", poses)
        expected = TableWorld().handle({"do": "reset", "episode": 3, "seed": 5})
        assert expected is not None
        np.testing.assert_allclose(poses[:2], expected["cube"][:2], atol=1e-3)
        np.testing.assert_allclose(poses[7:], expected["bin"], atol=1e-6)
        scene.reset(4, seed=5)
        assert np.abs(scene.observe().arrays[ENVIRONMENT_STATE][:2] - poses[:2]).max() > 1e-3

    def test_its_observations_are_fresh(self, scene: TwinScene) -> None:
        before = time.monotonic_ns()
        stamp = scene.observe().stamps_ns[ENVIRONMENT_STATE]
        assert before <= stamp <= time.monotonic_ns()

    def test_an_episode_begins_undone(self, scene: TwinScene) -> None:
        scene.reset(0, seed=1)
        outcome = scene.outcome()
        assert not outcome.success and not outcome.done
        assert scene.scene(0).task == TASK

    def test_it_takes_no_action(self, scene: TwinScene) -> None:
        assert scene.act(np.zeros(0, np.float32)).shape == (0,)
        with pytest.raises(SpecError, match="action"):
            scene.act(np.zeros(1, np.float32))

    def test_without_a_twin_it_says_how_to_start_one(self, tmp_path: Path) -> None:
        with pytest.raises(RobotError, match="tactus twin"):
            TwinSceneConfig(folder=str(tmp_path)).make().connect()

    def test_before_connect_there_is_nothing_to_see(self, twin: Path) -> None:
        with pytest.raises(RobotError, match="connect"):
            TwinSceneConfig(folder=str(twin)).make().observe()


@pytest.mark.slow
def test_twin_json_names_the_streams(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tactus", "twin", f"--folder={tmp_path}", "--cameras.names=[top]"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = list(itertools.takewhile(lambda line: "twin: ready" not in line, process.stdout))
        about = json.loads((tmp_path / "twin.json").read_text())
        assert list(about["cameras"]) == ["top"]
        assert any(about["cameras"]["top"] in line for line in lines)
        capture = cv2.VideoCapture(about["cameras"]["top"])
        good, picture = capture.read()
        capture.release()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    assert good and picture.shape == (240, 320, 3)
