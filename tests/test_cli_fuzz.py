"""A short run of tests/bench/cli_fuzz.py: odd values for the keys of every command but one that imports torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench.cli_fuzz import Outcome

from tactus.runtime.commands.config import COMMANDS

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.realtime]


@pytest.mark.parametrize(
    "ended, said, wrong",
    [
        (0, "results: out", False),
        (2, "tactus eval: episodes: found -1; must be positive", False),
        (-2, "tactus eval: interrupted", False),
        (1, "Traceback (most recent call last):\n  File …", True),
        (0, "Exception ignored in: <function X.__del__>", True),
        (-11, "", True),
        (-8, "", True),
        (None, "tactus eval: interrupted", True),
    ],
)
def test_what_counts_as_wrong(ended: int | None, said: str, wrong: bool) -> None:
    assert Outcome([], ended, said).wrong == wrong


def test_odd_values_end_in_sentences() -> None:
    commands = [command for command in COMMANDS if command != "record"]
    words = [sys.executable, "-W", "ignore", "tests/bench/cli_fuzz.py", "--tries=30", f"--only={','.join(commands)}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    bases = dict(re.findall(r"^(\S+): status (\S+): ", done.stdout, re.MULTILINE))
    unable = {command for command, status in bases.items() if status != "0"}
    assert set(bases) == set(commands) and unable == {
        "calibrate",
        "stop",
        "swap",
        "offline",
        "distill",
        "distill-verify",
        "rl",
        "train",
        "relabel",
        "card",
    }, "for want of an arm, a robot, data, checkpoints"
    assert "30 tries, seed 0: 0 ended" in done.stdout
