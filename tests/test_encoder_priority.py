"""The video encoder does not run before a robot's control loop, whoever runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow]

WRITES = """
import os, sys, threading
sys.path.insert(0, sys.argv[2])
import tactus.runtime.recording.encoder_priority as priority
if sys.argv[1] == "as it is":
    priority.give_up_real_time = lambda: None
    import datasets_made
    datasets_made.give_up_real_time = lambda: None
import datasets_made
from pathlib import Path
def write():
    datasets_made.write(Path(sys.argv[3]), cameras={"image": (64, 96)}, video=True, episodes=1)
    found.append(os.sched_getscheduler(0))
found = []
thread = threading.Thread(target=write)
thread.start()
thread.join()
print(*found, os.sched_getscheduler(0))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give itself real-time priority")
@pytest.mark.parametrize(
    ("how", "policy"), [("given up", os.SCHED_OTHER), pytest.param("as it is", os.SCHED_FIFO, marks=pytest.mark.long)]
)
def test_the_thread_that_encodes_stays_ordinary(how: str, policy: int, tmp_path: Path) -> None:
    """The second case is the control: without it, LeRobot's encoder takes the highest real-time priority there is."""
    command = [sys.executable, "-c", WRITES, how, str(Path(__file__).parent), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    encoder, main = map(int, done.stdout.split()[-2:])
    assert encoder == policy and main == os.SCHED_OTHER
