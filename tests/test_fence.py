"""Code that is not ours may raise anything, anywhere: the user reads a sentence, and nothing that was there is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import synthetic
from hypothesis import given
from hypothesis import strategies as st
from processes import end, endpoint_of
from strangers import FEATURES, IMAGE, RAISES, SPACES, STATE, Stranger, StrangerConfig

from tactus.hal import error_report, rendering
from tactus.hal.error_report import describe
from tactus.hal.fence import Fence
from tactus.hal.gym import GymConfig
from tactus.hal.interrupts import interrupt, interrupted_by
from tactus.hal.rig import RigConfig
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import DTYPES, LazyArrays, Observation, SpecError
from tactus.hal.wrappers.checked import CheckedRobot, make
from tactus.runtime.commands import main
from tactus.runtime.commands.arguments import UsageError

TESTS = Path(__file__).parent
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
CALLS: dict[str, Callable[[Robot], Any]] = {
    "connect": lambda robot: robot.connect(),
    "reset": lambda robot: robot.reset(1, 0),
    "observe": lambda robot: robot.observe(),
    "act": lambda robot: robot.act(np.zeros(3, np.float32)),
    "events": lambda robot: robot.events(),
    "counters": lambda robot: robot.counters(),
    "outcome": lambda robot: robot.outcome(),
    "rest": lambda robot: robot.rest(),
    "close": lambda robot: robot.close(),
}


@pytest.fixture(autouse=True)
def no_files_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process writes only so many."""
    monkeypatch.setattr(error_report, "_files", {})


def traceback_of(words: str) -> str:
    """The text of the file that a sentence names."""
    [file] = re.findall(r"traceback: (\S+\.traceback\.txt)", words)
    return Path(file).read_text()


@pytest.mark.parametrize("raises", RAISES)
@pytest.mark.parametrize("call", CALLS)
def test_what_a_robot_raises_says_which_part_was_doing_what(call: str, raises: str) -> None:
    robot = make(StrangerConfig(call, raises), "left")
    if call != "reset":
        robot.reset(1, 0)
    with pytest.raises(RobotError) as caught:
        CALLS[call](robot)
    words = str(caught.value)
    assert words.startswith(f"left (strangers:StrangerConfig): {call} raised {raises}") and "\n" not in words
    assert "strangers.py" in traceback_of(words) and raises in traceback_of(words)


@pytest.mark.parametrize("raises", RAISES)
def test_what_making_a_robot_raises_is_a_sentence_and_a_rig_names_the_part(raises: str) -> None:
    parts = {"left": StrangerConfig(), "right": StrangerConfig("making it", raises)}
    with pytest.raises(RobotError, match=rf"right \(strangers:StrangerConfig\): making it raised {raises}"):
        make(RigConfig(parts=parts))


def test_sentences_and_interrupts_pass_and_an_interrupt_in_disguise_is_one() -> None:
    several = ExceptionGroup("some", [RobotError("a"), SpecError("b")])
    for error in (RobotError("no such port"), SpecError("x"), several):
        with pytest.raises(type(error)) as caught, Fence("part", "act"):
            raise error
        assert caught.value is error
    with pytest.raises(RobotError, match=r"part: act raised ExceptionGroup"), Fence("part", "act"):
        raise ExceptionGroup("some", [RobotError("a"), KeyError("b")])
    with pytest.raises(KeyboardInterrupt), Fence("part", "act"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), Fence("part", "act"):
        raise ImportError("initialization failed") from KeyboardInterrupt()


def test_an_error_that_repeats_has_one_file_and_a_flood_of_others_fills_no_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(error_report.tempfile, "tempdir", str(tmp_path))

    def told(raises: str) -> str:
        try:
            RAISES[raises]()
        except Exception as error:
            return describe(error)
        raise AssertionError

    assert told("KeyError") == told("KeyError")
    assert told("KeyError") != told("ValueError") and len(list(tmp_path.iterdir())) == 2
    for n in range(error_report.MOST_FILES + 10):
        last = describe(type(f"E{n}", (Exception,), {})())
    assert "not kept" in last and len(list(tmp_path.iterdir())) == error_report.MOST_FILES
    monkeypatch.setattr(error_report, "_files", {})
    monkeypatch.setattr(error_report.tempfile, "tempdir", str(tmp_path / "gone"))
    assert "could not be written (No such file or directory)" in told("KeyError")


# What a robot observes is what its spec says.


class Observing(Stranger):
    """Gives these arrays."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__(StrangerConfig())
        self.arrays = arrays

    def observe(self) -> Observation:
        return Observation(self.arrays, {})


GOOD = {STATE: np.zeros(3, np.float32), IMAGE: np.zeros((4, 6, 3), np.uint8)}
WRONG: dict[str, tuple[str, Any]] = {
    "a picture of another size": (IMAGE, np.zeros((8, 12, 3), np.uint8)),
    "a picture on its side": (IMAGE, np.zeros((6, 4, 3), np.uint8)),
    "a picture with channels first": (IMAGE, np.zeros((3, 4, 6), np.uint8)),
    "a grey picture": (IMAGE, np.zeros((4, 6), np.uint8)),
    "a picture with alpha": (IMAGE, np.zeros((4, 6, 4), np.uint8)),
    "a floating picture": (IMAGE, np.zeros((4, 6, 3), np.float32)),
    "a longer state": (STATE, np.zeros(4, np.float32)),
    "a column": (STATE, np.zeros((3, 1), np.float32)),
    "another dtype": (STATE, np.zeros(3, np.float64)),
    "another byte order": (STATE, np.zeros(3, ">f4")),
    "objects": (STATE, np.array([1, None, 2], object)),
    "a list": (STATE, [0.0, 0.0, 0.0]),
    "None": (STATE, None),
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_an_array_that_is_not_as_the_spec_says_goes_no_further(case: str, lazy: bool) -> None:
    name, array = WRONG[case]
    given_arrays = {**GOOD, name: array}
    arrays = LazyArrays({k: lambda v=v: v for k, v in given_arrays.items()}) if lazy else given_arrays
    seen = CheckedRobot(Observing(arrays), "robot (mine)").observe()
    other = IMAGE if name == STATE else STATE
    assert seen.arrays[other] is GOOD[other]
    with pytest.raises(RobotError, match=r"robot \(mine\): observe gave observation.* as .*; its spec says "):
        seen.arrays[name]


def test_an_array_that_is_missing_is_told_and_one_too_many_is_not_there() -> None:
    seen = CheckedRobot(Observing({STATE: GOOD[STATE], "observation.depth": np.zeros(3)}), "robot").observe()
    assert list(seen.arrays) == [STATE, IMAGE] and "observation.depth" not in seen.arrays
    with pytest.raises(RobotError, match=rf"observe gave {IMAGE} as nothing; its spec says uint8\[4, 6, 3\]"):
        seen.arrays[IMAGE]


def test_a_picture_that_cannot_be_rendered_when_it_is_read_is_told() -> None:
    seen = CheckedRobot(Observing(LazyArrays({**GOOD, IMAGE: RAISES["ZeroDivisionError"]})), "robot").observe()
    with pytest.raises(RobotError, match="robot: observe raised ZeroDivisionError"):
        seen.arrays[IMAGE]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_told_once_until_it_is_gone(value: float) -> None:
    inner = Observing(dict(GOOD))
    robot = CheckedRobot(inner, "robot")

    def look(y: float) -> list[str]:
        inner.arrays = {**GOOD, STATE: np.array([0, y, 0], np.float32)}
        assert robot.observe().arrays[STATE] is inner.arrays[STATE], "it is passed on as it was observed"
        return robot.events()

    told = [look(y) for y in (0.0, value, value, 0.0, value)]
    assert [len(lines) for lines in told] == [0, 1, 0, 0, 1]
    assert told[1][0].startswith(f"observed {STATE} y is {value}")


@given(
    shape=st.lists(st.integers(0, 5), max_size=4).map(tuple),
    dtype=st.sampled_from(sorted(DTYPES)),
    name=st.sampled_from([STATE, IMAGE]),
)
def test_no_array_but_the_specs_own_comes_through(shape: tuple[int, ...], dtype: str, name: str) -> None:
    feature, array = FEATURES[name], np.zeros(shape, dtype)
    seen = CheckedRobot(Observing({**GOOD, name: array}), "robot").observe()
    if (feature.shape, feature.dtype) == (shape, dtype):
        assert seen.arrays[name] is array
    else:
        with pytest.raises(RobotError):
            seen.arrays[name]


@pytest.mark.parametrize("sent", [None, 0.0, [0, 0, 0], np.zeros(2, np.float32)])
def test_what_was_really_sent_is_an_action(sent: object) -> None:
    class Sending(Stranger):
        def act(self, action: np.ndarray) -> Any:
            return sent

    with pytest.raises(RobotError, match="act returned .*; what was really sent is float32"):
        CheckedRobot(Sending(StrangerConfig()), "robot").act(np.zeros(3, np.float32))


def test_a_checked_robot_is_the_robot() -> None:
    plain, checked = synthetic(cameras=1, image_size=(4, 4)).make(), make(synthetic(cameras=1, image_size=(4, 4)))
    for robot in (plain, checked):
        robot.connect()
        robot.reset(3, 7)
    for _ in range(5):
        a, b = plain.observe().arrays, checked.observe().arrays
        assert list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)
        np.testing.assert_array_equal(plain.act(a[STATE]), checked.act(a[STATE]))
        assert plain.outcome() == checked.outcome()


# Simulators.


@pytest.mark.parametrize("space", [space for space in SPACES if space != "box"])
def test_a_space_that_is_not_read_is_refused_with_those_that_are(space: str) -> None:
    with pytest.raises(SpecError, match=r"robot.env_id: observation\.\S+ is .*; accepted: (Box|uint8\[height)"):
        make(GymConfig(env_id="strangers:Stranger-v0", kwargs={"space": space}))


@pytest.mark.parametrize(
    "kwargs, words",
    [
        ({"at": "making it"}, "making it raised ZeroDivisionError"),
        ({"at": "reset"}, "reset raised KeyError: 'left'"),
        ({"at": "act"}, "act raised ValueError: operands could not be broadcast"),
        ({"at": "act, and answers with two"}, "act raised "),
        ({"at": "act, without info"}, "act raised "),
        ({"at": "another width"}, "observation.state: found float32[4], expected float32[3]"),
        ({"nonsense": 3}, "robot.kwargs: strangers:Stranger-v0 does not take what is given (nonsense): TypeError"),
    ],
)
def test_an_environment_that_breaks_is_told(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises((RobotError, SpecError), match=re.escape(words)):
        robot = make(GymConfig(env_id="strangers:Stranger-v0", kwargs=kwargs))
        robot.reset(0, 0)
        for _ in range(8):
            robot.act(np.zeros(3, np.float32))
            _ = robot.observe().arrays[STATE]


@pytest.mark.parametrize(
    "environment, words",
    [
        ({}, ""),
        ({"MUJOCO_GL": ""}, ""),
        ({"MUJOCO_GL": " EGL "}, ""),
        ({"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}, ""),
        ({"MUJOCO_GL": "glfw", "DISPLAY": ":0"}, ""),
        ({"MUJOCO_EGL_DEVICE_ID": "0"}, ""),
        ({"MUJOCO_GL": "nonsense"}, "MUJOCO_GL: found 'nonsense'; accepted: egl"),
        ({"MUJOCO_GL": "glx"}, "MUJOCO_GL: found glx, which needs a screen"),
        ({"MUJOCO_GL": "glfw"}, "MUJOCO_GL: found glfw, which needs a screen"),
        ({"PYOPENGL_PLATFORM": "x"}, "PYOPENGL_PLATFORM: found 'x'; accepted with MUJOCO_GL=egl: egl, or unset"),
        ({"MUJOCO_EGL_DEVICE_ID": "gpu"}, "MUJOCO_EGL_DEVICE_ID: found 'gpu'; accepted: 0, 1"),
        ({"MUJOCO_EGL_DEVICE_ID": "-1"}, "MUJOCO_EGL_DEVICE_ID: found '-1'"),
    ],
)
def test_a_way_of_rendering_that_is_none_is_told_before_anything_is_imported(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "DISPLAY"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    if words:
        with pytest.raises(SpecError, match=re.escape(words)):
            rendering.prepare()
    else:
        rendering.prepare()
        assert os.environ["MUJOCO_GL"] == (environment.get("MUJOCO_GL", "").strip().lower() or "egl")


# The same through commands.


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tactus", *arguments]
    return subprocess.run(words, cwd=TESTS, capture_output=True, text=True, timeout=120, env={**ENV, **environment})


@contextmanager
def serving(log: Path, *keys: str) -> Iterator[str]:
    """A stranger's policy, and its endpoint."""
    words = [sys.executable, "-m", "tactus", "serve", "--policy.type=strangers:StrangerPolicyConfig", *keys]
    with log.open("wb") as out:
        process = subprocess.Popen([*words, "--connect=tcp://127.0.0.1:*"], stdout=out, stderr=out, cwd=TESTS, env=ENV)
    try:
        yield endpoint_of(log)
    finally:
        end(process)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("node") / "log") as endpoint:
        yield endpoint


def kept(folder: Path) -> list[int]:
    file = folder / "episodes.jsonl"
    return [json.loads(line)["episode"] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, call",
    [("eval", call) for call in ("making it", "connect", "reset", "observe", "act", "outcome", "close")]
    + [(command, call) for command in ("run", "workers", "teleop") for call in ("making it", "act", "close")],
)
def test_a_command_whose_robot_fails_ends_in_a_sentence_and_keeps_what_it_has(
    command: str, call: str, endpoint: str, tmp_path: Path
) -> None:
    keys = ["--robot.type=strangers:StrangerConfig", f"--robot.at={call}", f"--output_dir={tmp_path}"]
    driven = ["--teleop.type=strangers:StrangerTeleopConfig"] if command == "teleop" else [f"--connect={endpoint}"]
    words = ["eval", "--workers=1"] if command == "workers" else [command]
    done = run(*words, *keys, *driven, "--episodes=2")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"robot (strangers:StrangerConfig): {call} raised ZeroDivisionError: division by zero" in done.stderr
    assert "strangers.py" in traceback_of(done.stderr)
    early = call in ("making it", "connect")
    assert kept(tmp_path) == ([] if early else [0, 1] if call == "close" else [0])


MODULES = {
    "def f(:": "importing broken:Mine raised SyntaxError: invalid syntax",
    "1 / 0": "importing broken:Mine raised ZeroDivisionError",
    "raise SystemExit(0)": "importing broken:Mine raised SystemExit",
    "import nothing_of_the_kind": "broken:Mine cannot be imported: No module named 'nothing_of_the_kind'",
    "class Mine: pass": "broken:Mine is not a dataclass that inherits RobotConfig",
    "from tactus import RobotConfig\nclass Mine(RobotConfig): pass": "making it raised AttributeError",
    "from tactus import RobotConfig\nclass Mine(RobotConfig): entry_point = 'math:pi'": "making it raised TypeError",
    "from tactus import RobotConfig\nclass Mine(RobotConfig):\n  def __post_init__(self): 1 / 0": "ZeroDivisionError",
    "import numpy\nfrom tactus import RobotConfig\nclass Mine(RobotConfig):\n  x: numpy.ndarray": "Unable to generate",
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_ones_own_that_is_none_is_told(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert main(["eval", "--robot.type=broken:Mine", f"--output_dir={tmp_path}/out"]) in (1, 2)
    complaint = capsys.readouterr().err
    assert MODULES[module] in complaint and "Traceback" not in complaint


@pytest.mark.slow
@pytest.mark.parametrize("call", ["making it", "connect", "reset", "decide", "close"])
def test_a_hand_that_fails_is_told(call: str, tmp_path: Path) -> None:
    keys = ["--teleop.type=strangers:StrangerTeleopConfig", f"--teleop.at={call}", "--robot.type=synthetic"]
    done = run("teleop", *keys, "--robot.width=3", "--max_ticks=3", f"--output_dir={tmp_path}")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"teleop: {call} raised ZeroDivisionError: division by zero" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("call", ["making it", "spec"])
def test_a_policy_that_cannot_be_made_is_told(call: str) -> None:
    done = run("serve", "--policy.type=strangers:StrangerPolicyConfig", f"--policy.at={call}")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "policy (strangers:StrangerPolicyConfig): making it raised ZeroDivisionError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("call", ["reset", "infer", "end"])
def test_a_policy_that_fails_is_told_on_both_sides(call: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log, f"--policy.at={call}") as endpoint:
        robot = ["--robot.type=strangers:StrangerConfig", f"--output_dir={tmp_path}/out"]
        done = run("eval", *robot, f"--connect={endpoint}", "--episodes=1", "--start_timeout_s=1")
    assert "Traceback" not in done.stderr + log.read_text()
    assert re.search(r"policy node: .*: ZeroDivisionError: division by zero; traceback: ", log.read_text())
    assert done.returncode == (0 if call == "end" else 1)
    assert call == "end" or "ZeroDivisionError" in done.stderr


@pytest.mark.slow
def test_what_nobody_foresaw_says_where_it_was(tmp_path: Path) -> None:
    """A library of ours that is broken stands for all that no sentence was written for."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ZeroDivisionError('a broken installation')")
    done = run("eval", "--robot.type=synthetic", PYTHONPATH=os.pathsep.join([str(tmp_path), str(TESTS.parent)]))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"tactus eval: runtime/commands/\S+, .*ZeroDivisionError: a broken installation", done.stderr)


# Ctrl-C, whatever is going on.


@pytest.mark.parametrize("call", ["making it", "connect", "reset"])
def test_an_interrupt_that_foreign_code_swallows_is_one_all_the_same(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an import does that tries something else after a bare `except:`."""

    def swallow() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setitem(RAISES, "swallowed", swallow)
    before = signal.getsignal(signal.SIGINT)
    interrupted_by(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            CALLS.get(call, lambda robot: None)(make(StrangerConfig(call, "swallowed")))
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_a_library_makes_an_error_of_is_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(command: str, arguments: Sequence[str]) -> None:
        try:
            interrupt(signal.SIGINT, None)
        except KeyboardInterrupt:
            raise UsageError("robot: found nothing that can be read") from None

    monkeypatch.setattr("tactus.runtime.commands.arguments.read", read)
    assert main(["schema", "config"]) == 130
    assert capsys.readouterr().err == "tactus schema: interrupted\n"


BEFORE_MAIN = 'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nKeyboardInterrupt\n'
INTERRUPTED = {
    "eval": ["eval", "--robot.type=pusht", "--connect=ipc:///tmp/no-policy-node"],
    "workers": ["eval", "--robot.type=synthetic", "--connect=ipc:///tmp/no-policy-node", "--workers=2"],
    "serve": ["serve", "--policy.type=learned", "--connect=tcp://127.0.0.1:*"],
    "schema": ["schema", "config"],
}


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("command", INTERRUPTED)
def test_ctrl_c_is_at_most_a_line(command: str, after_s: float, tmp_path: Path) -> None:
    code = "from tactus.runtime.commands import main; import sys; print(flush=True); sys.exit(main())"
    keys = [*INTERRUPTED[command], *([] if command in ("serve", "schema") else [f"--output_dir={tmp_path}"])]
    words = [sys.executable, "-c", code, *keys]
    process = subprocess.Popen(words, cwd=TESTS.parent, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None and process.stdout.readline() == "\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    if complaint == BEFORE_MAIN:  # this program's own line above, which a busy machine was still at
        return
    assert "Traceback" not in complaint and "Exception ignored" not in complaint, complaint
    assert complaint.count("tactus ") <= 1, complaint
    ends = (130, 0, -signal.SIGINT)  # serve ends by it, schema may have ended before
    assert process.returncode in ends, complaint
