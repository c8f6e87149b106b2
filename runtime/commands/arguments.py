"""Reads a command line and a YAML file into a command's config; what is wrong is said by key, with file and line.

--config_path FILE.yaml     what follows on the command line wins, wherever it stands
--robot.type=so100          another type than the file's replaces all that the file says of the section
--robot.parts.arm.port=P    goes as deep as the config does
--video, --sweep, --view    a key without a value is true
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from pydantic import ValidationError

from tactus.hal.config import Registry, complaints, decode, expanded
from tactus.hal.interrupts import not_swallowed
from tactus.hal.json_file import FETCH, is_pointer
from tactus.runtime.commands.config import COMMANDS
from tactus.runtime.commands.help import help_text
from tactus.runtime.commands.keys import Keys, has, is_registry, keys_of, section, strays, users, walk

ALIASES = {"from": "from_file"}
FILE, BESIDE = "config_path", "beside"


class Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `off` and 2026-01-01 are text, and so is a number that is not written as one would."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


NULL, BOOL = r"^(?:~|null|Null|NULL|)$", r"^(?:true|True|TRUE|false|False|FALSE)$"
INT, FLOAT = r"^-?(?:0|[1-9][0-9]*)$", r"^-?(?:0|[1-9][0-9]*)\.(?:[0-9]*[1-9]|0)$"
for tag, pattern in {"null": NULL, "bool": BOOL, "int": INT, "float": FLOAT, "merge": r"^<<$"}.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), None)


class UsageError(ValueError):
    """A command line or a config file that cannot be read: the key, what was found, what is accepted."""


def parse(command: str, arguments: Sequence[str]) -> Any:
    """The config of a command line; prints help, or what is wrong, and exits with status 0 or 2."""
    try:
        with not_swallowed():  # a library may make its own error of an interrupt
            return read(command, arguments)
    except UsageError as error:
        _fail(command, str(error))


def _fail(command: str, reason: str) -> NoReturn:
    lines = "\n".join(f"tactus {command}: {line}" for line in reason.split("\n"))
    print(f"{lines}\n(`tactus {command} --help` lists every key)", file=sys.stderr)
    raise SystemExit(2)


def read(command: str, arguments: Sequence[str]) -> Any:
    """The config of a command line. Raises UsageError; prints help and exits if it is asked for."""
    cls = COMMANDS[command]
    given, asked_help = split(cls, arguments)
    file, beside = given.pop(FILE, None), given.pop(BESIDE, None)
    if beside not in (None, *COMMANDS):
        raise UsageError(f"{BESIDE}: found {beside!r}; accepted: {', '.join(COMMANDS)}")
    content, lines = ({}, {}) if file is None else read_file(str(file))
    source = Source(content, given, str(file), lines)
    data = merge(cls, content, given)
    if asked_help:
        print(help_text(command, cls, data, everything=asked_help == "all"), end="")
        raise SystemExit(0)
    wrong = []
    for path in strays(cls, data):
        others = users(path, data)
        if not others:
            wrong.append(_unknown(cls, path, data, source))
        elif source.on_line(path):
            if beside is None or not has(COMMANDS[beside], path, data):
                wrong.append(f"{source.name(path)} is not a key of `tactus {command}` but of {', '.join(others)}")
        else:
            wrong += _errors(COMMANDS[others[0]], data, source, path)  # what another command reads is checked too
        _drop(data, path)
    wrong += _errors(cls, data, source)
    if wrong:
        raise UsageError("\n".join(dict.fromkeys(wrong)))
    return decode(cls, data)


def is_given(arguments: Sequence[str], key: str) -> bool:
    """Whether a command line, not a file, gives this key or one below it."""
    return any(re.match(rf"--{key}($|[=.])", argument) for argument in arguments)


def split(cls: type, arguments: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What a command line says, as nested keys, and whether it asks for help ("", "yes" or "all")."""
    given: dict[str, Any] = {}
    places = [key.name for key in keys_of(cls).values() if key.positional]
    rest, asked_help = [*arguments], ""
    while rest:
        argument = rest.pop(0)
        if argument in ("-h", "--help"):
            asked_help = "yes"
        elif argument == "--help=all":
            asked_help = "all"
        elif not argument.startswith("--"):
            if not places:
                raise UsageError(f"{argument!r}: not expected; keys are given as --key=value")
            given[places.pop(0)] = argument
        else:
            name, equals, text = argument[2:].partition("=")
            path = [ALIASES.get(name, name)] if "." not in name else name.split(".")
            if not all(path):
                raise UsageError(f"{argument}: expected --key=value, or --section.key=value")
            at = section(cls, tuple(path[:-1]), given)
            key = keys_of(at).get(path[-1]) if at else None
            switch = key is not None and key.annotation is bool
            follows = rest[:1] != [] and not rest[0].startswith("--") and rest[0] != "-h"
            if equals:
                value = value_of(text, argument)
            elif follows and (not switch or rest[0].lower() in ("true", "false")):
                value = value_of(rest.pop(0), argument)
            elif name in (FILE, BESIDE):
                raise UsageError(f"{argument}: expected {argument}=VALUE")
            elif key is None or switch:
                value = "true"
            elif key.bare is None:
                raise UsageError(f"{argument}: expected {argument}=VALUE; {key.doc}")
            else:
                value = key.bare
            _put(given, path, value)
    return given, asked_help


def value_of(text: str, argument: str) -> Any:
    """A value of the command line: lists and mappings as YAML has them, everything else as it is written."""
    if text[:1] not in ("[", "{") and not _scalar(text):
        return text
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        dict(_lines(node, "", tuple(argument[2:].partition("=")[0].split("."))))
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UsageError(f"{argument}: {' '.join(str(error).split())}") from error


def _scalar(text: str) -> bool:
    return text != "" and any(re.match(pattern, text) for pattern in (NULL, BOOL, INT, FLOAT))


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.get(name)
        inner = inner if isinstance(inner, dict) else {} if inner is None else _opened(inner)
        tree[name] = inner
        tree = inner
    if isinstance(tree.get(path[-1]), dict):
        tree[path[-1]] |= _opened(value)
    else:
        tree[path[-1]] = value


def _opened(value: Any) -> dict[str, Any]:
    """A section that was given as one value: `--robot=libero` is its type."""
    return value if isinstance(value, dict) else {"type": value}


def read_file(file: str) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    """A config file's keys, and the line that each stands at. Raises UsageError."""
    file = str(expanded(file))
    try:
        if is_pointer(Path(file)):
            raise UsageError(f"{FILE}: {file} is {FETCH}")
        loader = Loader(Path(file).read_text())
        node = loader.get_single_node()
        lines = dict(_lines(node, file)) if node is not None else {}
        content = loader.construct_document(node) if node is not None else {}
    except OSError as error:
        raise UsageError(f"{FILE}: {file} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UsageError(f"{FILE}: {where} is not YAML: {error.problem or error.context}") from error
    except RecursionError:
        raise UsageError(f"{FILE}: {file} is not YAML that can be read: brackets in brackets without end") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{FILE}: {file} is not YAML: {' '.join(str(error).split())}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UsageError(f"{FILE}: {file} holds no keys: expected lines of key: value")
    return content, lines


def _lines(
    node: yaml.Node, file: str, path: Keys = (), above: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[Keys, int]]:
    """Every key with the line that it stands at. Raises UsageError for what no config can hold. file: empty for a value
    of the command line."""

    def place(node: yaml.Node) -> str:
        return f" ({file}:{node.start_mark.line + 1})" if file else ""

    if node in above:
        raise UsageError(f"{'.'.join(map(str, path))}: holds itself{place(node)}")
    if isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, file, (*path, index), (*above, node))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{'.'.join(map(str, path)) or FILE}: a key is a word, not a list or mapping{place(node)}")
        line = key.start_mark.line + 1
        if key.value in seen:
            raise UsageError(f"{'.'.join(map(str, (*path, key.value)))}: twice{place(key)}")
        seen.add(key.value)
        yield (*path, key.value), line
        yield from _lines(value, file, (*path, key.value), (*above, node))


def merge(cls: type, content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A file's keys under the command line's, with a `type` in every section that one of the command's keys picks."""
    content, given = dict(content), dict(given)
    for key in keys_of(cls).values():
        if not is_registry(key.section):
            continue
        registry: type[Registry] = key.section  # pyright: ignore[reportAssignmentType]
        below, above = (_as_section(tree.get(key.name)) for tree in (content, given))
        if not (isinstance(below, dict) and isinstance(above, dict)):
            continue  # which is told when it is read
        if key.default is None and not below and not above:
            continue  # a section that need not be there
        if "type" not in above and (kind := registry.implied_type(above)) and not registry.implied_type(below):
            above = {"type": kind, **above}
        if key.name in content or key.name in given:
            content[key.name] = below
            given[key.name] = above
            if "type" not in below and "type" not in above and key.default is not None:
                kind = registry.implied_type({**below, **above}) or registry.get_choice_name(type(key.default))
                content[key.name] = {"type": kind, **below}
    return _merged(content, given)


def _as_section(value: Any) -> Any:
    return {} if value is None else {"type": value} if isinstance(value, str) else value


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "type" in above and above["type"] != below.get("type", above["type"]):
        return above
    return {**below, **{k: _merged(below[k], v) if k in below else v for k, v in above.items()}}


@dataclass(frozen=True)
class Source:
    """Where each key of a config was given."""

    content: Mapping[str, Any]
    given: Mapping[str, Any]
    file: str
    lines: Mapping[Keys, int]

    def on_line(self, path: Keys) -> bool:
        """Whether the command line has the last word on it."""
        here: Any = self.given
        for name in path:
            if not isinstance(here, dict) or name not in here:
                return False
            here = here[name]
        return True

    def name(self, path: Keys) -> str:
        """The key as it was written."""
        return ("--" if self.on_line(path) else "") + ".".join(map(str, path))

    def at(self, path: Keys) -> str:
        """In brackets, file and line; empty for what the file does not say."""
        known = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        return "" if known is None or self.on_line(path) else f" ({self.file}:{self.lines[known]})"


def _drop(tree: dict[str, Any], path: Keys) -> None:
    """Without the key; what the tree shares with others stays as it is."""
    for name in path[:-1]:
        inner = {**tree[name]}
        tree[name] = inner
        tree = inner
    del tree[path[-1]]


def _unknown(cls: type, path: Keys, data: Any, source: Source) -> str:
    """A key that nobody has, and those that may have been meant, or all of its section."""
    at, dashes = section(cls, path[:-1], data), "--" if source.on_line(path) else ""
    known = {name: dashes + ".".join(map(str, (*path[:-1], name))) for name in sorted(keys_of(at))} if at else {}
    close = difflib.get_close_matches(str(path[-1]), known, 3, 0.6)
    near = f"{'did you mean' if close else 'known:'} {', '.join(known[name] for name in close or known) or 'none'}"
    return f"unknown key {source.name(path)}; {near}{source.at(path)}"


def _errors(cls: type, data: Any, source: Source, below: Keys = ()) -> list[str]:
    """What is wrong with a command's keys, or with those below one of them."""
    data, wrong = {**data}, []
    for path in strays(cls, data):
        if path[: len(below)] == below and not users(path, data):
            wrong.append(_unknown(cls, path, data, source))
        _drop(data, path)
    for path, key, value in walk(cls, data):  # true is 1 to pydantic
        if isinstance(value, bool) and key and key.annotation in (int, float) and path[: len(below)] == below:
            wrong.append(f"{'.'.join(map(str, path))}: found {str(value).lower()}; expected a number{source.at(path)}")
    try:
        decode(cls, data)
    except ValidationError as error:
        found = [(place, text) for place, text in complaints(error) if place[: len(below)] == below]
        wrong += [_with_doc(cls, place, text) + source.at(place) for place, text in found]
    return wrong


def _with_doc(cls: type, place: Keys, text: str) -> str:
    """A key of the command that is needed and not given is explained."""
    key = keys_of(cls).get(place[0]) if len(place) == 1 else None
    return f"{key.positional or key.name}: not given; {key.doc}" if key and text.endswith(": not given") else text
