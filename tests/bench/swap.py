"""Policies swapped at a policy node that drives four robots: ticks without an action, how long it takes, and memory.

    python tests/bench/swap.py [--swaps=50] [--robots=4] [--bare | --rude]

Two tiny ACT checkpoints with a picture each (11 million weights, resnet18's), robots of arithmetic in real time at
30 Hz, every one a process. --bare: the same without a swap, which is what the figures are held to. --rude: the thread
that loads does not give way to the policy, which is the known wrong variant.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
from processes import end, endpoint_of, start

from tactus.runtime.wire.swap import swap

CAMERA = {"observation.images.camera_0": (32, 32)}
FPS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--robots", type=int, default=4)
    parser.add_argument("--bare", action="store_true", help="no swap: as many seconds of waiting")
    parser.add_argument("--rude", action="store_true", help="the loading thread does not give way")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place), given.swaps, given.robots, given.bare, given.rude)


RUDE = """
import sys
from tactus.runtime.policy_node.swap import Swap
Swap._give_way = lambda *told: None
from tactus.runtime.commands import main
sys.exit(main(sys.argv[1:]))
"""
EVERY_S, EPISODE_S = 1.0, 10


def measure(folder: Path, swaps: int, robots: int, bare: bool, rude: bool) -> None:
    kinds = [
        checkpoints.act(folder / f"act{i}", images=CAMERA, state=7, chunk_size=30, n_action_steps=30, seed=i)
        for i in range(2)
    ]
    log = folder / "node.log"
    words = [f"--policy.path={kinds[0]}", "--policy.threads=1", "--swaps_from=anybody", "--connect=tcp://127.0.0.1:*"]
    if rude:
        with log.open("ab") as out:
            node = subprocess.Popen([sys.executable, "-c", RUDE, "serve", *words], stdout=out, stderr=out)
    else:
        node = start("serve", words, log)
    endpoint = endpoint_of(log)
    robot = ["--robot.type=synthetic", "--robot.cameras=1", "--robot.image_size=[32,32]", "--robot.steps=1000000000"]
    line = [*robot, f"--connect={endpoint}", "--episodes=100000", f"--max_ticks={EPISODE_S * FPS}"]
    runs = [start("run", [*line, f"--output_dir={folder / f'out{i}'}"], folder / f"run{i}.log") for i in range(robots)]
    try:
        time.sleep(12)  # until all are driven
        rss = [resident_mb(node.pid)]
        took = []
        began_s = time.monotonic()
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(1))  # what was started is ended
        for i in range(swaps):
            if not bare:
                policy = {"type": "lerobot", "path": str(kinds[(i + 1) % 2]), "threads": 1}
                found = swap(endpoint, policy, "", 120.0)
                took.append(found["took_s"])
                assert found["robots"] == robots, found
            time.sleep(max(0.0, began_s + (i + 1) * EVERY_S - time.monotonic()))
            rss.append(resident_mb(node.pid))
        elapsed_s = time.monotonic() - began_s
        time.sleep(EPISODE_S + 2)  # what happened in an episode is known when it is over
    finally:
        for run in runs:
            end(run)
        end(node)
    starved, ticks, latency = 0, 0, []
    print(f"{elapsed_s:.0f} s, {len(took)} swaps, {robots} robots at {FPS} Hz")
    if took:
        print(f"loading: median {statistics.median(took):.2f} s, longest {max(took):.2f} s")
    settled = rss[5:] if len(rss) > 10 else rss
    print(f"memory of the node: {rss[0]:.0f} MB before, {settled[0]:.0f} MB after 5, {rss[-1]:.0f} MB")
    for i in range(robots):
        file = folder / f"out{i}" / "summary.json"
        summary = json.loads(file.read_text())
        ticks, starved = ticks + summary["ticks"], starved + summary["starved_ticks"]
        latency.append(summary["round_trip_ms"])
    p50, p95 = (statistics.median(one[key] for one in latency) for key in ("p50", "p95"))
    print(f"{ticks} ticks, {starved} starved; round trip p50/p95 {p50:.0f}/{p95:.0f} ms")


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


if __name__ == "__main__":
    main()
