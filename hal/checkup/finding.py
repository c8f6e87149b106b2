"""One thing that was looked at, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "fault"]
"""note: works, but not as well as it could, or a person should know. fault: a run would fail, or be unsafe."""


@dataclass(frozen=True)
class Finding:
    """part: arm, camera or machine that it is about. expected and fix stand empty where there is nothing to say."""

    part: str
    about: str
    level: Level
    found: str
    expected: str = ""
    fix: str = ""


def listed(entries: dict[str, str]) -> str:
    """`name value, name value`; one value alone where all have the same."""
    if len(entries) > 1 and len(set(entries.values())) == 1:
        return f"{next(iter(entries.values()))} (all)"
    return ", ".join(f"{name} {value}" for name, value in entries.items())
