"""Practice on LIBERO from the two bases of rl_bases.py: every method beside its control, at the same rollouts.

    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_libero.py --base=object --methods=filtered --seeds=0,1,2
    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_libero.py --table
    PYTHONPATH=$PWD .venv/bin/python tests/bench/rl_libero.py --kinds=outputs/bench/rl/runs/object_filtered_0/last

Each run is `tactus rl` on initial states 0 … 24, held to 25 … 49 with four noises each (n = 100), for its base and for
the weights that it ends with: nothing is chosen by its held-out success. The control learns from the same number of
rollouts, whose successes are dealt out anew. Runs that are there are not repeated. Needs the bases (rl_bases.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rl_bases import BASES, FOLDER, HELD_OUT, TRAINING, _tell, rollouts
from rl_demos import libero

from tactus.hal.config import decode
from tactus.policies.policy import PolicyConfig
from tactus.runtime.statistics import wilson

RUNS = FOLDER / "runs"
PRACTICE = [
    "--practice.train_states=25",
    "--practice.states=25",
    "--practice.rollouts=4",
    "--practice.held_out=25",
    "--practice.eval_rollouts=4",
    "--practice.eval_every=0",
]
METHODS: dict[str, list[str]] = {
    "filtered": [],
    "flow_noise": ["--practice.iterations=8"],
    "flow_sde": ["--practice.iterations=8"],
    "noise": ["--practice.iterations=8"],
}


LONG = {"object": ["--practice.iterations=20", "--practice.steps=800"], "spatial": ["--practice.iterations=14"]}
"""Of `filtered`, by base: as long as it goes on."""


def name_of(base: str, method: str, seed: int, control: bool, latency: str) -> str:
    return "_".join([base, method, str(seed), *(["control"] if control else []), *([latency] if latency else [])])


def practise(base: str, method: str, seed: int, control: bool, workers: int, latency: str) -> None:
    made, folder = BASES[base], RUNS / name_of(base, method, seed, control, latency.replace(":", "-"))
    if (folder / "report.html").is_file():
        return
    words = [sys.executable, "-m", "tactus", "rl", "--robot.type=libero", f"--robot.suite={made.suite}"]
    words += [f"--robot.tasks=[{made.task}]", "--robot.assets=primitive", "--robot.cameras=[]"]
    words += [f"--robot.max_steps={made.max_steps}", f"--policy.path={FOLDER / 'bases' / base}", *PRACTICE]
    words += [
        f"--practice.method={method}",
        f"--practice.seed={seed}",
        f"--output_dir={folder}",
        f"--workers={workers}",
    ]
    words += [f"--practice.shuffle_rewards={str(control).lower()}", "--chunk_size_threshold=0", *METHODS[method]]
    words += LONG[base] if method == "filtered" else []
    words += [f"--latency={latency}"] if latency else []
    words += ["--resume"] if folder.is_dir() else []
    began_s = time.monotonic()
    print(f"{folder.name} …", flush=True)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (RUNS / "minutes.jsonl").open("a") as out:
        out.write(
            json.dumps(
                {"name": folder.name, "minutes": round((time.monotonic() - began_s) / 60, 2), "workers": workers}
            )
            + "\n"
        )
    print(f"{folder.name}: {told(read(folder))}", flush=True)


def read(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    held_out = [line["evaluation"] for line in lines if line.get("evaluation")]
    played = sum(line.get("rollouts", 0) for line in lines)
    seconds = [json.loads(line)["seconds"] for line in (folder / "timings.jsonl").read_text().splitlines()]
    minutes = sum(sum(v for k, v in one.items() if k != "workers") for one in seconds) / 60
    return {"base": held_out[0], "end": held_out[-1], "rollouts": played, "minutes": minutes}


def told(found: dict[str, Any]) -> str:
    sides = [f"{one['successes']} of {one['episodes']}" for one in (found["base"], found["end"])]
    return f"{sides[0]} -> {sides[1]} held out, {found['rollouts']} rollouts, {found['minutes']:.1f} min"


def table() -> None:
    """A line for each base, method, latency and control, over its seeds."""
    runs: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for file in sorted(RUNS.glob("*/report.html")):
        about = json.loads((file.parent / "practice.json").read_text())
        settings = about["settings"]
        base = file.parent.name.partition("_")[0]
        key = (base, settings["method"], settings["latency"], "control" if settings["shuffle_rewards"] else "")
        runs.setdefault(key, []).append(read(file.parent))
    print("| base | method | latency | seeds | rollouts | minutes | before | after, each seed | after, mean |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (base, method, latency, control), found in runs.items():
        ends = [one["end"]["successes"] for one in found]
        count = sum(one["end"]["episodes"] for one in found)
        low, high = wilson(sum(ends), count)
        before, minutes = found[0]["base"], max(one["minutes"] for one in found)
        print(
            f"| {base} | {method} {control} | {latency} | {len(found)} | {found[0]['rollouts']} | {minutes:.1f} "
            f"| {before['successes']} of {before['episodes']} | {', '.join(map(str, ends))} "
            f"| {100 * sum(ends) / count:.0f} % [{100 * low:.0f}, {100 * high:.0f}] |"
        )


def kinds(policy: Path) -> None:
    """Kinds of failure of a checkpoint, held out."""
    made = BASES["spatial" if "spatial" in str(policy) else "object"]
    robot = libero(made.suite, made.task, made.max_steps, [*TRAINING, *HELD_OUT])
    _tell(
        f"{policy}, at most {made.max_steps} ticks",
        rollouts(robot, decode(PolicyConfig, {"path": str(policy)}).make(), HELD_OUT, 4),
    )
    robot.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=[*BASES])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", choices=["practice", "control"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--latency", default="", help="of practice and evaluation, e.g. fixed:6")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--kinds", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.kinds is not None:
        kinds(given.kinds)
    for base in [] if given.table or given.kinds else [given.base] if given.base else BASES:
        for method in given.methods.split(","):
            for seed in map(int, given.seeds.split(",")):
                for control in {"practice": [False], "control": [True]}.get(given.only, [False, True]):
                    practise(base, method, seed, control, given.workers, given.latency)
    if given.table:
        table()


if __name__ == "__main__":
    main()
