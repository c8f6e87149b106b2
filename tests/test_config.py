"""Command lines and config files: every key of every class, what each command uses, and what is said of the rest."""

from __future__ import annotations

import ast
import inspect
import json
import math
import shutil
import socket
import subprocess
import sys
import textwrap
import types
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args, get_origin

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tactus.hal.arm.joints import Joint
from tactus.hal.config import FilePath, Registry, decode, encode
from tactus.hal.lerobot.config import JointLimits
from tactus.hal.robot import RobotConfig
from tactus.hal.teleop.teleoperator import TeleoperatorConfig
from tactus.hal.twin.config import ArmConfig
from tactus.hal.wrappers.disturbance import Disturbance
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.policy import PolicyConfig
from tactus.runtime.commands import main
from tactus.runtime.commands.arguments import Loader, UsageError, read
from tactus.runtime.commands.completion import candidates
from tactus.runtime.commands.config import COMMANDS, SHARED, Compare, Why
from tactus.runtime.commands.keys import Key, keys_of, leaves, marks, users
from tactus.runtime.commands.schema import schema
from tactus.runtime.robot_node.config import LoopConfig

ROOT = Path(__file__).parents[1]
HOME = ROOT / "runtime" / "commands"
FILES = {"card": ["F"], "replay-flight": ["F"], "trace": ["F"], "compare": ["F", "G"], "distill-verify": ["F", "G"]}
"""What stands where a file's name is asked for."""
PARTS = {"loop": LoopConfig, "disturbance": Disturbance, "training": DistillationConfig}
"""Properties that hand a whole config over, by name."""
REGISTRIES: tuple[type[Registry], ...] = (RobotConfig, PolicyConfig, TeleoperatorConfig)
CLASSES = dict.fromkeys(
    [
        Joint,
        JointLimits,
        ArmConfig,
        *COMMANDS.values(),
        *(choice for base in REGISTRIES for choice in base.get_known_choices().values()),
    ]
)


def is_path(key: Key) -> bool:
    return any(mark in marks(key.hint) for mark in get_args(FilePath)[1:])


def is_number(kind: Any) -> bool:
    return kind in (int, float) or any(is_number(inner) for inner in get_args(kind))


NUMBERS = [
    pytest.param(cls, path, key, id=f"{cls.__module__.split('.')[1]}.{cls.__name__}.{'.'.join(path)}")
    for cls in CLASSES
    for path, key in leaves(cls)
    if is_number(key.annotation) and get_origin(key.annotation) is not types.UnionType
]
"""Every key that is a number, or holds some; a camera's source may be a number or a text."""
REQUIRED = {
    PolicyConfig.choice("lerobot"): {"path": "somewhere"},
    RobotConfig.choice("rig"): {"parts": {"a": {"type": "synthetic"}}},
    Joint: {"id": 1, "model": "sts3215"},
    Why: {"file": "FILE", "tick": 1},
    Compare: {"a": "A", "b": "B"},
}


def nested(path: tuple[str, ...], value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


@pytest.mark.parametrize("cls, path, key", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", 1e300, -1e300])
def test_no_absurd_number_passes(cls: type, path: tuple[str, ...], key: Key, value: Any) -> None:
    """Of any key of any class; a list or mapping of numbers is tried with one in it."""
    origin = get_origin(key.annotation)
    value = [value] * 2 if origin in (list, tuple) else {"a": value} if origin is dict else value
    with pytest.raises(ValueError, match=f"{'.'.join(path)}"):
        decode(cls, {**REQUIRED.get(cls, {}), **nested(path, value)})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__.split('.')[1]}.{cls.__name__}")
def test_every_key_is_documented_and_has_a_default(cls: type) -> None:
    for path, key in leaves(cls):
        assert key.doc and not key.doc.endswith("."), path
        assert not key.required or key.positional or path[-1] in ("tick", "id", "model"), path


@pytest.mark.slow
def test_every_type_builds_what_it_names() -> None:
    for base in REGISTRIES:
        for choice in base.get_known_choices().values():
            assert callable(resolve_name(choice.entry_point)), choice  # type: ignore[attr-defined]


class Reads(ast.NodeVisitor):
    """Attributes that a function reads of each of its parameters, and to which other functions it hands it on."""

    def __init__(self, names: set[str]) -> None:
        self.names, self.read, self.calls = names, set(), []

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value
        stored = isinstance(owner, ast.Attribute) and owner.attr == "_config" and "self._config" in self.names
        if (isinstance(owner, ast.Name) and owner.id in self.names) or stored:
            self.read.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if any(isinstance(argument, ast.Name) and argument.id in self.names for argument in given):
            self.calls.append(ast.unparse(node.func).split(".")[-1])
        self.generic_visit(node)


@cache
def definitions() -> dict[str, ast.AST]:
    """The commands' functions and classes, by FILE:NAME."""
    return {
        f"{file.stem}:{node.name}": node
        for file in HOME.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def used_by(command: str) -> set[str]:
    """What the code of a command, and what that calls, reads of its config; properties stand for what they read."""
    cls = COMMANDS[command]
    wanted, seen, found = [f"{command.replace('-', '_')}:main"], set(), set()
    while wanted:
        place = wanted.pop()
        seen.add(place)
        visitor = Reads({"config", "self._config"})
        visitor.visit(definitions()[place])
        found |= visitor.read
        for name in visitor.calls:
            here = f"{place.partition(':')[0]}:{name}"
            places = [here] if here in definitions() else [each for each in definitions() if each.endswith(f":{name}")]
            wanted += [each for each in places if each not in seen]
    while properties := {name for name in found if isinstance(getattr(cls, name, None), property)}:
        for name in properties:
            visitor = Reads({"self"})
            visitor.visit(ast.parse(textwrap.dedent(inspect.getsource(getattr(cls, name).fget))))
            found = (found - {name}) | visitor.read | ({*keys_of(PARTS[name])} if name in PARTS else set())
    return found


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "twin"])
def test_a_command_uses_every_key_it_has(command: str) -> None:
    """`twin` is the twin's own config, all of which it hands over."""
    unused = {*keys_of(COMMANDS[command])} - used_by(command)
    assert not unused


def test_that_a_key_nobody_reads_would_be_seen() -> None:
    assert "episodes" not in used_by("serve") and "sweep" not in used_by("run") and "curve" not in used_by("teleop")
    assert {"episodes", "latency", "curve", "max_ticks", "view_hz", "flight_gb"} <= used_by("run")


@pytest.mark.parametrize("command", SHARED)
def test_a_key_of_other_commands_is_refused_with_their_names(command: str) -> None:
    others = {name for other in SHARED for name, key in keys_of(COMMANDS[other]).items() if not key.positional}
    for name in sorted(others - {*keys_of(COMMANDS[command])}):
        with pytest.raises(UsageError) as refusal:
            read(command, [*FILES.get(command, []), f"--{name}=1"])
        assert f"--{name} is not a key of `tactus {command}` but of {', '.join(users((name,)))}" in str(refusal.value)


@pytest.mark.parametrize("command", SHARED)
def test_one_file_serves_all_commands(command: str, tmp_path: Path) -> None:
    """Each takes its part, checks the others' too, and does not take what nobody has."""
    keys = {name: encode(key.default) for other in SHARED for name, key in keys_of(COMMANDS[other]).items()}
    positional = {name for other in SHARED for name, key in keys_of(COMMANDS[other]).items() if key.positional}
    keys = {name: value for name, value in keys.items() if name not in positional}
    file = tmp_path / "all.yaml"
    places = FILES.get(command, [])
    file.write_text(yaml.safe_dump(keys, allow_unicode=True))
    config = read(command, [*places, f"--config_path={file}"])
    defaults = {name: keys[name] for name in keys_of(COMMANDS[command]) if name not in (*positional, "curve")}
    assert {name: encode(getattr(config, name)) for name in defaults} == defaults
    file.write_text(
        "latency: fixed:2\nepisodes: {}\nrobot:\n  type: pusht\n  max_steps: 0\n  obs_typ: state\nspeed: 3\n"
    )
    with pytest.raises(UsageError) as refusal:
        read(command, [*places, f"--config_path={file}"])
    found = str(refusal.value)
    assert f"episodes: found {{}}; expected a whole number ({file}:2)" in found
    assert f"robot.max_steps: found 0; must be positive ({file}:5)" in found
    assert f"unknown key robot.obs_typ; did you mean robot.obs_type ({file}:6)" in found
    assert "unknown key speed; " in found and f"({file}:7)" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("robot: [", "a.yaml:1:9 is not YAML: "),
        ("robot:\n  type: rig\n bad: 1\n", "a.yaml:3:2 is not YAML: "),
        ("a: 'x\n", "a.yaml:2:1 is not YAML: "),
        ("text\n", "holds no keys"),
        ("- a\n", "holds no keys"),
        ("episodes: 1\nepisodes: 2\n", "episodes: twice (FILE:2)"),
        ("? [a]\n: b\n", "config_path: a key is a word, not a list or mapping (FILE:1)"),
        ("robot: &a {type: rig, parts: {x: *a}}\n", "robot.parts.x: holds itself (FILE:1)"),
        ("robot: {type: rig, parts: &a [*a]}\n", "robot.parts.0: holds itself (FILE:1)"),
        ("a: !!python/object:os.system x\n", "is not YAML: could not determine a constructor"),
        ("episodes: true\n", "episodes: found true; expected a number (FILE:1)"),
        (
            "robot: {type: rig, parts: {a: {type: so100, fps: false}}}\n",
            "robot.parts.a.fps: found false; expected a number",
        ),
        ("robot: 5\n", "robot: found 5; expected keys and values, or the name of a type (FILE:1)"),
        ("robot: {type: rig, parts: {a: {width: 3}}}\n", "robot.parts.a.type: not given; one of aloha"),
        ("robot: {type: rig, parts: {}}\n", "robot.parts: none; name at least one (FILE:1)"),
        (
            "robot: {type: so100, governor: {on_stop: fall}}\n",
            "robot.governor.on_stop: found 'fall'; accepted: off, hold",
        ),
        ("robot: {type: so100, governor: {on_stop: park}}\n", "robot.governor.on_stop: park needs a park_pose"),
        ("robot: {type: koch, bus_watchdog_s: 0.2}\n", "robot.bus_watchdog_s: found 0.2; accepted: 0, or 0.8"),
        ("resume: true\n", "resume: needs output_dir"),
        ("view: window\n", "view: found 'window'; accepted: viewer, web, FILE.rrd (FILE:1)"),
        ("latency: soon\n", "latency: latency 'soon'"),
    ],
)
def test_a_file_that_cannot_be_is_told(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refusal:
        read("run", ["--config_path", str(file)])
    assert words.replace("FILE:", f"{file}:") in str(refusal.value)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--sweep.policy={a: tcp://a:1, b: tcp://b:1, a: tcp://c:1}", "sweep.policy.a: twice"),
        ("--robot={type: rig, parts: {x: {type: so100, port: /a, port: /b}}}", "robot.parts.x.port: twice"),
        ("--sweep={latency: [fixed:1], latency: [fixed:2]}", "sweep.latency: twice"),
        ("--robot={type: rig, parts: &a {x: *a}}", "robot.parts.x: holds itself"),
        ("--sweep.policy={? [a] : tcp://a:1}", "sweep.policy: a key is a word, not a list or mapping"),
    ],
)
def test_a_mapping_of_the_command_line_says_each_key_once(argument: str, words: str) -> None:
    """As one of a file does: the last of two would have won unsaid."""
    with pytest.raises(UsageError) as refusal:
        read("eval", [argument])
    assert str(refusal.value) == words


def test_yaml_says_what_it_looks_like(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("robot: {type: so100, id: 007, task: no, port: 2026-11-29, governor: {on_stop: off}}\nseed: 0\n")
    robot = read("run", [f"--config_path={file}"]).robot
    assert (robot.id, robot.task, robot.port, robot.governor.on_stop) == ("007", "no", "2026-11-29", "off")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text[0] not in "[{"))
def test_text_comes_through_the_command_line_as_it_is(text: str) -> None:
    """But for what stands for nothing, true, false, and lists and mappings."""
    if text not in ("~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE"):
        assert read("run", ["--robot.type=arm", f"--robot.task={text}"]).robot.task == text


def test_the_command_line_goes_as_deep_as_the_config(tmp_path: Path) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text("robot:\n  type: rig\n  parts:\n    arm: {type: so100, governor: {tolerance: 3}}\n")
    keys = ["--robot.parts.arm.governor.park_pose={elbow_flex: 90}", "--robot.parts.arm.governor.on_stop", "park"]
    part = read("run", [*keys, f"--config_path={file}", "--robot.parts.arm.governor.dry_run"]).robot.parts["arm"]
    governor = part.governor
    assert (governor.tolerance, governor.park_pose, governor.on_stop) == (3, {"elbow_flex": 90}, "park")
    assert governor.dry_run and type(part) is RobotConfig.choice("so100")


def test_short_forms() -> None:
    config = read(
        "eval",
        [
            "--robot",
            "pusht",
            "--sweep",
            "--sweep.latency=[fixed:1, lognormal:3, drop=0.1]",
            "--resume",
            "--output_dir=o",
            "--view",
            "--seed",
            "5",
            "--workers=auto",
            "--connect=[tcp://a:1,tcp://b:2]",
        ],
    )
    assert config.sweep.default and config.sweep.latency == ["fixed:1", "lognormal:3,drop=0.1"]
    assert (config.view, config.seed, config.resume, config.workers) == ("viewer", 5, True, "auto")
    assert config.endpoints == ["tcp://a:1", "tcp://b:2"]
    assert read("serve", ["--policy=ticker", "--allow", "robot"]).allow == ["robot"]
    assert read("calibrate", ["--from=~/a.json"]).from_file == str(Path.home() / "a.json")
    assert encode(read("teleop", ["--teleop.arm.type=so100"]).teleop)["type"] == "leader"
    with pytest.raises(UsageError, match="--output_dir: expected --output_dir=VALUE"):
        read("eval", ["--output_dir", "--video"])


def test_what_is_read_for_a_script_may_hold_the_other_commands_keys() -> None:
    keys = ["--policy=ticker", "--robot=synthetic", "--episodes=3", "--batch_wait_ms=5"]
    assert read("serve", ["--beside=eval", *keys]).batch_wait_ms == 5
    assert read("eval", ["--beside=serve", *keys]).episodes == 3
    with pytest.raises(UsageError, match="--dataset_root is not a key of `tactus eval` but of record, teleop"):
        read("eval", ["--beside=serve", *keys, "--dataset_root=a"])


WRITTEN = [(command, key) for command, cls in COMMANDS.items() for key in keys_of(cls).values() if key.written]
READ_TOO = [(command, key) for command, cls in COMMANDS.items() for key in keys_of(cls).values() if is_path(key)]


@pytest.mark.parametrize("command, key", WRITTEN, ids=[f"{command} {key.name}" for command, key in WRITTEN])
def test_what_cannot_be_written_is_told_before_anything_moves(
    command: str, key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a file, where nobody may write, and what is a folder and should be a file, or the other way round."""
    monkeypatch.chdir(tmp_path)
    assert key.written is not None
    end = ".rrd" if key.written.but else ""  # a view that is neither a window nor a browser
    (tmp_path / f"file{end}").write_text("kept")
    (tmp_path / f"folder{end}").mkdir()
    needed = {"why": ["F", "--tick=1"], "keygen": ["me"], **FILES}.get(command, [])
    for path, why in {
        f"file{end}/x{end}": "is a file",
        f"/proc/x{end}": "",
        "file" if key.written.value == "folder" else f"folder{end}": "it is a",
    }.items():
        assert main([command, *needed, f"--{key.name}={path}"]) == 2
        told = capsys.readouterr().err
        assert f"{key.name}: {path} cannot be written: " in told and why in told
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"file{end}", f"folder{end}"]
    assert (tmp_path / f"file{end}").read_text() == "kept" and not any((tmp_path / f"folder{end}").iterdir())


@pytest.mark.parametrize("command, key", READ_TOO, ids=[f"{command} {key.name}" for command, key in READ_TOO])
def test_a_home_and_variables_in_every_path(command: str, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("RUNS", "/data/runs")
    needed = {"why": ["F", "--tick=1"], "keygen": ["me"], "report": ["F"], **FILES}.get(command, [])
    places = [other.name for other in keys_of(COMMANDS[command]).values() if other.positional]
    for typed, meant in {"~/x": "/home/me/x", "$RUNS/x": "/data/runs/x", "${RUNS}": "/data/runs", "a~b": "a~b"}.items():
        words = [*needed, f"--{key.name}={typed}"]
        if key.positional:
            at = places.index(key.name)
            words = [*needed[:at], typed, *needed[at + 1 :]]
        assert getattr(read(command, words), key.name) in (meant, [meant])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
NAMES = st.sampled_from(["robot", "policy", "teleop", "type", "parts", "arm", "curve", "sweep", "governor", "latency"])
TREES = st.recursive(
    SCALARS | st.sampled_from(["rig", "so100", "leader", "ticker", "lerobot", "a:b", "os:path", "[", "{", "null"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | SCALARS, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(SHARED), st.dictionaries(NAMES | st.text(max_size=5), TREES, max_size=5))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_is_a_config_or_a_sentence(tmp_path: Path, command: str, content: dict) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8")
    read_or_told(command, [f"--config_path={file}"])


@given(st.sampled_from([*COMMANDS]), st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4), TREES, st.booleans())))
@settings(max_examples=300)
def test_whatever_stands_on_a_command_line_is_a_config_or_a_sentence(command: str, words: list) -> None:
    line = [f"--{'.'.join(path)}{'=' if joined else ' '}{value}" for path, value, joined in words]
    read_or_told(command, [word for part in line for word in (part.split(" ", 1) if "=" not in part else [part])])


def read_or_told(command: str, arguments: list[str]) -> None:
    try:
        read(command, arguments)
    except UsageError as error:
        assert str(error).strip()
    except SystemExit as stop:
        assert stop.code == 0  # help


@pytest.mark.parametrize("kind", ["config", "twin"])
def test_the_schema_that_ships_is_the_one_of_the_code(kind: str) -> None:
    assert json.loads((ROOT / "launch" / f"{kind}.schema.json").read_text()) == schema(kind), (
        f"tactus schema {kind} > launch/{kind}.schema.json"
    )


def test_the_schema_names_no_machine_and_nobody() -> None:
    text = json.dumps(schema("config"))
    assert not any(word in text for word in (str(ROOT), str(Path.home()), socket.gethostname() + '"'))


@pytest.mark.parametrize("file", sorted((ROOT / "launch").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_files_name_their_schema_and_follow_it(file: Path) -> None:
    named = file.read_text().partition("\n")[0].partition("$schema=")[2]
    check = jsonschema.Draft202012Validator(json.loads((file.parent / named).read_text()))
    content = yaml.load(file.read_text(), Loader)
    assert [*check.iter_errors(content)] == []
    assert [*check.iter_errors({**content, "nonsense": 1})]
    for command in ("twin",) if named == "twin.schema.json" else SHARED:
        read(command, [*FILES.get(command, []), f"--config_path={file}"])


@pytest.mark.parametrize(
    "wrong", [{"robot": {"type": "so100", "prot": 1}}, {"robot": "hexapod"}, {"robot": {"type": "so100", "fps": -1}}]
)
def test_the_schemamarks_what_is_wrong(wrong: dict[str, Any]) -> None:
    assert [*jsonschema.Draft202012Validator(schema("config")).iter_errors(wrong)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tactus ser", ["serve"]),
        ("tactus run --robot.type=so100_", ["--robot.type=so100_leader"]),
        ("tactus run --robot.type=so100 --robot.governor.on_e", ["--robot.governor.on_estop="]),
        ("tactus eval --starvation=", ["--starvation=pause", "--starvation=skip"]),
        ("tactus run --config_path launch/so100.yaml --robot.parts.arm.po", ["--robot.parts.arm.port="]),
        ("tactus completion f", ["fish"]),
        ("tactus serve --episo", []),
        ("tactus nonsense --x", []),
    ],
)
def test_what_may_follow(line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert candidates(line) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "asked", "expected"),
    [
        ("bash", "tactus run --robot.type=kocH_", []),
        ("bash", "tactus run --robot.type=koch_", ["koch_leader"]),
        ("bash", "tactus ser", ["serve"]),
        ("fish", "tactus run --robot.type=koch_", ["--robot.type=koch_leader"]),
        ("zsh", "tactus run --robot.type=koch_", ["--robot.type=koch_leader"]),
    ],
)
def test_a_real_shell_completes(shell: str, asked: str, expected: list[str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    command = tmp_path / "tactus"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tactus "$@"\n')
    command.chmod(0o755)
    script = subprocess.run([command, "completion", shell], capture_output=True, text=True, check=True).stdout
    (tmp_path / "script").write_text(script)
    ask = {
        "bash": f"source script; COMP_LINE='{asked}' COMP_POINT={len(asked)} _tactus; printf '%s\\n' ${{COMPREPLY[@]}}",
        "fish": f"source script; complete -C '{asked}'",
        "zsh": f"compdef() {{ }}; compadd() {{ shift 4; print -l -- ${{(P)1}} }}; LBUFFER='{asked}'; . script; _tactus",
    }[shell]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    out = subprocess.run([shell, "-c", ask], cwd=tmp_path, env=path, capture_output=True, text=True, timeout=60)
    assert [line for line in out.stdout.splitlines() if line] == expected, out.stderr
