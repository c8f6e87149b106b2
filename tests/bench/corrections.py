"""Whether learning from corrections raises success, beside the same steps on demonstrations alone, on the emulated arm.

    python tests/bench/corrections.py [--folder=outputs/corrections] [--demonstrations=60] [--steps=2500]
        [--corrected=120] [--patience_s=8] [--more_steps=1000] [--correction_weight=4] [--own_weight=0] [--episodes=300]

In virtual time, latency fixed:2. A policy that has seen few demonstrations of the script (both cameras, no poses)
drives, and a scripted person takes over where the cube slips or is not lifted. From its weights, for as many steps:
`demonstrations`, on what it knows already, which is the control; `corrected`, on the demonstrations and what the person
did; and `more`, on as many frames of further demonstrations as the person's are, which says whether it matters where
they begin. Each is evaluated on seeds nobody has recorded. What is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tactus.runtime.statistics import wilson

ROOT = Path(__file__).parents[2]
ROBOT = ["--robot.type=twin", "--robot.image_size=[96,128]", "--robot.max_steps=600"]
SCRIPT = ["--policy=picker", "--policy.vision=false", "--policy.commit=0", "--latency=fixed:0"]
PERSON = [
    "--intervene",
    "--teleop.type=scripted",
    "--teleop.policy.type=picker",
    "--teleop.policy.commit=0",
]
KEPT = ["--dataset_video=false", "--dataset_action=requested"]
SHAPE = "policy.told_dims: [0, 1, 2], policy.chunk_size: 30, policy.n_action_steps: 15"
CHECKPOINT = "training/checkpoints/last/pretrained_model"


def run(words: list[str], log: Path, threads: int = 1) -> None:
    print(f"{log.stem} …", file=sys.stderr, flush=True)
    with log.open("ab") as out:
        more = {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(words, check=True, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, **more})


def record(folder: Path, name: str, words: list[str]) -> Path:
    to = folder / name
    if not (folder / f"{name}.results" / "summary.json").exists():
        places = [f"--dataset_root={to}", f"--output_dir={folder / f'{name}.results'}"]
        run(["bash", "launch/sim.sh", "record", *ROBOT, *words, *KEPT, *places], folder / f"{name}.log")
    return to


def train(folder: Path, name: str, recordings: list[Path], steps: int, keys: str, more: list[str]) -> Path:
    to = folder / name
    if not (to / CHECKPOINT / "README.md").exists():
        words = [f"--dataset_root=[{','.join(map(str, recordings))}]", f"--steps={steps}", f"--output_dir={to}"]
        words += ["--precision=bfloat16", f"--lerobot={{{keys}}}", *more]
        run([sys.executable, "-m", "tactus", "train", *words], folder / f"{name}.train.log", threads=2)
    return to / CHECKPOINT


def evaluate(folder: Path, name: str, policy: Path, episodes: int) -> None:
    to = folder / f"{name}.held_out"
    if not (to / "summary.json").exists():
        words = [f"--policy.path={policy}", "--latency=fixed:2", f"--episodes={episodes}", "--seed=1000"]
        run(["bash", "launch/sim.sh", *ROBOT, *words, f"--output_dir={to}"], folder / f"{name}.held_out.log")
    rows = [json.loads(line) for line in (to / "episodes.jsonl").read_text().splitlines()]
    won = sum(row["success"] for row in rows)
    low, high = wilson(won, len(rows))
    print(f"{name}: {won} of {len(rows)}, {won / len(rows):.0%} [{100 * low:.0f}, {100 * high:.0f}]", flush=True)


def frames(recording: Path) -> int:
    return json.loads((recording / "meta" / "info.json").read_text())["total_frames"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/corrections"))
    for key, value in (("demonstrations", 60), ("steps", 2500), ("corrected", 120), ("more_steps", 1000)):
        parser.add_argument(f"--{key}", type=int, default=value)
    for key, value in (("patience_s", 8.0), ("correction_weight", 4.0), ("own_weight", 0.0)):
        parser.add_argument(f"--{key}", type=float, default=value)
    parser.add_argument("--episodes", type=int, default=300)
    given = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    shown = [*SCRIPT, "--chunk_size_threshold=1", "--successful_only"]
    demonstrations = record(folder, "demonstrations", [*shown, f"--episodes={given.demonstrations}", "--seed=7000"])
    begin = train(folder, "before", [demonstrations], given.steps, SHAPE, [])
    evaluate(folder, "before", begin, given.episodes)
    words = [f"--policy.path={begin}", "--latency=fixed:2", *PERSON, f"--teleop.patience_s={given.patience_s:g}"]
    words += [f"--episodes={given.corrected}", "--seed=9000"]
    corrected = record(folder, "corrected", words)
    rows = [json.loads(r) for r in (folder / "corrected.results/episodes.jsonl").read_text().splitlines()]
    taken = [end - begin for row in rows for begin, end in row["interventions"]]
    print(f"{len(rows)} attempts, {len(taken)} interventions, {sum(taken)} of {frames(corrected)} frames a person's")
    keys = f"{SHAPE}, policy.optimizer_lr: 3.e-4"
    weights = [f"--correction_weight={given.correction_weight:g}", f"--own_weight={given.own_weight:g}"]
    arms = {
        "demonstrations": ([demonstrations], []),
        "corrected": ([demonstrations, corrected], weights),
        "more": ([demonstrations, folder / "more"], []),
    }
    for name, (recordings, weight) in arms.items():
        if name == "more":
            further = round(given.demonstrations * sum(taken) / frames(demonstrations))
            more = record(folder, "more", [*shown, f"--episodes={further}", "--seed=11000"])
            print(f"{frames(demonstrations)} frames of demonstrations, {frames(more)} of further ones")
        policy = train(folder, f"after_{name}", recordings, given.more_steps, keys, [f"--begin_with={begin}", *weight])
        evaluate(folder, f"after_{name}", policy, given.episodes)


if __name__ == "__main__":
    main()
