"""How long until a policy is served and a first action is made: seconds on the clock, and of all CPUs, side by side.

python tests/bench/startup.py [--rounds=3]

`import torch` is the least that a policy of torch can take. The ordinary import order is the same policy after all of
`lerobot.policies` has been imported. The cases take turns within a round; printed are the medians.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVE = ["serve", "--policy.type=learned", "--connect=tcp://127.0.0.1:*"]
ORDINARY = f"import sys, lerobot.policies; from tactus.runtime.commands import main; sys.exit(main({SERVE!r}))"
SIM = ["bash", str(ROOT / "launch" / "sim.sh"), "--episodes=1", "--robot.assets=primitive", "--log_format=json"]
CASES: dict[str, tuple[list[str], str]] = {
    "import torch": ([sys.executable, "-c", "import torch"], ""),
    "tactus serve, ordinary import order": ([sys.executable, "-c", ORDINARY], " at tcp://"),
    "tactus serve": ([sys.executable, "-m", "tactus", *SERVE], " at tcp://"),
    "launch/sim.sh, first answer": (SIM, "ms from"),
}
"""What to run, and what it says when it is ready; nothing: at its end. launch/sim.sh says it in its latency trace."""


def main() -> None:
    rounds = int(sys.argv[1].partition("=")[2]) if len(sys.argv) > 1 else 3
    ready: dict[str, list[float]] = {name: [] for name in CASES}
    cpu: dict[str, list[float]] = {name: [] for name in CASES}
    whole: list[float] = []
    for _ in range(rounds):
        for name, (command, words) in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                ready_s, whole_s, cpu_s = measure(command, words, folder)
            ready[name].append(ready_s)
            cpu[name].append(cpu_s)
            if command is SIM:
                whole.append(whole_s)
    base = statistics.median(cpu["import torch"])
    for name in CASES:
        spent = statistics.median(cpu[name])
        print(f"{name:36s} {statistics.median(ready[name]):6.2f} s   CPUs {spent:6.2f} s   {spent / base:5.2f} x torch")
    print(f"{'… to its end':36s} {statistics.median(whole):6.2f} s")


def measure(command: list[str], words: str, folder: str) -> tuple[float, float, float]:
    """Seconds until it says `words`, until its end, and of the CPUs; a node that serves is ended once it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    before, started_s = cpu_s(), time.perf_counter()
    trace, log = Path(folder) / "answers.trace", Path(folder) / "log"
    if command is SIM:
        command = [*command, f"--latency_trace={trace}", f"--output_dir={folder}/results"]
    said = trace if "sim.sh" in str(command) else log
    ready_s = None
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out)
        while process.poll() is None:
            if ready_s is None and words and said.exists() and any(is_ready(words, said)):
                ready_s = time.perf_counter() - started_s
                if said is log:
                    process.terminate()
            time.sleep(0.01)
    whole_s = time.perf_counter() - started_s
    assert ready_s is not None or not words, f"{command} never said {words!r}"
    return ready_s or whole_s, whole_s, cpu_s() - before


def is_ready(words: str, said: Path) -> list[bool]:
    """Of each line, whether it says that it is ready: `words`, or in a trace an answer after the words."""
    lines = said.read_text().splitlines()
    return [bool(line) and not line.startswith("#") for line in lines] if said.suffix else [words in x for x in lines]


def cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    main()
