"""`tactus completion SHELL`: a script for the shell, which asks this command what may follow on each TAB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin

from tactus.hal.config import Registry
from tactus.runtime.commands.arguments import FILE, UsageError, merge, read_file, split
from tactus.runtime.commands.config import COMMANDS, SHARED, Completion
from tactus.runtime.commands.keys import Keys, chosen, is_registry, keys_of, section
from tactus.runtime.commands.summaries import SUMMARIES

SCRIPTS = {
    "bash": """# eval "$(tactus completion bash)", in ~/.bashrc
_tactus() {
  local IFS=$'\\n'
  COMPREPLY=($(tactus completion bash --line="${COMP_LINE:0:$COMP_POINT}" 2>/dev/null))
  [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace
}
complete -o default -F _tactus tactus
""",
    "zsh": """# eval "$(tactus completion zsh)", in ~/.zshrc after compinit
_tactus() {
  local -a found
  found=("${(@f)$(tactus completion zsh --line="$LBUFFER" 2>/dev/null)}")
  [[ -n $found ]] && compadd -Q -S '' -a found || _files
}
compdef _tactus tactus
""",
    "fish": """# tactus completion fish | source, in ~/.config/fish/config.fish
complete -c tactus -a '(tactus completion fish --line=(commandline -cp) 2>/dev/null)'
""",
}


def main(config: Completion, arguments: list[str]) -> int:
    """Exit status 0."""
    if config.line is None:
        print(SCRIPTS[config.shell], end="")
        return 0
    found = candidates(config.line)
    # bash takes what stands behind a = for a word of its own
    print("\n".join(each.partition("=")[2] or each for each in found) if config.shell == "bash" else "\n".join(found))
    return 0


def candidates(line: str) -> list[str]:
    """Words that may stand where this line ends, in place of its last one. None where only the shell knows: files."""
    words = [*line.split()[1:]] + ([""] if line.endswith(" ") else [])
    if len(words) < 2:
        return [name for name in (*SUMMARIES, "--version", "--help") if name.startswith("".join(words))]
    command, *before, current = words
    if command not in COMMANDS or (before and before[-1] == f"--{FILE}"):
        return []
    cls, data = COMMANDS[command], {}
    with contextlib.suppress(UsageError):  # what is wrong so far is told when the command is run
        given, _ = split(cls, before)
        file = given.pop(FILE, None)
        data = merge(cls, read_file(str(file))[0] if file else {}, given)
    name, equals, _ = current.partition("=")
    places = [choice for key in keys_of(cls).values() if key.positional for choice in _choices(key.annotation)]
    if equals:
        found = [f"{name}={value}" for value in _values(cls, tuple(name[2:].split(".")), data)]
    else:
        found = [*_keys(cls, (), data), *places, "--help"] + ([f"--{FILE}="] if command in (*SHARED, "twin") else [])
    return sorted(each for each in found if each.startswith(current))


def _keys(kind: Any, path: Keys, data: Any, default: Any = None) -> Iterator[str]:
    """Every key below a path, with the types and the parts that are known so far."""
    data = data if isinstance(data, Mapping) else {}
    if get_origin(kind) is dict:
        for name, inner in data.items():
            yield from _keys(get_args(kind)[1], (*path, name), inner)
    if is_registry(kind):
        yield f"--{'.'.join(path)}.type="
        kind = chosen(kind, data, default)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return
    for key in keys_of(kind).values():
        here = (*path, key.name)
        if key.section is None and not key.positional:
            yield f"--{'.'.join(here)}" + ("" if key.annotation is bool else "=")
        yield from _keys(key.annotation, here, data.get(key.name), key.default)


def _values(cls: type, path: Keys, data: Any) -> list[str]:
    *above, name = path
    at = section(cls, tuple(above), data)
    if name == "type" and at is not None and issubclass(at, Registry):
        return [*at.get_known_choices()]
    return _choices(keys_of(at)[name].annotation) if at and name in keys_of(at) else []


def _choices(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["false", "true"]
    if get_origin(annotation) is list:
        return _choices(get_args(annotation)[0])
    return [str(each) for each in get_args(annotation)] if get_origin(annotation) is Literal else []
