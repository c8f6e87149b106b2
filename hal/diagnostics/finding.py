"""A finding of the diagnosis: what was looked at, how it stands, and what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "fault"]
"""note: works, but not as well as it could, or a person should know. fault: a run would fail, or be unsafe."""


@dataclass(frozen=True)
class Finding:
    """One finding. part: the arm, camera or machine that it is about. expected and fix may be empty."""

    part: str
    about: str
    level: Level
    found: str
    expected: str = ""
    fix: str = ""


def listed(entries: Mapping[str, str], everybody: Collection[str] = ()) -> str:
    """`name, name value; name value`; `value (all)` where everybody has the same."""
    names: dict[str, list[str]] = {}
    for name, value in entries.items():
        names.setdefault(value, []).append(name)
    if len(names) == 1 and len(entries) > 1 and {*entries} == {*everybody}:
        return f"{next(iter(names))} (all)"
    return "; ".join(f"{', '.join(who)} {value}" for value, who in names.items())
