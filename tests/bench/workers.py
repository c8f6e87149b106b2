"""Episodes per hour of one worker and of two, on LIBERO with the policy that ships.

python tests/bench/workers.py              no pictures
python tests/bench/workers.py --images     the scripted expert, which asks for both pictures with every observation

The rate counts from the first finished episode to the last but a few, while all workers have work: starting a
simulator takes each worker seconds, once. All
runs play the same episodes, and must end the same way. What two processes that only compute get out of this machine,
against one, is measured before and after.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(workers: int, episodes: int, options: list[str], folder: Path) -> tuple[float, float, list[str]]:
    """Episodes per hour between the first and the last one, wall time in s of all of it, and the episodes, sorted."""
    command = [
        "bash",
        "launch/sim.sh",
        "--policy=learned_state",
        f"--workers={workers}",
        f"--episodes={episodes}",
        f"--output_dir={folder}",
    ]
    started_s = time.monotonic()
    process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file, moments = folder / "episodes.jsonl", [0.0] * 0
    while process.poll() is None:
        finished = file.read_text().count("\n") if file.exists() else 0
        moments += [time.monotonic()] * (finished - len(moments))
        time.sleep(0.02)
    assert process.returncode == 0, f"{command} failed"
    steady = moments[: episodes - workers]  # at the end one worker waits for the other
    rate = (len(steady) - 1) / (steady[-1] - steady[0]) * 3600
    return rate, time.monotonic() - started_s, sorted(file.read_text().splitlines())


COMPUTE = """
import time
end, n = time.perf_counter() + 8, 0
while time.perf_counter() < end:
    n += sum(range(999)) > 0
print(n)
"""


def bare() -> float:
    """How much two computing processes get done, against one."""

    def done(count: int) -> int:
        processes = [subprocess.Popen([sys.executable, "-c", COMPUTE], stdout=subprocess.PIPE) for _ in range(count)]
        return sum(int(process.communicate()[0]) for process in processes)

    one = done(1)
    return done(2) / one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--tasks", default="[0,1]")
    parser.add_argument("--images", action="store_true")
    arguments = parser.parse_args()
    options = [f"--robot.tasks={arguments.tasks}", "--latency=fixed:2"]
    options += ["--policy=expert", "--policy.images=true"] if arguments.images else ["--robot.cameras=[]"]
    found = {}
    print(f"two bare processes against one: {bare():.2f}×", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for workers in (1, 2):
            found[workers] = run(workers, arguments.episodes, options, Path(scratch) / str(workers))
            rate, wall_s, _ = found[workers]
            print(
                f"{workers} worker{'s' * (workers > 1):1s} {rate:8.0f} episodes/h   {wall_s:6.1f} s in all", flush=True
            )
    print(f"two bare processes against one: {bare():.2f}×")
    print(f"two workers against one: {found[2][0] / found[1][0]:.2f}×; the same episodes: {found[1][2] == found[2][2]}")


if __name__ == "__main__":
    main()
