"""Tests that are about real time get another try where the machine took it from them, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from standstill import TRIES

TESTS = Path(__file__).parent

INNER = """
import signal, time
from pathlib import Path
import pytest, standstill

def play(name, still, enough):
    file = Path(__file__).with_name(name)
    tries = len(file.read_text()) + 1 if file.exists() else 1
    file.write_text("x" * tries)
    if standstill.WATCHES[-1].process.poll() is not None:
        standstill.WATCHES[-1] = standstill.Watch(file.with_suffix(f".{tries}"))
    watch = standstill.WATCHES[-1]
    standstill.WAITED = 1e9  # others may be at work here
    if tries <= still:
        watch.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        watch.process.send_signal(signal.SIGCONT)
    else:  # nothing is noticed from here on, whatever this machine does
        watch.process.kill()
        watch.process.wait()
    assert tries >= enough
"""


@pytest.mark.slow
def test_who_is_run_again(tmp_path: Path) -> None:
    cases = {  # name: (mark, tries in which the machine stands still, the first try that passes, tries seen)
        "always_still": ("realtime", 9, 9, TRIES),
        "not_about_time": ("slow", 9, 2, 1),
        "still_once": ("realtime", 1, 2, 2),
        "still_but_wrong": ("realtime", 1, 3, 2),
        "wrong": ("realtime", 0, 2, 1),
        "right": ("realtime", 0, 1, 1),
    }
    tests = [
        f'@pytest.mark.{mark}\ndef test_{name}():\n    play("{name}", {still}, {enough})\n'
        for name, (mark, still, enough, _) in cases.items()
    ]
    (tmp_path / "test_it.py").write_text(INNER + "\n".join(tests))
    words = [sys.executable, "-m", "pytest", "-p", "standstill", "-W", "ignore", "-n0", "-rA", "--tb=no"]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert {name: len((tmp_path / name).read_text()) for name in cases} == {n: case[3] for n, case in cases.items()}
    passed = {name for name in cases if f"PASSED test_it.py::test_{name}" in done.stdout}
    assert passed == {"still_once", "right"}, done.stdout
