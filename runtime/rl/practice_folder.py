"""What of a practice is on disk, so that it goes on where it was.

OUTPUT_DIR/practice.json             what is practised; --resume refuses to mix it with anything else
OUTPUT_DIR/state.safetensors         all that the next iteration depends on; an iteration is done when this is written
OUTPUT_DIR/metrics.jsonl             an iteration a line: repeats byte for byte with the same seed
OUTPUT_DIR/timings.jsonl             where its time went
OUTPUT_DIR/rollouts/00003/           one file a rollout, as soon as it is played: none is played or counted twice
OUTPUT_DIR/evaluations/00005.jsonl   one line an episode
OUTPUT_DIR/best/, last/              checkpoints to serve: of the best evaluation, and of the end
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tactus.policies.rl.rollouts import Rollout
from tactus.runtime.evaluation.results import ResultsError, write_whole, writing
from tactus.runtime.rl.players import Order

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
Row = dict[str, Any]


class PracticeFolder:
    """Of one practice. Raises ResultsError for what cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.state, self.last = folder / "state.safetensors", folder / "last"
        self._folder = folder

    def lines(self) -> list[Row]:
        """metrics.jsonl so far."""
        return read_lines(self._folder / METRICS)

    def write_lines(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Of an iteration."""
        _append(self._folder / METRICS, metrics)
        _append(self._folder / TIMINGS, timings)

    def keep_lines(self, until: int) -> None:
        """Those of iterations that are done: one that was interrupted after its line was written is done again."""
        for name in (METRICS, TIMINGS):
            kept = [line for line in read_lines(self._folder / name) if line["iteration"] < until]
            write_whole(self._folder / name, "".join(json.dumps(line) + "\n" for line in kept))

    def rollout(self, iteration: int, order: Order) -> Path:
        """Where it is, once it has been played."""
        return self._folder / "rollouts" / f"{iteration:05d}" / f"{order.episode:05d}_{order.repeat:03d}.npz"

    def rollouts(self, iteration: int, orders: Sequence[Order]) -> list[Rollout]:
        """Those of the orders that have been played."""
        return [_read_rollout(file) for order in orders if (file := self.rollout(iteration, order)).is_file()]

    def write_rollout(self, iteration: int, order: Order, rollout: Rollout) -> None:
        """Whole, or not there."""
        file = self.rollout(iteration, order)
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(".partial")
            scratch.write_bytes(rollout.to_bytes())
            os.replace(scratch, file)

    def drop_rollouts(self, until: int) -> None:
        """Of the iterations before this one."""
        for old in (self._folder / "rollouts").glob("*"):
            if int(old.name) < until:
                shutil.rmtree(old)

    def evaluated(self, version: int) -> dict[tuple[int, int], Row]:
        """Episodes of an evaluation, by episode and repeat."""
        return {(row["episode"], row["repeat"]): row for row in read_lines(self._evaluation(version))}

    def write_evaluated(self, version: int, row: Row) -> None:
        """An episode more."""
        _append(self._evaluation(version), row)

    def save_best(self, save: Callable[[Path], None]) -> None:
        """In the place of the one before, when it is whole."""
        scratch, best = self._folder / "best.partial", self._folder / "best"
        shutil.rmtree(scratch, ignore_errors=True)
        save(scratch)
        shutil.rmtree(best, ignore_errors=True)
        os.replace(scratch, best)

    def _evaluation(self, version: int) -> Path:
        return self._folder / "evaluations" / f"{version:05d}.jsonl"


def read_lines(file: Path) -> list[Row]:
    """What is whole of it: a process that was killed may have left half a line, which is taken off."""
    if not file.is_file():
        return []
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_whole(file, whole)
    return [json.loads(line) for line in whole.splitlines()]


def _append(file: Path, line: Mapping[str, Any]) -> None:
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


def _read_rollout(file: Path) -> Rollout:
    try:
        return Rollout.from_bytes(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file} cannot be read: {error}; delete it, and it is played again") from error
