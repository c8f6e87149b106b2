"""A twin for tests: the real command in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tactus.hal.twin.control import TwinControl


@dataclass
class RunningTwin:
    """about: its twin.json."""

    folder: Path
    about: dict[str, Any]
    process: subprocess.Popen[str]

    def ask(self, **request: Any) -> dict[str, Any]:
        with TwinControl(self.folder) as control:
            return control.ask(**request)

    def arm(self, name: str) -> dict[str, Any]:
        """What the control socket says of one arm."""
        return self.ask(do="state")["arms"][name]

    def port(self, name: str) -> str:
        return self.about["ports"][name]

    def writes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "writes.jsonl").read_text().splitlines()]


@contextlib.contextmanager
def running_twin(folder: Path, *arguments: str) -> Iterator[RunningTwin]:
    """`tactus twin --folder=FOLDER ARGUMENTS`, ready; ended with the block, or with this process."""
    command = [sys.executable, "-m", "tactus", "twin", f"--folder={folder}", f"--parent={os.getpid()}"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line == "twin: ready\n":
                break
        else:
            raise AssertionError(f"the twin did not start: {''.join(said)}")
        yield RunningTwin(folder, json.loads((folder / "twin.json").read_text()), process)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
