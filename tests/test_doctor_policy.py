"""`tactus doctor --policy.path=…`: known faults of tiny checkpoints, datasets and robots, and what is said of each."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import cv2
import numpy as np
import pytest

import tactus.hal.backends
from tactus.hal.diagnostics.finding import Finding
from tactus.hal.robot import RobotConfig
from tactus.hal.spec import STATE, Feature, RobotSpec, image
from tactus.policies.lerobot import LeRobotConfig
from tactus.runtime.diagnosis.dataset_facts import DatasetFacts, dataset_facts
from tactus.runtime.diagnosis.dataset_findings import diagnose_dataset
from tactus.runtime.diagnosis.pictures import TURNS, turns
from tactus.runtime.diagnosis.policy_facts import policy_facts
from tactus.runtime.diagnosis.policy_findings import diagnose_policy
from tactus.runtime.diagnosis.robot_facts import RobotFacts, robot_facts

REGISTERED = (tactus.hal.backends,)
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
SIZE = (64, 64)
JOINTS = tuple(f"joint_{i}" for i in range(6))
DEGREES = {STATE: (-80.0, 140.0), "action": (-80.0, 140.0)}
LIMITS = {"low": (-110.0,) * 6, "high": (160.0,) * 6, "mode": ("absolute",) * 6, "names": JOINTS}
ROBOT = RobotSpec(
    "arm",
    30.0,
    {STATE: Feature((6,), "float32", "deg", JOINTS), FRONT: image(*SIZE), WRIST: image(*SIZE)},
    Feature((6,), "float32", "deg", **LIMITS),
)
TASK = "pick up the cube"


def scene(camera: str, seed: int) -> np.ndarray:
    """A picture with a colour, a top and a left of its own, a little different each time."""
    random = np.random.default_rng(seed)
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[:] = (70, 110, 150) if camera == FRONT else (120, 90, 60)
    cv2.rectangle(picture, (0, 44), (63, 63), (150, 100, 60) if camera == FRONT else (40, 160, 60), -1)
    shift = int(random.integers(0, 4))
    cv2.circle(picture, (14 + shift, 20), 9, (220, 40, 40), -1)
    if camera == WRIST:
        cv2.rectangle(picture, (40, 4), (58, 40), (230, 230, 40), -1)
    noise = random.integers(0, 12, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def state(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-40, 90, 6).astype(np.float32)


def looks(count: int = 3) -> tuple[dict[str, np.ndarray], ...]:
    return tuple(
        {STATE: state(900 + i), FRONT: scene(FRONT, 900 + i), WRIST: scene(WRIST, 900 + i)} for i in range(count)
    )


@functools.cache
def healthy(folder: Path, kind: str = "act") -> Path:
    make: Any = getattr(checkpoints, kind)
    return make(folder / kind, images={FRONT: SIZE, WRIST: SIZE}, state=6, action=6, ranges=DEGREES)


def statistics_of(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    saved = policy_facts(LeRobotConfig(path=str(path)), TASK).saved
    assert saved is not None
    found = {name: saved.range_of(name) for name in (STATE, "action")}
    return {name: ends for name, ends in found.items() if ends is not None}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def data(shelf: Path) -> Path:
    """A LeRobotDataset of what the healthy checkpoint was trained on: its statistics are the checkpoint's."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    ends = statistics_of(healthy(shelf))
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": (6,), "names": list(JOINTS), "info": {"unit": "deg"}}
        for name in (STATE, "action")
    }
    features |= {
        name: {"dtype": "image", "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
        for name in (FRONT, WRIST)
    }
    root = shelf / "data"
    dataset = LeRobotDataset.create("local/data", 30, features, root=root, robot_type="arm", use_videos=False)
    frames = 40
    for i in range(frames):
        share = i / (frames - 1)
        vectors = {name: (low + (high - low) * share).astype(np.float32) for name, (low, high) in ends.items()}
        dataset.add_frame({**vectors, FRONT: scene(FRONT, i), WRIST: scene(WRIST, i), "task": TASK})
    dataset.save_episode()
    dataset.finalize()
    return root


class Bench:
    """A healthy pair, into which a fault is put."""

    def __init__(self, shelf: Path, data: Path, folder: Path) -> None:
        self._shelf, self._folder = shelf, folder
        self.path = healthy(shelf)
        self.data: DatasetFacts | None = cached(data)
        self.robot: RobotSpec | None = ROBOT
        self.seen = [dict(each) for each in looks()]
        self.task = TASK
        self.keys: dict[str, Any] = {}

    def copy(self, kind: str = "act") -> Path:
        """A checkpoint of its own to spoil."""
        self.path = self._folder / "checkpoint"
        shutil.copytree(healthy(self._shelf, kind), self.path)
        return self.path

    def trained(self, ranges: dict[str, tuple[float, float]]) -> None:
        """A checkpoint of other data; without a dataset."""
        self.data = None
        self.path = checkpoints.act(
            self._folder / "c", images={FRONT: SIZE, WRIST: SIZE}, state=6, action=6, ranges=ranges
        )

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        file = self.path / name
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    def restate(self, processor: str, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        """The statistics of a processor."""
        from safetensors.numpy import load_file, save_file

        [file] = self.path.glob(f"policy_{processor}_step_*normalizer*.safetensors")
        save_file({name: np.ascontiguousarray(each) for name, each in change(load_file(file)).items()}, file)

    def findings(self) -> list[Finding]:
        policy = policy_facts(
            LeRobotConfig(path=str(self.path), threads=1, **self.keys), self.task if self.robot else None
        )
        found = diagnose_policy(policy, self.robot, self.task, {"*": "--robot.image_size=[{h},{w}]"})
        return found + (diagnose_dataset(policy, self.data, self.robot, self.seen) if self.data else [])


@functools.cache
def cached(root: Path) -> DatasetFacts:
    return dataset_facts(root)


@pytest.fixture
def bench(shelf: Path, data: Path, tmp_path: Path) -> Bench:
    return Bench(shelf, data, tmp_path)


def action(**changes: Any) -> RobotSpec:
    return replace(ROBOT, action=replace(ROBOT.action, **changes))


def observing(**changes: Feature | None) -> RobotSpec:
    given = {**ROBOT.observations, **{f"observation.{name}": each for name, each in changes.items()}}
    return replace(ROBOT, observations={name: each for name, each in given.items() if each is not None})


def modes(file: dict[str, Any], name: str, **changes: str) -> None:
    for step in file["steps"]:
        if step.get("registry_name") == name:
            step["config"]["norm_map"] |= changes


def each_picture(bench: Bench, camera: str, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    for one in bench.seen:
        one[camera] = np.ascontiguousarray(turn(one[camera]))


Fault = Callable[[Bench], None]
FAULTS: dict[str, tuple[Fault, str, str, str]] = {}
"""name -> (what is done, level, words of the finding, words of its fix)."""


def fault(name: str, level: str, words: str, fix: str = "") -> Callable[[Fault], Fault]:
    def add(function: Fault) -> Fault:
        FAULTS[name] = function, level, words, fix
        return function

    return add


@fault("statistics under another name", "fault", "has none for action", "policy_postprocessor.json")
def _(b: Bench) -> None:
    b.copy()
    b.restate("postprocessor", lambda s: {k.replace("action.", "actions."): v for k, v in s.items()})


@fault("statistics of another width", "fault", "action.mean has shape [5]", "policy_postprocessor.json")
def _(b: Bench) -> None:
    b.copy()
    b.restate("postprocessor", lambda s: {k: v[:5] if k.startswith("action") else v for k, v in s.items()})


@fault("statistics that are not finite", "fault", "is not finite")
def _(b: Bench) -> None:
    b.copy()
    b.restate("postprocessor", lambda s: {k: v * np.nan if k == "action.std" else v for k, v in s.items()})


@fault(
    "an un-normaliser that is IDENTITY",
    "fault",
    "the un-normaliser does nothing to actions",
    "policy_postprocessor.json",
)
def _(b: Bench) -> None:
    b.copy()
    b.edit("policy_postprocessor.json", lambda f: modes(f, "unnormalizer_processor", ACTION="IDENTITY"))


@fault("an un-normaliser of another mode", "fault", "un-normalised by MIN_MAX, config.json says MEAN_STD")
def _(b: Bench) -> None:
    b.copy()
    b.edit("policy_postprocessor.json", lambda f: modes(f, "unnormalizer_processor", ACTION="MIN_MAX"))


@fault("IDENTITY throughout, of degrees", "note", "not un-normalised (IDENTITY), and in training they were", "dry_run")
def _(b: Bench) -> None:
    b.copy()
    b.edit("policy_postprocessor.json", lambda f: modes(f, "unnormalizer_processor", ACTION="IDENTITY"))
    b.edit("policy_preprocessor.json", lambda f: modes(f, "normalizer_processor", ACTION="IDENTITY"))
    b.edit("config.json", lambda f: f["normalization_mapping"].update(ACTION="IDENTITY"))


@fault("the postprocessor of another run", "fault", "the statistics of action in the preprocessor are not those in")
def _(b: Bench) -> None:
    b.copy()
    b.restate("postprocessor", lambda s: {k: v * 1.5 if k.startswith("action") else v for k, v in s.items()})


@fault("a state that never moved", "note", "observation.state[2] never moved in training")
def _(b: Bench) -> None:
    b.copy()

    def still(s: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for key in ("min", "max", "mean"):
            s[f"{STATE}.{key}"][2] = 5.0
        s[f"{STATE}.std"][2] = 0.0
        return s

    b.restate("preprocessor", still)


@fault("statistics of another dataset", "fault", "the policy's statistics are", "the statistics of this data")
def _(b: Bench) -> None:
    kept = b.data
    b.trained({STATE: (-8.0, 3.0), "action": (-8.0, 3.0)})
    b.data = kept


@fault("degrees on a robot in radians", "fault", "degrees, and arm takes radians", "trained in radians")
def _(b: Bench) -> None:
    b.robot = action(unit="rad", low=(-3.1,) * 6, high=(3.1,) * 6)


@fault("radians on a robot in degrees", "fault", "radians, and arm takes degrees", "trained in degrees")
def _(b: Bench) -> None:
    b.trained({STATE: (-1.6, 2.4), "action": (-1.6, 2.4)})


@fault("±1 on a robot in degrees", "fault", "within ±1: normalised numbers, and arm takes degrees")
def _(b: Bench) -> None:
    b.trained({STATE: (-1.0, 1.0), "action": (-1.0, 1.0)})


@fault("±100 on a robot in degrees", "note", "takes degrees", "--robot.unit=range_m100_100")
def _(b: Bench) -> None:
    b.trained({STATE: (-99.0, 99.0), "action": (-99.0, 99.0)})


@fault("±100 on a robot in radians", "fault", "±100 normalised, and arm takes radians")
def _(b: Bench) -> None:
    b.trained({STATE: (-100.0, 100.0), "action": (-100.0, 100.0)})
    b.robot = action(unit="rad", low=(-3.1,) * 6, high=(3.1,) * 6)


@fault("±1 on a robot in pixels", "fault", "normalised numbers (±1); it would hardly move", "un-normalise")
def _(b: Bench) -> None:
    b.trained({STATE: (0.0, 512.0), "action": (-1.0, 1.0)})
    b.robot = action(unit="px", low=(0.0,) * 6, high=(512.0,) * 6)


@fault("pixels on a robot of ±1", "fault", "another unit; far beyond in joint_0")
def _(b: Bench) -> None:
    b.trained({STATE: (0.0, 512.0), "action": (0.0, 512.0)})
    b.robot = action(unit="1", low=(-1.0,) * 6, high=(1.0,) * 6)


@fault("a range beyond the limits", "note", "will be cut", "the calibration of training")
def _(b: Bench) -> None:
    b.robot = action(high=(60.0,) * 6)


@fault("increments on a robot of positions", "fault", "increments, and arm takes positions")
def _(b: Bench) -> None:
    b.trained({STATE: (-80.0, 140.0), "action": (-12.0, 12.0)})


@fault("positions on a robot of increments", "fault", "positions, and arm takes increments")
def _(b: Bench) -> None:
    b.robot = action(mode=("delta",) * 6)


@fault(
    "a camera of another name",
    "fault",
    "observation.images.front: the policy needs it",
    "--policy.rename='{observation.images.top: observation.images.front}'",
)
def _(b: Bench) -> None:
    b.robot = observing(**{"images.front": None, "images.top": image(*SIZE)})
    b.data = None


@fault("a camera of another size", "fault", "shape: robot 48x64x3, policy 64x64x3", "give the robot the size")
def _(b: Bench) -> None:
    b.robot = observing(**{"images.front": image(48, 64)})


@fault(
    "another aspect ratio, scaled up",
    "note",
    "48x64 → 64x64: the aspect ratio changes from 1.33 to 1.00; scaled up 1.3 times",
    "--robot.image_size=[64,64]",
)
def _(b: Bench) -> None:
    b.robot = observing(**{"images.front": image(48, 64)})


@fault("another width", "fault", "shape: robot 5, policy 6")
def _(b: Bench) -> None:
    b.robot = replace(ROBOT, action=Feature((5,), "float32", "deg"))


@fault(
    "another rate than the data",
    "fault",
    "trained at 30 Hz (the dataset), the robot runs at 50 Hz: 1.7 times",
    "--robot.fps=30",
)
def _(b: Bench) -> None:
    b.robot = replace(ROBOT, fps=50.0)


@fault("another rate than was stated", "fault", "robot 50, policy 25", "--robot.fps=25")
def _(b: Bench) -> None:
    b.robot, b.keys, b.data = replace(ROBOT, fps=50.0), {"fps": 25.0}, None


@fault(
    "more actions than a chunk has",
    "fault",
    "n_action_steps 12, and a chunk has 10 actions",
    "--policy.n_action_steps=10",
)
def _(b: Bench) -> None:
    b.keys = {"n_action_steps": 12}


@fault(
    "ensembling with several steps",
    "fault",
    "temporal ensembling (temporal_ensemble_coeff) with n_action_steps 10",
    "--policy.n_action_steps=1",
)
def _(b: Bench) -> None:
    b.copy()
    b.edit("config.json", lambda f: f.update(temporal_ensemble_coeff=0.01))


@fault("no tokenizer", "fault", "cannot be loaded without a network", "--policy.tokenizer=DIR")
def _(b: Bench) -> None:
    b.copy("smolvla")

    def elsewhere(file: dict[str, Any]) -> None:
        for step in file["steps"]:
            if step.get("registry_name") == "tokenizer_processor":
                step["config"]["tokenizer_name"] = "nobody/has-this-one"

    b.edit("policy_preprocessor.json", elsewhere)


@fault("a task that is too long", "note", "of which 48 are kept", "--robot.task=")
def _(b: Bench) -> None:
    b.copy("smolvla")
    b.task = "pick up the cube and " * 5


@fault("no task", "note", "reads an instruction, and the robot gives none", "--robot.task=")
def _(b: Bench) -> None:
    b.copy("smolvla")
    b.task = ""


@fault("weights cut short", "fault", "is cut short or no safetensors", "--policy.path=")
def _(b: Bench) -> None:
    file = b.copy() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


@fault("an observation in radians", "fault", "(radians, the data is in degrees)", "a robot in degrees")
def _(b: Bench) -> None:
    for one in b.seen:
        one[STATE] = np.radians(one[STATE])


@fault("degrees beside radians", "fault", "(degrees, the data is in radians)", "a robot in radians")
def _(b: Bench) -> None:
    assert b.data is not None
    vectors = {name: np.radians(rows) for name, rows in b.data.vectors.items()}
    b.data = replace(b.data, vectors=vectors)
    b.seen = [{**one, STATE: one[STATE] + 30} for one in b.seen]


@fault("a joint that is elsewhere", "note", "[3] 175", "start_pose")
def _(b: Bench) -> None:
    for one in b.seen:
        one[STATE][3] = 175.0


@fault("a joint of another kind", "fault", "[1] 4096")
def _(b: Bench) -> None:
    for one in b.seen:
        one[STATE][1] = 4096


@fault("upside down", "fault", f"{FRONT} is upside down")
def _(b: Bench) -> None:
    each_picture(b, FRONT, TURNS["upside down"])


@fault("mirrored", "fault", f"{WRIST} is left and right exchanged")
def _(b: Bench) -> None:
    each_picture(b, WRIST, TURNS["left and right exchanged"])


@fault("turned", "fault", f"{WRIST} is turned by 180 degrees", "rotation=180")
def _(b: Bench) -> None:
    each_picture(b, WRIST, TURNS["turned by 180 degrees"])


@fault("BGR", "fault", f"{FRONT} is red and blue exchanged (BGR)")
def _(b: Bench) -> None:
    each_picture(b, FRONT, TURNS["red and blue exchanged (BGR)"])


@fault(
    "cameras exchanged",
    "fault",
    f"{FRONT} looks like the training's {WRIST}",
    "--policy.rename='{observation.images.front: observation.images.wrist",
)
def _(b: Bench) -> None:
    for one in b.seen:
        one[FRONT], one[WRIST] = one[WRIST], one[FRONT]


@fault("dark", "note", f"{FRONT}: darker")
def _(b: Bench) -> None:
    each_picture(b, FRONT, lambda picture: picture // 3)


@fault("out of focus", "note", f"{WRIST}: blurred", "the lens")
def _(b: Bench) -> None:
    each_picture(b, WRIST, lambda picture: cv2.GaussianBlur(picture, (9, 9), 4))


@fault("another scene", "note", f"{FRONT} does not look like any picture of training")
def _(b: Bench) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    each_picture(b, FRONT, lambda picture: cv2.resize(noise, SIZE))


@pytest.mark.parametrize("name", FAULTS)
def test_a_known_fault_is_named_with_its_fix(name: str, bench: Bench) -> None:
    put, level, words, fix = FAULTS[name]
    put(bench)
    findings = bench.findings()
    told = "\n".join(f"{f.level:5} {f.about:14} {f.found} → {f.fix}" for f in findings)
    hits = [f for f in findings if words in f.found]
    assert hits, told
    assert hits[0].level == level and fix in hits[0].fix and hits[0].expected, told


@pytest.mark.parametrize("kind", ["act", "smolvla"])
def test_a_healthy_pair_has_no_fault_and_no_note(kind: str, bench: Bench) -> None:
    bench.copy(kind)
    if kind == "smolvla":
        bench.data = None
    found = [finding for finding in bench.findings() if finding.level != "ok"]
    assert not found, found
    assert {f.about for f in bench.findings()} >= {
        "checkpoint",
        "statistics",
        "un-normaliser",
        "resolution",
        "action",
        "chunk",
    }


def test_a_checkpoint_alone_is_judged(bench: Bench) -> None:
    bench.robot = bench.data = None
    assert {f.level for f in bench.findings()} == {"ok"}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("camera", [FRONT, WRIST])
def test_every_turn_is_the_best_of_all_for_what_was_turned_so(turn: str, camera: str) -> None:
    theirs = [scene(camera, i) for i in range(6)]
    scores = turns([TURNS[turn](scene(camera, 50))], theirs)
    assert max(scores, key=lambda each: scores[each]) == turn


def test_a_simulator_is_observed_and_an_error_is_a_finding() -> None:
    facts = robot_facts(RobotConfig.choice("synthetic")(width=6, cameras=1), observed=True)
    assert len(facts.seen) == 3 and not facts.error and facts.seen[0][STATE].shape == (6,)
    broken = robot_facts(RobotConfig.choice("gym")(env_id="nobody/Has-v0"), observed=True)
    assert broken.spec is None and "nobody" in broken.error and isinstance(broken, RobotFacts)


# as a command


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tactus", "doctor", *arguments]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**__import__("os").environ, "COLUMNS": "200"}
    )


@pytest.mark.long
def test_the_command_says_it_and_its_status_is_that_of_a_fault(bench: Bench, data: Path, tmp_path: Path) -> None:
    well = doctor(f"--policy.path={bench.path}", f"--dataset_root={data}", f"--json={tmp_path / 'found.json'}")
    assert well.returncode == 0, well.stdout + well.stderr
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["faults"] == 0 and {f["part"] for f in report["findings"]} == {"policy", "dataset"}
    ill = doctor(f"--policy.path={bench.path}", "--robot.type=synthetic", "--robot.width=5", "--robot.cameras=2")
    assert ill.returncode == 1 and "--policy.rename=" in ill.stdout and "Traceback" not in ill.stderr
    absent = doctor("--policy.path=/nowhere/at/all")
    assert absent.returncode == 1 and "no directory '/nowhere/at/all'" in absent.stdout.replace("\n", " ")
    assert doctor("--dataset_root=x").returncode == 2
    none = doctor(f"--policy.path={bench.path}", f"--dataset_root={tmp_path}")
    assert (
        none.returncode == 1
        and "is no LeRobotDataset" in " ".join(none.stdout.split())
        and "Traceback" not in none.stderr
    )
