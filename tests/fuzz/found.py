"""Messages that once crashed or surprised something, kept as files: tests/corpus/WHOM/NAME.json.

    {"why": "...", "messages": [["hex of a frame", ...], ...]}

decoder: each message by itself. node: all of them in order, from a robot whose routing id and session are SESSION.
link: all of them in order, to a robot of that session which has said hello and asked with seq 1 at tick 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "corpus"
SESSION = "corpus"


class Case(NamedTuple):
    name: str
    why: str
    messages: list[list[bytes]]


def cases(whom: str) -> list[Case]:
    """Every case for the decoder, the node or the link."""
    return [_read(file) for file in sorted((FOLDER / whom).glob("*.json"))]


def keep(whom: str, name: str, why: str, messages: Sequence[Sequence[bytes]]) -> Path:
    """Write a case down. name: words with underscores, that say what it is."""
    file = FOLDER / whom / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps([frame.hex() for frame in frames]) for frames in messages]
    file.write_text(f'{{"why": {json.dumps(why)},\n "messages": [\n  ' + ",\n  ".join(lines) + "\n ]}\n")
    return file


def _read(file: Path) -> Case:
    data = json.loads(file.read_text())
    return Case(file.stem, data["why"], [[bytes.fromhex(frame) for frame in frames] for frames in data["messages"]])
