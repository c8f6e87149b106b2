"""A one-step student of the flow policy of rtc_seams.py, on LIBERO: from checkpoint to verdict, through the commands.

python tests/bench/distill.py                  training, verification, 100 paired episodes, the sweep over latency
python tests/bench/distill.py --only=verify    with the student that is there

Demonstrations of several minds (rtc_demos.py) make the teacher, which is in two minds itself: its chunks spread over
noises. The student learns from what the teacher sees in 160 episodes from initial states 0-39, and is verified and
tried from states 40-49, which neither has begun from. Everything is kept in outputs/bench/distill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rtc_demos import HELD_OUT, TASKS
from rtc_policy import trained

ROOT = Path(__file__).parents[2]
OUT = ROOT / "outputs" / "bench" / "distill"
TACTUS = [sys.executable, "-m", "tactus"]
TRAINING = ["--steps=8400", "--batch=1024", "--pairs=250000", "--learning_rate=0.003"]
DELAYS = (0, 2, 4, 6, 8)


def robot(states: list[int]) -> list[str]:
    words = ["--robot.suite=libero_object", "--robot.cameras=[]", "--robot.assets=primitive"]
    return [*words, f"--robot.tasks={TASKS}", f"--robot.init_states={states}"]


def run(*words: str) -> float:
    """A command, on one core; the seconds of it that it took. A student that fails its verification is told of, and
    kept."""
    begun_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("tactus", *words, flush=True)
    ended = subprocess.run([*TACTUS, *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if ended not in (0, 1):
        raise SystemExit(ended)
    done_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done_s.ru_utime + done_s.ru_stime - begun_s.ru_utime - begun_s.ru_stime


@contextlib.contextmanager
def served(policies: dict[str, Path]) -> Iterator[dict[str, str]]:
    """A `tactus serve` process for each; name -> endpoint."""
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = {name: f"ipc://{scratch}/{name}" for name in policies}
        for name, path in policies.items():
            words = [*TACTUS, "serve", f"--policy.path={path}", f"--connect={endpoints[name]}"]
            process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield endpoints


def distill(teacher: Path) -> None:
    shutil.rmtree(OUT / "run", ignore_errors=True)
    others = [state for state in range(50) if state not in HELD_OUT]
    words = [f"--policy.path={teacher}", *robot(others), "--rollouts=160", "--max_observations=20000"]
    spent_s = run("distill", *words, *TRAINING, f"--output_dir={OUT / 'run'}")
    print(f"from checkpoint to verdict: {spent_s / 60:.1f} minutes of a core", flush=True)


def verify(teacher: Path, trials: int) -> None:
    shutil.rmtree(OUT / "verify", ignore_errors=True)
    words = [str(teacher), str(OUT / "run" / "student"), *robot(HELD_OUT), "--rollouts=20", "--held_out=0.5"]
    run("distill", "verify", *words, f"--trials={trials}", "--first_trial=0", f"--output_dir={OUT / 'verify'}")
    found = json.loads((OUT / "verify" / "verify.json").read_text())["measures"]
    for error in found["errors"]:
        print(f"{error['steps']:2d} steps: error {100 * error['median']:.1f} %, of a number {error['absolute']:.3f} σ")
    ours, theirs = found["latency"]["chunk_ms"], found["teacher_latency"]["chunk_ms"]
    print(f"chunk: {ours:.2f} ms, the teacher's {theirs:.2f} ms: {theirs / ours:.1f}×")


def sweep(teacher: Path, episodes: int) -> None:
    shutil.rmtree(OUT / "sweep", ignore_errors=True)
    with served({"teacher": teacher, "student": OUT / "run" / "student"}) as endpoints:
        policies = ", ".join(f"{name}: {endpoint}" for name, endpoint in endpoints.items())
        words = [f"--sweep.policy={{{policies}}}", f"--sweep.latency=[{','.join(f'fixed:{d}' for d in DELAYS)}]"]
        words += ["--sweep.aggregate=[latest_only]", f"--episodes={episodes}", f"--output_dir={OUT / 'sweep'}"]
        run("eval", *words, *robot(HELD_OUT), "--failures=0", "--workers=2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["distill", "verify", "sweep"])
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher, _ = trained()
    if arguments.only in (None, "distill"):
        distill(teacher)
    if arguments.only in (None, "verify"):
        verify(teacher, arguments.episodes)
    if arguments.only in (None, "sweep"):
        sweep(teacher, arguments.episodes)


if __name__ == "__main__":
    main()
