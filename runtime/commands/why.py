"""`tactus why FILE --tick=N`: which observation, chunk, blend and limit produced an action of a flight record."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from tactus.runtime.commands.config import Why
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.explanation import Explanation, explain
from tactus.runtime.flight.explanation_text import explanation_lines
from tactus.runtime.flight.reader import read_flights

UNUSABLE = 2


def main(config: Why, arguments: list[str]) -> int:
    """Exit status 0 if the tick is in the record."""
    try:
        found = _explain(Path(config.file), config.tick, config.episode)
        print("\n".join(explanation_lines(found)))
        if config.images is not None:
            for file in write_images(found, Path(config.images)):
                print(f"picture: {file}")
    except FlightError as error:
        print(f"tactus why: {error}", file=sys.stderr)
        return UNUSABLE
    return 0


def _explain(file: Path, tick: int, episode: int | None) -> Explanation:
    """In the newest run of a folder that has the tick."""
    flights = read_flights(file)
    for flight in reversed(flights[1:]):
        try:
            return explain(flight, tick, episode)
        except FlightError:
            continue  # an earlier run may have it; the first one says what it has
    return explain(flights[0], tick, episode)


def write_images(found: Explanation, folder: Path) -> list[Path]:
    """Every picture of the observations behind the action; raises FlightError if the folder cannot be written to."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlightError(f"images: cannot write to {folder}: {error.strerror}") from error
    for seq, request in found.requests.items():
        for name, array in (request.observation.arrays if request.observation else {}).items():
            if array.ndim < 3:
                continue
            for number, picture in enumerate(array.reshape(-1, *array.shape[-3:])):
                part = f"_{number}" if array.ndim > 3 else ""
                file = folder / f"request_{seq}_tick_{request.tick}_{name.rpartition('.')[2]}{part}.png"
                if not cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
                    raise FlightError(f"images: cannot write {file}")
                written.append(file)
    return written
