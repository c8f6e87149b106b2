"""Real `tactus` commands as processes of their own, for tests and benches."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def start(command: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """`tactus COMMAND ARGUMENTS`, with what it prints added to `log`."""
    words = [sys.executable, "-m", "tactus", command, *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as out:
        return subprocess.Popen(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment)


def end(process: subprocess.Popen[bytes], timeout_s: float = 10.0, by: signal.Signals = signal.SIGTERM) -> int:
    """Ask it to end, and see to it that it has. Returns its exit status."""
    if process.poll() is None:
        process.send_signal(by)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def endpoint_of(log: Path, timeout_s: float = 60.0) -> str:
    """Where the policy node that writes this log listens; raises TimeoutError with the log if it does not say."""
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        if log.exists() and (found := re.findall(r"at (tcp://[0-9.]+:\d+)\s", log.read_text())):
            return found[-1]
        time.sleep(0.05)
    raise TimeoutError(f"no policy node came up:\n{log.read_text() if log.exists() else ''}")


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A policy node on a free loopback port, and its endpoint; ended afterwards."""
    process = start("serve", ["--connect=tcp://127.0.0.1:*", *arguments], log)
    try:
        yield process, endpoint_of(log)
    finally:
        end(process)


def episodes(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's episodes.jsonl so far."""
    file = folder / "episodes.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
