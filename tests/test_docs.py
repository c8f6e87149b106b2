"""What README, docs and examples name is there: files, functions, keys; and every command line in them can be read."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tactus.runtime.commands import named
from tactus.runtime.commands.arguments import UsageError, read
from tactus.runtime.commands.config import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "examples" / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "policies").rglob("*.md"),
    ]
)
VALUES = {
    "--robot.suite": "libero_spatial",
    "--robot.type": "synthetic",
    "--policy.path": "outputs/some/checkpoint",
    "--workers": "2",
    "--action_noise": "0.1",
}
"""What a reader puts in the place of `…` or a capital letter; anything else is a word."""
STARTS = re.compile(r"(?:\w+\$ +)?((?:tactus|bash launch/\S+|python -m tactus)(?: .*)?$)")
OPERATORS = {";", "&", "&&", "|", ">", ">>"}


def fenced(text: str, language: str) -> Iterator[str]:
    """Blocks of code of a language; "" for those that name none."""
    for opened, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if opened == language:
            yield block


def command_lines(text: str) -> Iterator[str]:
    """What starts with `tactus`, `bash launch/` or `python -m tactus`, in blocks, inline and in tables; and lines of
    keys alone, which are for `tactus eval`."""
    for block in fenced(text, "bash"):
        block = re.sub(r"\$\(seq -s, 0 (\d+)\)", r"0,\1", block.replace("\\\n", " "))
        variables = dict(re.findall(r'^(\w+)="(.*)"$', block, re.MULTILINE))
        for line in block.splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            yield from (found[1] for part in commands_of(line) if (found := STARTS.match(part)))
    for block in fenced(text, ""):
        yield from (f"tactus eval {line}" for line in block.splitlines() if line.startswith("--"))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    codes = [code for code in re.findall(r"`([^`\n]+)`", prose) if STARTS.match(code)]
    yield from (found[1] for code in codes for part in commands_of(code) if (found := STARTS.match(part)))


def commands_of(line: str) -> Iterator[str]:
    """A line's commands, without comments, redirections and prompts."""
    words: list[str] = []
    for word in [*split(line), ";"]:
        if word in OPERATORS:
            yield shlex.join(words)
            words = []
        else:
            words.append(word)


def split(line: str) -> list[str]:
    """As a shell would have it; operators are words of their own."""
    lexer = shlex.shlex(line.replace("$(cat outputs/twin/robot.keys)", ""), posix=True, punctuation_chars=";&|>")
    lexer.whitespace_split = True
    return list(lexer)


def filled(word: str) -> str:
    """A word with what a reader would put in the place of its placeholders."""
    key, equals, value = word.partition("=")
    if equals and value in ("…", "N"):
        return f"{key}={VALUES.get(key, 'something')}"
    return re.sub(r"trace:[^,\]]+", "trace:some.trace", word).replace("…", "1")


def check(command: str, arguments: list[str]) -> None:
    """Have the real parser read a command's arguments; what it finds wrong is shown."""
    try:
        read(command, arguments)
    except UsageError as error:
        pytest.fail(f"{command} {shlex.join(arguments)}: {error}")
    except SystemExit as stop:  # help was asked for
        assert stop.code == 0


def check_launch(script: str, arguments: list[str]) -> None:
    """As launch/sim.sh and launch/so100.sh would: their default command and file, their own words taken out, and both
    processes given all keys."""
    if script == "setup.sh":
        assert not arguments
        return
    if script == "train.sh":
        check("train", [one for one in arguments if one.partition("=")[0] not in TRAIN_SH])
        return
    command, file = ("eval", "launch/sim.yaml") if script == "sim.sh" else ("run", "launch/so100.yaml")
    if arguments and not arguments[0].startswith("--"):
        command, *arguments = arguments
    arguments = [argument for argument in arguments if argument != "--emulated"]
    if script == "so100.sh":
        arguments = ["--policy=learned_so101" if one == "--policy=learned" else one for one in arguments]
    if not any(argument.startswith("--config_path") for argument in arguments):
        arguments = [f"--config_path={file}", *arguments]
    if command == "record" and script == "so100.sh":
        arguments.append("--real_time=true")
    check(command, ["--beside=serve", *arguments])
    if command in ("eval", "run", "record"):
        check("serve", [f"--beside={command}", *arguments])


TRAIN_SH = {"--rounds", "--suites", "--episodes", "--held_out", "--image_size"}
"""Keys of launch/train.sh that tactus train does not have."""
LINES = sorted({(page, line) for page in PAGES for line in command_lines(page.read_text())})


@pytest.mark.slow
@pytest.mark.parametrize("page, line", LINES, ids=[f"{page.name}: {line:.60}" for page, line in LINES])
def test_a_command_line_can_be_read(page: Path, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "some.trace").write_text("10\n20\n")
    for name in ("pantilt.yaml", "robot.yaml"):  # files of the reader's own, as a page shows them
        (tmp_path / name).write_text((ROOT / "launch" / "so100.yaml").read_text())
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    words = [filled(word) for word in split(line)]
    if words[0] == "bash":
        script = words[1].removeprefix("launch/")
        assert (ROOT / "launch" / script).is_file()
        check_launch(script, words[2:])
        return
    words = words[3:] if words[0] == "python" else words[1:]
    if not words or words[0] in ("COMMAND", "--help", "--version"):
        return
    command, arguments = named(words)
    assert command in COMMANDS
    if arguments:  # a command that is only named is not a line to type
        check(command, arguments)


def test_there_are_command_lines_to_read() -> None:
    assert len(LINES) > 80


YAMLS = [
    (page, block) for page in PAGES for block in fenced(page.read_text(), "yaml") if block.startswith(("robot", "#"))
]


@pytest.mark.parametrize("page, block", YAMLS, ids=[page.name for page, _ in YAMLS])
def test_a_config_file_can_be_read(page: Path, block: str, tmp_path: Path) -> None:
    if "robot" not in yaml.safe_load(block):
        return  # another program's
    (tmp_path / "a.yaml").write_text(block)
    check("run", [f"--config_path={tmp_path}/a.yaml"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[\w-]+)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_parts_of_pages_that_are_linked_to_are_there(page: Path) -> None:
    for target, part in re.findall(r"\]\(([^)#\s]*)#([\w-]+)\)", page.read_text()):
        text = (page.parent / target if target else page).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert part in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], part


FILE = re.compile(
    r"(?:launch|docs|tests|hal|policies|runtime|examples|tactus)/[\w./-]*\w\.(?:py|md|sh|yaml|gif|png|json|j2)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    for file in FILE.findall(page.read_text()):
        near = [ROOT / file, page.parent / file]
        assert any(path.exists() for path in near), file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_a_page_is_python_and_imports_what_there_is(page: Path) -> None:
    for block in fenced(page.read_text(), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & {"hal", "policies", "runtime"}
            elif isinstance(node, ast.ImportFrom):
                room = str(node.module).split(".")[0]
                assert room not in ("hal", "policies", "runtime"), "import it from tactus"
                for alias in node.names if room == "tactus" else ():
                    assert hasattr(importlib.import_module(str(node.module)), alias.name), alias.name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_every_script_of_figures_is_named() -> None:
    """What is measured stands on one page; scripts that make things for other scripts are not figures' own."""
    named = {*re.findall(r"tests/bench/(\w+)\.py", "\n".join(page.read_text() for page in PAGES))}
    helpers = {"lerobot_eval_policy", "rl_demos", "rtc_demos", "rtc_policy"}
    assert {file.stem for file in (ROOT / "tests" / "bench").glob("*.py")} - {"__init__"} - helpers <= named


class Same(ast.NodeTransformer):
    """Code without docstrings and the annotations of functions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in node.args.args:
            argument.annotation = None
        node.body = without_docstring(node.body)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.body = [part for part in node.body if not is_text(part)]
        return node


def is_text(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return [part for part in body if not is_text(part)] or [ast.Pass()]


@pytest.mark.parametrize("heading, example", [("Your robot", "own_robot.py"), ("Your policy", "own_policy.py")])
def test_the_readmes_programs_are_the_examples(heading: str, example: str) -> None:
    """Twenty lines at most, and each definition as in the example, which is run."""
    section = (ROOT / "README.md").read_text().partition(f"## {heading} in 20 lines")[2]
    code = next(fenced(section, "python"))
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    ours = {ast.dump(part) for part in definitions((ROOT / "examples" / example).read_text())}
    for part in definitions(code):
        assert ast.dump(part) in ours, ast.unparse(part)


def definitions(code: str) -> Iterator[ast.stmt]:
    """Statements, and of a class its head and each of its members."""
    for part in Same().visit(ast.parse(code)).body:
        if isinstance(part, ast.ClassDef):
            yield from part.body
            part.body = [ast.Pass()]
        yield part


@cache
def names_in(file: Path) -> set[str]:
    """What a file defines: functions, classes, their members and attributes, constants; dotted."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for part in body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + part.name)
            if isinstance(part, ast.ClassDef):
                collect(part.body, f"{prefix}{part.name}.")
            if isinstance(part, ast.Assign | ast.AnnAssign):
                targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(file.read_text()).body, "")
    return found


def test_the_map_names_what_there_is() -> None:
    """`path.py: name, name` names a file and what it defines; a name alone belongs to the file named last."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    looked_up = 0
    for paragraph in re.split(r"\n\n|\n(?=\d+\.|\|)", text):
        classes: dict[str, Path] = {}
        last: Path | None = None
        for code in re.findall(r"`([^`]+)`", paragraph):
            path, _, names = code.partition(": ")
            if path.endswith(".py"):
                last = ROOT / path
                assert (ROOT / path).is_file(), path
            else:
                names = code
            for name in names.split(", ") if names else ():
                if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
                    continue
                head = name.split(".")[0]
                known = [classes[head]] if head in classes else []
                places = ([last] if last else []) + known
                if path.endswith(".py") or "." in name or name[0].isupper():
                    hits = [place for place in places if name in names_in(place)]
                    if not hits and not path.endswith(".py"):
                        hits = [file for file in ALL if name in names_in(file)]
                    assert hits, f"{name} is not in {last}: {paragraph[:80]}"
                    classes[head] = hits[0]
                    looked_up += 1
    assert looked_up > 100


ALL = sorted(file for room in ("hal", "policies", "runtime") for file in (ROOT / room).rglob("*.py"))


def test_the_map_draws_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for room in (path for top in ("hal", "policies", "runtime") for path in (ROOT / top).iterdir()):
        if room.is_dir() and room.name != "checkpoints" and not room.name.startswith((".", "_")):
            assert f"{room.name}/" in text, room
