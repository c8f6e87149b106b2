"""Messages that once crashed or surprised something, kept as files: tests/corpus/WHOM/NAME.json.

    {"why": "...", "messages": [["hex of a frame", ...], ...]}      dcf000*1000 01: three bytes 1000 times, then one

decoder: each message by itself. node: all of them in order, from a robot whose routing id and session are SESSION.
link: all of them in order, to a robot of that session which has said hello, has opened an episode with seq 1 and asked
with seq 2 at tick 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "corpus"
SESSION = "corpus"
RUN = re.compile(rb"(.{1,4}?)\1{15,}", re.DOTALL)


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
    lines = [json.dumps([_written(frame) for frame in frames]) for frames in messages]
    file.write_text(f'{{"why": {json.dumps(why)},\n "messages": [\n  ' + ",\n  ".join(lines) + "\n ]}\n")
    return file


def _written(frame: bytes) -> str:
    words, at = [], 0
    for run in RUN.finditer(frame):
        unit = run[1]
        words += [frame[at : run.start()].hex(), f"{unit.hex()}*{len(run[0]) // len(unit)}"]
        at = run.end()
    return " ".join(word for word in [*words, frame[at:].hex()] if word)


def _frame(text: str) -> bytes:
    words = (word.partition("*") for word in text.split())
    return b"".join(bytes.fromhex(unit) * int(times or 1) for unit, _, times in words)


def _read(file: Path) -> Case:
    data = json.loads(file.read_text())
    return Case(file.stem, data["why"], [[_frame(text) for text in frames] for frames in data["messages"]])
