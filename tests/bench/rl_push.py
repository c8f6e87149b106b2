"""Practice on the planar push, the task that fits in a minute: seeds, controls, a learning rate ten times too high.

    PYTHONPATH=$PWD taskset -c 0 .venv/bin/python tests/bench/rl_push.py
    PYTHONPATH=$PWD taskset -c 0 .venv/bin/python tests/bench/rl_push.py --methods=flow_noise --seeds=0,1,2,3,4

From one base (examples/push_base.py, seed 0); learner, policy node and worker share one core. 200 held-out initial
states for the base and the end, nothing chosen by them. The control learns from as many rollouts, whose successes are
dealt out anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
BASE, RUNS = ROOT / "outputs" / "push_base", ROOT / "outputs" / "bench" / "rl" / "push"
PRACTICE = ["--practice.train_states=200", "--practice.states=24", "--practice.rollouts=8", "--practice.held_out=200"]
ITERATIONS = {"filtered": 6, "flow_noise": 30, "flow_sde": 30, "noise": 30}
KINDS: dict[str, list[str]] = {
    "practice": [],
    "control": ["--practice.shuffle_rewards=true"],
    "rate x 10": ["--practice.learning_rate=1e-2"],
}


def practise(method: str, seed: int, kind: str) -> dict[str, Any]:
    folder = RUNS / f"{method}_{seed}_{kind.replace(' ', '')}"
    shutil.rmtree(folder, ignore_errors=True)
    words = [
        sys.executable,
        "-m",
        "tactus",
        "rl",
        "--robot.type=push",
        f"--policy.path={BASE}",
        "--chunk_size_threshold=0",
    ]
    words += [
        *PRACTICE,
        f"--practice.method={method}",
        f"--practice.seed={seed}",
        "--practice.eval_every=0",
        *KINDS[kind],
    ]
    words += [f"--practice.iterations={ITERATIONS[method]}", f"--output_dir={folder}"]
    began_s = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ends = [line["evaluation"] for line in (lines[0], lines[-1])]
    return {
        "rates": [100 * one["successes"] / one["episodes"] for one in ends],
        "minutes": (time.monotonic() - began_s) / 60,
        "rollouts": sum(line.get("rollouts", 0) for line in lines),
        "refused": sum(line.get("refused", 0) for line in lines),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="filtered,flow_noise")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    if not (BASE / "config.json").is_file():
        subprocess.run([sys.executable, ROOT / "examples" / "push_base.py", BASE], check=True)
    print("| method | | seeds | rollouts | minutes, at most | before | after, each seed | median | steps refused |")
    print("|---|---|---|---|---|---|---|---|---|")
    for method in given.methods.split(","):
        for kind in given.kinds.split(","):
            if kind == "rate x 10" and method == "filtered":
                continue  # it has no KL limit
            found = [practise(method, seed, kind) for seed in map(int, given.seeds.split(","))]
            ends = [one["rates"][1] for one in found]
            print(
                f"| {method} | {kind} | {len(found)} | {found[0]['rollouts']} "
                f"| {max(one['minutes'] for one in found):.1f} "
                f"| {found[0]['rates'][0]:.0f} % | {', '.join(f'{end:.0f}' for end in ends)} | {median(ends):.0f} % "
                f"| {sum(one['refused'] for one in found):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
