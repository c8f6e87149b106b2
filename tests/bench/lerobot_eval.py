"""Episodes an hour: `tactus eval` against LeRobot 0.6.1's evaluation, the same policy on the same LIBERO episodes.

    python tests/bench/lerobot_eval.py                     2 tasks, 2 initial states each, n_action_steps 10 and 50
    python tests/bench/lerobot_eval.py --assets=auto       the same on $LIBERO_ASSETS

LeRobot's side is its own make_env, processors and eval_policy_all in a process of its own, as lerobot-eval calls them
(one environment at a time, which is what its batch size comes to on 2 cores), but with max_episodes_rendered=0:
lerobot-eval films the first ten episodes of every task and cannot be told not to. Ours is what a user types: `tactus
serve` and `tactus eval --latency=fixed:0 --chunk_size_threshold=0`. Both have one torch thread and two cameras at 256²,
rendered on the CPU: by LeRobot's environment at every step, by ours when the policy is asked.

The policy is lerobot_eval_policy.py's; weights are kept in outputs/bench/lerobot_eval. It knows the first two
initial states of each task by heart, and no others. Whether the episodes are the same is checked to the bit.

episodes/h      of the evaluation alone, building environments included
whole command   the same, with Python's imports and loading the policy
CPU             user and system time of all processes, whole command: less sensitive to what else the machine does
reset … rest    wall seconds of an episode. reset and step without rendering; inference with the wire and, at LeRobot,
                without its processors, which are in rest. With --workers, of all workers together, and without rest
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
SEED = 1000
PARTS = ("reset", "step", "render", "inference", "rest")


@dataclass(frozen=True)
class Experiment:
    suite: str
    tasks: list[int]
    turns: int
    assets: str
    policy: str
    n_action_steps: int

    @property
    def episodes(self) -> int:
        return len(self.tasks) * self.turns


@dataclass
class Episode:
    """actions: SHA-256 of what was executed."""

    success: bool
    ticks: int
    actions: str


@dataclass
class Run:
    """episodes: by task and initial state. spent_s: by PARTS, of all episodes."""

    episodes: dict[tuple[int, int], Episode]
    elapsed_s: float
    spent_s: dict[str, float]
    whole_s: float = 0.0
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.spent_s["rest"] = max(0.0, self.elapsed_s - sum(self.spent_s.values()))


@dataclass
class Stopwatch:
    """Wall time by part; what a call inside another one takes is not counted twice."""

    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS[:-1], 0.0))
    _inside_s: list[float] = field(default_factory=lambda: [0.0])

    def around(self, owner: Any, name: str, part: str, before: Callable[..., None] = lambda *_: None) -> None:
        """Time calls of owner.name. before: is told their arguments."""
        call = getattr(owner, name)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            before(*args)
            started_s = time.perf_counter()
            self._inside_s.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took_s = time.perf_counter() - started_s
                self.spent_s[part] += took_s - self._inside_s.pop()
                self._inside_s[-1] += took_s

        setattr(owner, name, timed)


def lerobot_eval(experiment: Experiment, output: Path) -> None:
    """In a process of its own: what lerobot-eval's main does, with a stopwatch. Writes `output`."""
    import torch

    from tactus.hal.libero import LiberoConfig

    torch.set_num_threads(1)
    LiberoConfig(experiment.suite, assets=experiment.assets).make()  # tells LIBERO where its assets are
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import libero, make_env, make_env_pre_post_processors
    from lerobot.envs.configs import LiberoEnv
    from lerobot.policies import get_policy_class, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import eval_policy_all
    from lerobot.utils.random_utils import set_seed
    from robosuite.utils.binding_utils import MjSim

    actions: dict[tuple[int, int], list[np.ndarray]] = {}

    def begin(env: Any, *_: Any) -> None:
        env.bench_actions = actions[env.task_id, env.init_state_id] = []

    watch = Stopwatch()
    watch.around(MjSim, "render", "render")
    watch.around(libero.LiberoEnv, "reset", "reset", begin)
    watch.around(libero.LiberoEnv, "step", "step", lambda env, action: env.bench_actions.append(action.copy()))

    config: Any = PreTrainedConfig.from_pretrained(
        experiment.policy, cli_overrides=[f"--n_action_steps={experiment.n_action_steps}"]
    )
    set_seed(SEED)
    env_config = LiberoEnv(experiment.suite, task_ids=experiment.tasks, observation_height=256, observation_width=256)
    envs = make_env(env_config, n_envs=1)
    policy = get_policy_class(config.type).from_pretrained(experiment.policy, config=config)
    watch.around(policy, "select_action", "inference")
    before, after = make_pre_post_processors(config, pretrained_path=experiment.policy)
    env_before, env_after = make_env_pre_post_processors(env_config, config)
    with torch.no_grad():
        info = eval_policy_all(
            envs,
            policy,
            env_before,
            env_after,
            before,
            after,
            n_episodes=experiment.turns,
            max_episodes_rendered=0,
            start_seed=SEED,
        )
    successes = {task["task_id"]: task["metrics"]["successes"] for task in info["per_task"]}
    episodes = [
        [*key, successes[key[0]][key[1]], len(taken), hashlib.sha256(b"".join(a.tobytes() for a in taken)).hexdigest()]
        for key, taken in actions.items()
    ]
    run = {"episodes": episodes, "elapsed_s": info["overall"]["eval_s"], "spent_s": watch.spent_s}
    output.write_text(json.dumps(run))


def tactus(*arguments: str) -> list[str]:
    """The command line of a subcommand."""
    return [sys.executable, "-m", "tactus", *arguments]


def environment() -> dict[str, str]:
    """For child processes: one thread each for numbers, no hub, no warnings."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def theirs(experiment: Experiment, scratch: Path) -> Run:
    scratch.mkdir()
    command = [sys.executable, __file__, "--lerobot", json.dumps(asdict(experiment)), str(scratch / "run.json")]
    with (scratch / "log").open("w") as log:
        if subprocess.run(command, cwd=ROOT, env=environment(), stdout=log, stderr=log).returncode:
            raise SystemExit(f"LeRobot's evaluation failed:\n{(scratch / 'log').read_text()[-2000:]}")
    run = json.loads((scratch / "run.json").read_text())
    episodes = {(task, turn): Episode(*rest) for task, turn, *rest in run["episodes"]}
    return Run(episodes, run["elapsed_s"], run["spent_s"])


def ours(experiment: Experiment, scratch: Path, workers: str | None) -> Run:
    scratch.mkdir()
    connect = f"--connect=ipc://{scratch}/node"
    serve = ["serve", connect, f"--policy.path={experiment.policy}", "--policy.threads=1"]
    serve += [f"--policy.n_action_steps={experiment.n_action_steps}"]
    states = [*range(experiment.turns)]
    evaluate = ["eval", connect, f"--robot.suite={experiment.suite}", f"--robot.assets={experiment.assets}"]
    evaluate += [f"--robot.tasks={experiment.tasks}".replace(" ", ""), f"--robot.init_states={states}".replace(" ", "")]
    evaluate += [f"--episodes={experiment.episodes}", f"--seed={SEED}", "--latency=fixed:0", "--chunk_size_threshold=0"]
    evaluate += [f"--output_dir={scratch}/run"]
    evaluate += [f"--workers={workers}"] if workers else []
    with (scratch / "log").open("w") as log:
        node = subprocess.Popen(tactus(*serve), cwd=ROOT, env=environment(), stdout=log, stderr=log)
        try:
            status = subprocess.run(tactus(*evaluate), cwd=ROOT, env=environment(), stdout=log, stderr=log).returncode
        finally:
            node.terminate()
            node.wait()
    if status:
        raise SystemExit(f"tactus eval failed:\n{(scratch / 'log').read_text()[-2000:]}")
    folder = scratch / "run"
    episodes, spent_s = {}, dict.fromkeys(PARTS[:-1], 0.0)
    for line in (folder / "episodes.jsonl").read_text().splitlines():
        row = json.loads(line)
        key = row["task_id"], row["init_state"]
        episodes[key] = Episode(row["success"], row["ticks"], row["actions_sha256"])
    for line in (folder / "timings.jsonl").read_text().splitlines():
        spent = json.loads(line)["spent_s"]
        for part, name in zip(PARTS, ("reset", "act", "observe", "link"), strict=False):
            spent_s[part] += spent[name]
    return Run(episodes, json.loads((folder / "summary.json").read_text())["elapsed_s"], spent_s)


def measured(work: Callable[[], Run]) -> Run:
    """A run with the wall and CPU time of the whole command."""
    used, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run = work()
    run.whole_s = time.monotonic() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    run.cpu_s = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return run


def show(experiment: Experiment, runs: dict[str, Run]) -> None:
    print(f"\nn_action_steps {experiment.n_action_steps}, {experiment.episodes} episodes, s per episode:")
    print(f"{'':10s}{'episodes/h':>11s}{'whole command':>15s}{'CPU':>8s}" + "".join(f"{p:>11s}" for p in PARTS))
    count = experiment.episodes
    for name, run in runs.items():
        parts = "".join(f"{run.spent_s[part] / count:11.2f}" for part in PARTS)
        hourly = f"{3600 * count / run.elapsed_s:11.0f}{3600 * count / run.whole_s:15.0f}"
        print(f"{name:10s}{hourly}{run.cpu_s / count:8.1f}{parts}")
    lerobot, tactus_ = runs.values()
    ratios = f"{lerobot.elapsed_s / tactus_.elapsed_s:10.1f}x{lerobot.whole_s / tactus_.whole_s:14.1f}x"
    print(f"{'ratio':10s}{ratios}{lerobot.cpu_s / tactus_.cpu_s:7.1f}x")
    alone = [run.elapsed_s - run.spent_s["inference"] for run in runs.values()]
    print(f"without inference {alone[0] / count:.2f} s and {alone[1] / count:.2f} s: {alone[0] / alone[1]:.1f}x")
    pairs = [(lerobot.episodes[key], tactus_.episodes[key]) for key in sorted(lerobot.episodes)]
    assert len(pairs) == len(tactus_.episodes) == count
    same = {
        "success": sum(a.success == b.success for a, b in pairs),
        "length": sum(a.ticks == b.ticks for a, b in pairs),
        "actions to the bit": sum(a.actions == b.actions for a, b in pairs),
    }
    print(f"of {count} episodes the same: " + ", ".join(f"{name} {number}" for name, number in same.items()))
    for name, run in runs.items():
        ends = [f"{e.ticks}{'' if e.success else '-'}" for _, e in sorted(run.episodes.items())]
        print(f"{name:10s}{sum(e.success for e in run.episodes.values())} succeed; ticks (- fails):", *ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 6])
    parser.add_argument("--turns", type=int, default=2, help="initial states a task, the first ones")
    parser.add_argument("--assets", default="primitive")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50], help="n_action_steps")
    parser.add_argument("--workers", help="passed on to tactus eval")
    options = parser.parse_args()
    from lerobot_eval_policy import trained  # LeRobot's imports are not for its timed process

    policy = str(trained(options.suite, options.tasks, options.assets))
    print(f"{options.suite}, tasks {options.tasks}, assets {options.assets}")
    for steps in options.steps:
        experiment = Experiment(
            options.suite, sorted(options.tasks), options.turns, options.assets, policy, n_action_steps=steps
        )
        with tempfile.TemporaryDirectory() as scratch:
            runs = {
                "LeRobot": measured(lambda e=experiment, s=scratch: theirs(e, Path(s) / "theirs")),
                "tactus": measured(lambda e=experiment, s=scratch: ours(e, Path(s) / "ours", options.workers)),
            }
        show(experiment, runs)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--lerobot"]:
        lerobot_eval(Experiment(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    else:
        main()
