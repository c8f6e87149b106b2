"""Did the machine stand still? For tests of what happens in real time, which show nothing where it did.

A servo has 34 ms to answer, torque is off within 300 ms, a policy node is silent after 0.3 s. On two cores that are
shared, processes get no time for that long. So a process of its own wants to wake every few milliseconds and notes by
how much it was late; and the kernel tells, where it does, for how long somebody has waited for a core. A test marked
`realtime` that fails while either was too much is run again, at most TRIES times, and counted as `rerun`; one that
fails on a machine that had time for it has failed, and so has one that fails every time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PERIOD_S = 0.004
LATE_S = 0.012
"""From when on it counts: a third of what a servo has."""
TRIES = 3
PRESSURE = Path("/proc/pressure/cpu")
WAITED = 0.1
"""Share of a test's time in which somebody waited for a core, from which on it counts."""

WATCH = """
import select, sys, time
out = open(sys.argv[1], "w")
period, late = float(sys.argv[2]), float(sys.argv[3])
now = time.monotonic()
while not select.select([sys.stdin], [], [], period)[0]:  # ends with who started it
    before, now = now, time.monotonic()
    if now - before - period > late:
        print(before, now, file=out, flush=True)
"""


class Watch:
    """Watches from now on; `process` is the one that wants to wake."""

    def __init__(self, file: Path) -> None:
        self._file = file
        words = [sys.executable, "-S", "-c", WATCH, str(file), str(PERIOD_S), str(LATE_S)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE)
        while not file.exists() and self.process.poll() is None:
            time.sleep(PERIOD_S)
        self.begin()

    def begin(self) -> None:
        """A test begins."""
        self._since_s, self._waited_s = time.monotonic(), _waited_s()

    def stood_still(self) -> bool:
        """Since the test began, or had to wait for a core."""
        if _waited_s() - self._waited_s > WAITED * (time.monotonic() - self._since_s):
            return True
        time.sleep(2 * PERIOD_S + LATE_S)  # it may be standing still right now
        spans = [line.split() for line in self._file.read_text().splitlines()]
        return any(float(until_s) > self._since_s for _, until_s in spans)

    def end(self) -> None:
        """Of the session."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(5)


def _waited_s() -> float:
    """For how long, in all, somebody has waited for a core on this machine; 0 where the kernel does not tell."""
    try:
        some = PRESSURE.read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


WATCHES: list[Watch] = []


def pytest_sessionstart() -> None:
    WATCHES.append(Watch(Path(tempfile.mkdtemp(prefix="standstill")) / "late"))


def pytest_sessionfinish() -> None:
    WATCHES.pop().end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.flaky(reruns=TRIES - 1, condition=lambda: WATCHES[-1].stood_still()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    WATCHES[-1].begin()
