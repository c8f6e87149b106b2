"""`tactus COMMAND --help`: a command's keys in groups, then the types of robot and policy, a line each."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from tactus.hal.config import Registry
from tactus.runtime.commands.config import SHARED
from tactus.runtime.commands.keys import Key, Keys, chosen, is_registry, keys_of, leaves, shown
from tactus.runtime.commands.summaries import SUMMARIES

GROUPS = ("Robot", "Policy", "Teleoperation", "Connection to the policy node", "Latency", "Control loop")
"""The first ones, in this order; the others follow as they come."""
COLUMN = 33
"""Where the explanations begin."""


def help_text(command: str, cls: type, data: Any, everything: bool) -> str:
    """data: what file and command line say; the keys of the types they name are shown too. everything: of all types,
    and every explanation in full."""
    width = min(max(shutil.get_terminal_size((120, 24)).columns, 80), 120)
    places = "".join(f" {key.positional}" for key in keys_of(cls).values() if key.positional)
    lines = [f"usage: tactus {command}{places} [--key=value …]", "", SUMMARIES[command], ""]
    groups: dict[str, list[tuple[Keys, Key]]] = {}
    for path, key in leaves(cls):
        groups.setdefault(keys_of(cls)[path[0]].group, []).append((path, key))
    order = {title: at for at, title in enumerate(GROUPS)}
    for title, keys in sorted(groups.items(), key=lambda group: order.get(group[0], len(order))):
        lines += [title, *_keys(keys, width, everything)]
    if command in SHARED or command == "twin":
        lines += ["Every command", *_line("--config_path=FILE.yaml", "keys from a file; those given here win", width)]
        lines += _line("--beside=COMMAND", "accept that command's keys too: for scripts that start both", width)
        lines += _line("--help=all", "every key of every type, with all that there is to say", width)
    for key in keys_of(cls).values():
        if is_registry(key.section):
            lines += ["", *_types(key, data.get(key.name), width, everything)]
    return "\n".join(lines) + "\n"


def _keys(keys: list[tuple[Keys, Key]], width: int, everything: bool) -> Iterator[str]:
    for path, key in keys:
        default = shown(key.default) if not key.required else ""
        name = key.positional or f"--{'.'.join(path)}" + (".type" if is_registry(key.section) else "")
        yield from _line(f"{name}={default}" if default else name, key.doc, width, everything)


def _line(name: str, doc: str, width: int, everything: bool = False) -> list[str]:
    """A key and what it is; on one line, as far as that goes, unless everything is asked for."""
    start, doc = f"  {name:{COLUMN - 3}} ", " ".join(doc.split())
    if everything:
        return textwrap.wrap(doc, width, initial_indent=start, subsequent_indent=" " * COLUMN) or [start.rstrip()]
    fits = (part for part in (doc, doc.partition("; ")[0], doc.partition(". ")[0]) if len(start) + len(part) <= width)
    return [(start + next(fits, textwrap.shorten(doc, width - len(start), placeholder=" …"))).rstrip()]


def _types(key: Key, data: Any, width: int, everything: bool) -> Iterator[str]:
    """The types of a section, a line each, and the keys of the one that is named, or of all."""
    registry: type[Registry] = key.section  # pyright: ignore[reportAssignmentType]
    known = registry.get_known_choices()
    named = chosen(registry, data) if data else None
    example = "so100" if "so100" in known else next(iter(known))
    yield f"--{key.name}.type (--{key.name}.type={example} --help adds its keys; MODULE:CLASS is one of your own)"
    for choice in dict.fromkeys(known.values()):
        names = ", ".join(name for name, each in known.items() if each is choice)
        yield from _line(names, (choice.__doc__ or "").partition("\n")[0], width)
    for choice in dict.fromkeys(known.values()) if everything else [named] if named else []:
        yield f"--{key.name}.type={', '.join(name for name, each in known.items() if each is choice) or data['type']}"
        yield from _keys([((key.name, *path), leaf) for path, leaf in leaves(choice)], width, everything)
