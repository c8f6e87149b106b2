"""What decides a LIBERO episode is the installed package's, or what robot.task_files names; and results know it by
content. The config file that LIBERO itself would read, whatever it is, changes nothing but a line that says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeLibero

from tactus.hal.libero import LiberoConfig
from tactus.hal.libero.assets import Assets
from tactus.hal.spec import PolicySpec, RobotSpec, SpecError
from tactus.runtime.commands.arguments import parse
from tactus.runtime.commands.episodes import fingerprint
from tactus.runtime.evaluation.results import Results, ResultsError

pytestmark = pytest.mark.slow

SUITE, TASK = "libero_object", "pick_up_the_alphabet_soup_and_place_it_in_the_basket"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another LIBERO: the same names, but the first task moves something else, and its states are turned round."""
    import libero

    theirs = tmp_path_factory.mktemp("other")
    ours = Path(libero.__path__[0]) / "libero"
    for kind in ("bddl_files", "init_files"):
        shutil.copytree(ours / kind / SUITE, theirs / kind / SUITE)
    bddl = theirs / "bddl_files" / SUITE / f"{TASK}.bddl"
    head, moved, goal = bddl.read_text().partition("(:obj_of_interest")
    start, word, end = goal.partition("(:init")
    end = end.replace("In alphabet_soup_1", "In cream_cheese_1")
    bddl.write_text(head + moved + start.replace("alphabet_soup_1", "cream_cheese_1") + word + end)
    states = theirs / "init_files" / SUITE / f"{TASK}.pruned_init"
    torch.save(np.asarray(torch.load(states, weights_only=False))[::-1].copy(), states)
    return theirs


def text(content: str) -> Callable[[Path, Path], Any]:
    """Writes it, with the folders of the other LIBERO and of the installed one in their places."""
    import libero

    ours = f"{libero.__path__[0]}/libero"
    return lambda file, other: file.write_text(content.replace("OTHER", str(other)).replace("PACKAGED", ours))


def unreadable(file: Path, other: Path) -> None:
    file.write_text("bddl_files: /x\ninit_states: /y\n")
    file.chmod(0)


CONFIG_FILES: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "absent": (lambda file, other: None, ""),
    "empty": (text(""), "is empty"),
    "comment": (text("# nothing\n"), "is empty"),
    "list": (text("- bddl_files\n- init_states\n"), "holds a list, not keys"),
    "string": (text("somewhere"), "holds a str, not keys"),
    "number": (text("3"), "holds a int, not keys"),
    "broken": (text("bddl_files: [\n"), "is not YAML"),
    "tabs": (text("bddl_files:\t/x\n\tinit_states: /y\n"), "is not YAML"),
    "python": (text("!!python/object/apply:os.system ['false']"), "is not YAML"),
    "impossible date": (text("2026-02-31"), "is not YAML"),
    "deep": (text("[" * 1500), "is not YAML"),
    "binary": (lambda file, other: file.write_bytes(b"\x80\x02\xff\x00"), "is not YAML"),
    "partial": (text("bddl_files: OTHER/bddl_files\n"), "names no folder under init_states"),
    "other keys": (text("datasets: OTHER\n"), "names no folder under bddl_files and init_states"),
    "no texts": (text("bddl_files: 3\ninit_states: [a]\n"), "names no folder under bddl_files and init_states"),
    "no paths": (text('bddl_files: "a\\0b"\ninit_states: ""\n'), "names task files that are not all there"),
    "gone": (text("bddl_files: /gone/bddl\ninit_states: /gone/init\n"), "names task files that are not all there"),
    "other": (text("bddl_files: OTHER/bddl_files\ninit_states: OTHER/init_files\n"), "names other task files"),
    "other states": (
        text("bddl_files: PACKAGED/bddl_files\ninit_states: OTHER/init_files\n"),
        "names other task files",
    ),
    "packaged": (text("bddl_files: PACKAGED/./bddl_files\ninit_states: PACKAGED/./init_files\n"), ""),
    "folder": (lambda file, other: file.mkdir(), "is no file"),
    "circle": (lambda file, other: file.symlink_to(file), "is no file"),
    "unreadable": (unreadable, "cannot be read"),
}


def write(kind: str, folder: Path, other: Path) -> None:
    """Puts a config file of this kind into `folder`."""
    folder.mkdir(parents=True)
    CONFIG_FILES[kind][0](folder / "config.yaml", other)


CHEAP = {"tasks": [0], "cameras": [], "settle_steps": 0}


def episode(robot: Any) -> str:
    """Where an episode of a few steps ends, to the bit."""
    robot.reset(0, 7)
    for _ in range(3):
        robot.act(np.array([0.5, -0.5, 0.2, 0.0, 0.1, 0.0, 1.0], np.float32))
    return robot.sim_state.tobytes().hex()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RobotSpec]:
    """An episode where no config file is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIBERO_CONFIG_PATH", str(tmp_path_factory.mktemp("nothing")))
        robot = LiberoConfig(assets="primitive", **CHEAP).make()
        try:
            return episode(robot), robot.spec
        finally:
            robot.close()


HARNESS = """
import json, os, sys, traceback
import bddl, gymnasium, matplotlib.pyplot, robosuite, torch  # what takes long, and nothing of LIBERO, before the fork
import tactus.hal.libero.robot
from test_libero_provenance import CHEAP, PLAYED, episode, facts
from tactus.hal.libero import LiberoConfig

for line in sys.stdin.read().splitlines():
    name, variables = json.loads(line)
    sys.stdout.flush()
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a question would be an EOFError
        for key in ("HOME", "LIBERO_CONFIG_PATH"):
            os.environ.pop(key, None)
        os.environ |= variables
        try:
            robot = LiberoConfig(assets="primitive", **CHEAP).make()
            said = robot.spec.details.get("task_files.source")
            found = {"said": said, "facts": facts(robot.spec), "file": robot.suite.bddl_file(0)}
            found["episode"] = episode(robot) if name.partition(" in ")[0] in PLAYED else None
        except BaseException as error:
            found = {"error": traceback.format_exception_only(error)[-1]}
        print("\\n" + json.dumps([name, found]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def outcomes(other: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of an episode with each kind of config file, in a process each: LIBERO's import reads it only once."""
    lines = []
    for kind, where in CASES:
        home = tmp_path_factory.mktemp("home")
        folder = home / (".libero" if where == "HOME" else "elsewhere")
        write(kind, folder, other)
        lines.append([f"{kind} in {where}", {"HOME": str(home)} | ({} if where == "HOME" else {where: str(folder)})])
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    environment = {
        "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", **os.environ, "XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }  # fmt: skip
    orders = "\n".join(map(json.dumps, lines))
    command = [sys.executable, "-c", HARNESS]
    done = subprocess.run(command, env=environment, input=orders, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


PLAYED = ("absent", "partial", "gone", "other", "other states")
"""The others are compared by the content of what they would play: an episode takes a second."""
VARIABLE = ("absent", "empty", "broken", "other", "packaged", "folder")
CASES = [*((kind, "HOME") for kind in CONFIG_FILES), *((kind, "LIBERO_CONFIG_PATH") for kind in VARIABLE)]


@pytest.mark.parametrize(("kind", "where"), CASES)
def test_no_config_file_changes_an_episode(outcomes: Any, clean: Any, kind: str, where: str) -> None:
    import libero

    if kind == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    found = outcomes[f"{kind} in {where}"]
    known, spec = clean
    assert "error" not in found, found
    assert found["episode"] == (known if kind in PLAYED else None)
    assert found["facts"] == facts(spec) and found["file"].startswith(libero.__path__[0])
    words = CONFIG_FILES[kind][1]
    said = found["said"]
    assert (words in said and "--robot.task_files=FOLDER" in said) if words else said == "packaged"


def facts(spec: RobotSpec) -> dict[str, str]:
    return {key: value for key, value in spec.details.items() if not key.endswith(".source")}


HOMES = {"unset": None, "a file": "/dev/null", "gone": "/gone/home", "empty": ""}


@pytest.mark.parametrize("home", [*HOMES, "other"])
def test_importing_libero_asks_nothing_and_writes_nothing(other: Path, tmp_path: Path, home: str) -> None:
    """In a process of its own, whose standard input is at its end: a question would be an EOFError."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "LIBERO_CONFIG_PATH")}
    place = HOMES.get(home, str(tmp_path / "home"))
    if place is not None:
        environment["HOME"] = place
    if home == "other":
        write("other", tmp_path / "home" / ".libero", other)
    before = sorted(tmp_path.rglob("*"))
    code = """if True:
        import os
        from tactus.hal.libero.package import load
        load()
        import libero.libero as library, libero.libero.utils as helpers
        print(library.get_libero_path("bddl_files"))
        print(helpers.get_libero_path("init_states"))
        print(os.environ.get("LIBERO_CONFIG_PATH"))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    import libero

    assert done.stdout.splitlines() == [f"{libero.__path__[0]}/libero/{n}" for n in ("bddl_files", "init_files")] + [
        "None"
    ]
    assert sorted(tmp_path.rglob("*")) == before and not Path("/gone").exists()


@pytest.mark.long
def test_a_home_that_cannot_be_written_has_the_same_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    from tactus.hal.libero.assets import resolve

    usual = resolve("primitive", SUITE)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    elsewhere = resolve("primitive", SUITE)
    assert elsewhere.path != usual.path and elsewhere.content == usual.content


def test_other_task_files_by_their_key(libero: MakeLibero, clean: Any, other: Path) -> None:
    robot = libero(task_files=str(other), **CHEAP)
    known, spec = clean
    assert robot.suite.interest(0) != [] and robot.suite.bddl_file(0).startswith(str(other))
    assert episode(robot) != known
    assert robot.spec.details["task_files.source"] == str(other)
    assert {key for key, value in facts(robot.spec).items() if value != spec.details[key]} == {"task_files"}


def changed_bddl(folder: Path) -> None:
    file = folder / "bddl_files" / SUITE / f"{TASK}.bddl"
    file.write_text(file.read_text() + "\n")


def changed_states(folder: Path) -> None:
    file = folder / "init_files" / SUITE / f"{TASK}.pruned_init"
    torch.save(np.asarray(torch.load(file, weights_only=False)) + 1e-12, file)


def asked(libero: MakeLibero, folder: Path) -> dict[str, Any]:
    """The fingerprint of an evaluation of these task files."""
    keys = ["--robot.type=libero", f"--robot.task_files={folder}", "--robot.assets=primitive", "--robot.tasks=[0]"]
    config: Any = parse("eval", [*keys, "--robot.cameras=[]", "--connect=tcp://127.0.0.1:5555"])
    robot = libero(task_files=str(folder), **CHEAP)
    return fingerprint(config, robot.spec, PolicySpec("none", {}, robot.spec.action, 8))


@pytest.mark.parametrize("change", [changed_bddl, changed_states])
def test_results_are_not_continued_with_other_task_files(
    libero: MakeLibero, other: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    files, folder = tmp_path / "files", tmp_path / "results"
    shutil.copytree(other, files)
    Results(folder, asked(libero, files), resume=False)
    Results(folder, asked(libero, files), resume=True)
    change(files)
    with pytest.raises(
        ResultsError, match=r"another experiment; these differ:\n  robot.details.task_files: sha256 \w+ there"
    ):
        Results(folder, asked(libero, files), resume=True)


def test_an_asset_is_known_by_its_bytes(tmp_path: Path) -> None:
    def content() -> str:
        return Assets("directory", tmp_path / "pack", "").content

    for name in ("scenes/a.xml", "textures/b.png", ".cache/c", "__pycache__/d.pyc"):
        (tmp_path / "pack" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pack" / name).write_text(name)
    (tmp_path / "pack" / "scenes" / "again").symlink_to(tmp_path / "pack")  # a circle
    first = content()
    (tmp_path / "pack" / ".cache" / "c").write_text("when it was downloaded")
    os.utime(tmp_path / "pack" / "scenes" / "a.xml", (0, 0))
    assert content() == first
    (tmp_path / "pack" / "scenes" / "a.xml").write_text("scenes/A.xml")  # as long as before
    second = content()
    (tmp_path / "pack" / "textures" / "b.png").rename(tmp_path / "pack" / "textures" / "c.png")
    assert len({first, second, content()}) == 3


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def no_states(folder: Path) -> None:
    shutil.rmtree(folder / "init_files")


def one_missing(folder: Path) -> None:
    (folder / "bddl_files" / SUITE / f"{TASK}.bddl").unlink()


def no_suite(folder: Path) -> None:
    shutil.rmtree(folder / "bddl_files" / SUITE)


def no_bddl(folder: Path) -> None:
    (folder / "bddl_files" / SUITE / f"{TASK}.bddl").write_text("version https://git-lfs.github.com/spec/v1\n")


def cut_states(folder: Path) -> None:
    file = folder / "init_files" / SUITE / f"{TASK}.pruned_init"
    file.write_bytes(file.read_bytes()[:1000])


def pickled(folder: Path) -> None:
    torch.save({"states": 3}, folder / "init_files" / SUITE / f"{TASK}.pruned_init")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_folder, "has no bddl_files and no init_files; accepted: packaged, or a folder that has"),
        (no_states, "has no init_files; accepted"),
        (one_missing, f"lacks .*{TASK}.bddl$"),
        (no_suite, r"lacks .*\.bddl nor 9 more of libero_object's"),
        (no_bddl, "is not a BDDL problem that LIBERO reads"),
        (cut_states, "does not hold initial states"),
        (pickled, "expected initial states"),
    ],
)
def test_task_files_that_are_none(
    libero: MakeLibero, other: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    shutil.copytree(other, tmp_path / "files")
    damage(tmp_path / "files")
    with pytest.raises(SpecError, match=words):
        libero(task_files=str(tmp_path / "files"), **CHEAP)


@pytest.mark.parametrize("log", ["a folder", "another user's"])
def test_a_log_that_is_not_ours_to_write_stops_nobody(log: str, tmp_path: Path) -> None:
    """robosuite opens /tmp/robosuite.log when it is imported; here in a /tmp of the process's own."""
    if Path(sys.prefix).resolve().is_relative_to("/tmp") or Path(sys.executable).is_relative_to("/tmp"):
        pytest.skip("this environment is itself in /tmp")
    made = "mkdir /tmp/robosuite.log" if log == "a folder" else "ln -s /proc/version /tmp/robosuite.log"
    code = (
        "from tactus.hal.libero.package import task_files; from tactus.hal.libero.suite import LiberoSuite; "
        'print(LiberoSuite("libero_object", task_files()).interest(0))'
    )
    script = f"mount -t tmpfs none /tmp && {made} && exec '{sys.executable}' -c '{code}'"
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")
    assert done.returncode == 0 and "_1" in done.stdout, done.stderr
