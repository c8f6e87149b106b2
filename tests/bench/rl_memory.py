"""Memory of learner, policy node and workers over hours of practice: MB an hour, by a straight line after the warm-up.

    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_memory.py --policy=outputs/push_base --minutes=120

`tactus rl` on the planar push with a policy node and two workers; each process's own memory (PSS) every ten seconds.
Exit status 1 if any of them grows by more than 20 MB an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WARM = 0.25
"""Share of the time that is not looked at: libraries fill their caches."""
LIMIT_MB_H = 20.0


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def family(pid: int) -> dict[int, str]:
    """The practice and its children, by what they are."""
    found = {pid: "learner"}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                line = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if parent == pid and "tactus.runtime.rl" in line:
                found[int(entry.name)] = "node" if "policy_process" in line else f"worker {entry.name}"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--output_dir", default="outputs/bench/rl/memory")
    given = parser.parse_args()
    words = [sys.executable, "-m", "tactus", "rl", "--robot.type=push", f"--policy.path={given.policy}", "--workers=2"]
    words += ["--practice.method=flow_noise", "--practice.iterations=1000000", f"--output_dir={given.output_dir}"]
    words += ["--chunk_size_threshold=0"]
    with Path("/dev/null").open("w") as nothing:
        process = subprocess.Popen(words, stdout=nothing, stderr=nothing)
    began_s = time.monotonic()
    seen: dict[str, list[tuple[float, float]]] = {}
    try:
        while (hours := (time.monotonic() - began_s) / 3600) < given.minutes / 60 and process.poll() is None:
            for pid, name in family(process.pid).items():
                try:
                    seen.setdefault(name, []).append((hours, pss_mb(pid)))
                except (OSError, StopIteration):
                    continue
            time.sleep(10)
        assert process.poll() is None, "the practice ended"
    finally:
        process.terminate()
        process.wait()
    worst = 0.0
    iterations = sum(1 for _ in (Path(given.output_dir) / "metrics.jsonl").open())
    print(
        f"{given.minutes:g} minutes, {iterations} iterations\n| process | MB in the end | MB an hour |\n|---|---|---|"
    )
    for name, points in seen.items():
        at, mb = np.array([point for point in points if point[0] > WARM * given.minutes / 60]).T
        slope = float(np.polyfit(at, mb, 1)[0])
        worst = max(worst, slope)
        print(f"| {name.split()[0]} | {mb[-1]:.0f} | {slope:+.1f} |")
    return int(worst > LIMIT_MB_H)


if __name__ == "__main__":
    sys.exit(main())
