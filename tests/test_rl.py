"""`tactus rl` through real processes: it learns, repeats to the bit, and survives whatever is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
import yaml
from conftest import Serve
from processes import end, serving, start
from safetensors.numpy import load_file
from sign_robot import untrained

import tactus.hal.backends
from tactus.hal.config import decode
from tactus.hal.robot import RobotConfig
from tactus.policies.flow.network import FlowNetwork, Shape, load, save
from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.rl.config import ExploreConfig
from tactus.policies.rl.explorer import exploring
from tactus.policies.rl.rollouts import Rollout
from tactus.runtime.commands import main
from tactus.runtime.policy_node.limits import ANYBODY

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
REGISTERED = (tactus.hal.backends,)
PRACTICE = (
    "--practice.method=flow_noise",
    *("--practice.iterations=3", "--practice.train_states=12", "--practice.states=8", "--practice.rollouts=4"),
    *("--practice.held_out=8", "--practice.eval_every=1", "--practice.minibatch=32"),
)


@pytest.fixture(autouse=True, scope="module")
def tests_on_the_path() -> Iterator[None]:
    """Workers are processes of their own, and import the robot by name."""
    found = os.environ.get("PYTHONPATH", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), found])))
        yield


@pytest.fixture(scope="module")
def policy(tests_on_the_path: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    untrained(folder)
    return folder


def command(policy: Path, folder: Path, *more: str) -> list[str]:
    return [
        "--robot.type=sign_robot:SignConfig",
        f"--policy.path={policy}",
        *PRACTICE,
        *more,
        f"--output_dir={folder}",
    ]


def what_came_of_it(folder: Path) -> dict[str, Any]:
    """Everything that repeats: lines, evaluations, weights."""
    found: dict[str, Any] = {"metrics": (folder / "metrics.jsonl").read_text()}
    found |= {file.name: sorted(file.read_text().splitlines()) for file in (folder / "evaluations").iterdir()}
    weights = load_file(folder / "last" / "model.safetensors")
    return found | {name: tensor.tobytes() for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def undisturbed(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(["rl", *command(policy, folder)]) == 0
    return what_came_of_it(folder)


def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers(
    policy: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    assert main(["rl", *command(policy, tmp_path / "run", "--workers=2")]) == 0
    assert what_came_of_it(tmp_path / "run") == undisturbed
    page = (tmp_path / "run" / "report.html").read_text()
    assert "learning rate" in page and page.count("<svg") == 3
    assert (tmp_path / "run" / "figures" / "success.png").stat().st_size > 5000
    lines = [json.loads(line) for line in undisturbed["metrics"].splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    assert all(line["ratio_error"] < 1e-5 and line["rollouts"] == 32 for line in lines[:3] if line["steps"])


@pytest.mark.long
def test_what_it_evaluates_is_what_is_deployed(policy: Path, tmp_path: Path) -> None:
    """The same episodes, to the bit, as `tactus eval` has of the checkpoint that it leaves behind."""
    run, again = tmp_path / "run", tmp_path / "eval"
    assert main(["rl", *command(policy, run, "--practice.iterations=1")]) == 0
    with serving(tmp_path / "log", f"--policy.path={run / 'last'}") as (_, endpoint):
        words = ["eval", "--robot.type=sign_robot:SignConfig", f"--connect={endpoint}", "--episodes=20"]
        assert main([*words, f"--output_dir={again}"]) == 0
    theirs = {row["episode"]: row for row in map(json.loads, (again / "episodes.jsonl").read_text().splitlines())}
    ours = [json.loads(line) for line in (run / "evaluations" / "00001.jsonl").read_text().splitlines()]
    assert sorted(row["episode"] for row in ours) == [*range(12, 20)]
    for row in ours:
        assert row == {"repeat": 0, **theirs[row["episode"]]}


def test_one_process_that_serves_its_own_weights_gives_the_same_bits(
    policy: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    assert main(["rl", *command(policy, tmp_path / "run", "--one_process=true")]) == 0
    assert what_came_of_it(tmp_path / "run") == undisturbed


@pytest.mark.long
def test_as_many_workers_as_the_plan_says(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--workers=auto", "--practice.iterations=1"]
    assert main(["rl", *command(policy, tmp_path / "run", *more)]) == 0
    said = capsys.readouterr().out
    [planned] = [line for line in said.splitlines() if line.startswith("plan: ")]
    workers = re.search(r"\+ (\d+) worker", planned)
    assert workers is not None
    assert len([*(tmp_path / "run" / "logs").glob("worker_*.log")]) == int(workers[1])


@pytest.mark.long
def test_demonstrations_are_imitated_beside_the_successes(policy: Path, tmp_path: Path) -> None:
    """Recorded by a policy that always succeeds; of our own there is no success, and nothing else to learn from."""
    teacher, data = tmp_path / "teacher", tmp_path / "data"
    above(policy, teacher)
    robot = ["--robot.type=sign_robot:SignConfig", "--robot.level=0"]
    with serving(tmp_path / "log", f"--policy.path={teacher}") as (_, endpoint):
        words = ["record", *robot, f"--connect={endpoint}", "--episodes=6", f"--dataset_root={data}"]
        assert main([*words, f"--output_dir={tmp_path / 'record'}", "--chunk_size_threshold=0"]) == 0
    more = ["--practice.method=filtered", f"--demonstrations={data}", "--robot.level=1.2", "--practice.steps=200"]
    more += ["--practice.learning_rate=0.01", "--practice.held_out=20"]
    assert main(["rl", *command(policy, tmp_path / "run", *more)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["evaluation"]["successes"] == lines[0]["successes"] == 0
    assert lines[-1]["evaluation"]["successes"] > 15, lines


def above(policy: Path, folder: Path) -> None:
    """A flow policy like another one, whose actions are about two standard deviations higher."""
    network = load(policy)
    with torch.no_grad():
        network.action_mean += 2
    save(network, folder)


def children(pid: int, words: str) -> list[int]:
    """Processes started by `pid` whose command line has these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status, line = (entry / "stat").read_text(), (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if int(status.rsplit(")", 1)[1].split()[1]) == pid and words in line:
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """Not gone, and not merely unburied, as where nobody adopts orphans."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], Any], within_s: float = 120.0) -> Any:
    give_up_s = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < give_up_s, "it did not come about"
        time.sleep(0.002)
    return found


@pytest.mark.parametrize(
    "victim",
    [pytest.param(v, marks=pytest.mark.long) for v in ("rollout_worker", "learner", "policy_process")],
)
def test_killed_in_an_iteration_nothing_is_lost_or_counted_twice(
    victim: str, policy: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    slow = "--robot.ticks=8"
    process = start("rl", command(policy, folder, slow), log)
    try:
        rollouts = folder / "rollouts" / "00001"
        until(lambda: (rollouts.is_dir() and len([*rollouts.glob("*.npz")]) >= 3) or process.poll() is not None)
        [doomed] = [process.pid] if victim == "learner" else children(process.pid, victim)
        os.kill(doomed, signal.SIGKILL)
        if victim == "learner":
            process.wait(10)
            until(lambda: not [pid for pid in children(1, str(folder)) if pid])
            played = {file.name: file.read_bytes() for file in rollouts.glob("*.npz")}
            again = start("rl", command(policy, folder, slow, "--resume"), log)
            assert again.wait(180) == 0, log.read_text()
            kept = {name: (rollouts / name).read_bytes() for name in played if (rollouts / name).is_file()}
            assert kept == played or not rollouts.is_dir()
        else:
            assert process.wait(180) == 0, log.read_text()
            assert ("another one takes its place" in log.read_text()) or victim == "policy_process"
    finally:
        end(process)
    assert what_came_of_it(folder) == undisturbed, log.read_text()


@pytest.mark.long
def test_nobody_stays_behind_when_the_learner_is_killed(policy: Path, tmp_path: Path) -> None:
    process = start("rl", command(policy, tmp_path / "run", "--practice.iterations=1000"), tmp_path / "log")
    until(lambda: [*(tmp_path / "run" / "rollouts").glob("*/*.npz")])
    found = children(process.pid, "rollout_worker") + children(process.pid, "policy_process")
    assert len(found) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not any(alive(pid) for pid in found), 20.0)


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.long) for m in ("filtered", "flow_sde", "noise")])
def test_every_method_raises_what_is_rewarded(method: str, policy: Path, tmp_path: Path) -> None:
    more = [
        f"--practice.method={method}",
        "--practice.iterations=8",
        "--practice.held_out=25",
        "--practice.eval_every=0",
    ]
    more += ["--practice.learning_rate=0.01", "--practice.kl_stop=0.3", "--practice.eval_rollouts=4", "--workers=2"]
    more += ["--practice.steps=60", "--practice.sigma=1"] if method != "noise" else []
    assert main(["rl", *command(policy, tmp_path / "run", *more)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    base, last = lines[0]["evaluation"], lines[-1]["evaluation"]
    assert last["successes"] > base["successes"] + 10, lines


@pytest.mark.long
def test_rollouts_of_the_next_iteration_are_played_while_this_one_is_learned_from(policy: Path, tmp_path: Path) -> None:
    more = ["--practice.overlap=true", "--practice.max_stale=1", "--practice.method=filtered", "--practice.steps=5"]
    assert main(["rl", *command(policy, tmp_path / "run", *more)]) == 0
    versions = [
        {int(v) for file in place.glob("*.npz") for v in Rollout.from_bytes(file.read_bytes()).versions}
        for place in sorted((tmp_path / "run" / "rollouts").iterdir())
    ]
    assert versions == [{0}, {0}, {1}]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--practice.held_out=30"], "begins like one that is practised on: this robot has 40 initial states"),
        (["--practice.overlap=true"], "practice.overlap: needs a max_stale of at least 1"),
        (["--practice.sigma=0"], "practice.sigma: found 0; flow_noise has nothing to learn from"),
        (["--practice.method=noise", "--practice.sigma=1"], "practice.sigma: not used by method=noise"),
        (["--practice.method=noise", "--practice.bc_weight=1"], "practice.bc_weight: is for flow_noise and flow_sde"),
        (["--aggregate=rtc"], "method=filtered and sigma=0"),
        (["--practice.method=ppo"], "practice.method"),
        (["--demonstrations=/nowhere"], "not used by method=flow_noise"),
        (["--resume"], "resume"),
        (["--policy.type=ticker"], "is no flow policy"),
        (["--robot.type=camera"], "the policy node refused this robot"),
        (["--nodes=tcp://127.0.0.1:1", "--policy_timeout_s=0.5"], "no policy node"),
    ],
)
def test_what_cannot_be_practised_is_said_in_a_sentence(
    more: list[str], words: str, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(policy, tmp_path / "run")
    for one in more:
        key = one.partition("=")[0]
        arguments = [
            a
            for a in arguments
            if a.partition("=")[0] != key and not (key.startswith("--policy.t") and "policy.path" in a)
        ]
    if more == ["--resume"]:
        arguments = [a for a in arguments if "output_dir" not in a]
    status = main(["rl", *arguments, *more])
    found = capsys.readouterr().err
    assert status in (1, 2, 3) and re.search(words, found) and "Traceback" not in found, found


@pytest.mark.long
def test_another_practice_is_not_mixed_in(policy: Path, undisturbed: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["rl", *command(policy, tmp_path / "run", "--practice.iterations=1")]) == 0
    assert main(["rl", *command(policy, tmp_path / "run")]) == 2
    assert "is not empty; --resume goes on with it" in capsys.readouterr().err
    assert main(["rl", *command(policy, tmp_path / "run", "--resume", "--practice.clip=0.3")]) == 2
    said = capsys.readouterr().err
    assert "settings.clip: 1.0 there, 0.3 now" in said and "kl_stop" not in said
    assert main(["rl", *command(policy, tmp_path / "run", "--resume")]) == 0  # further than it was to go
    assert what_came_of_it(tmp_path / "run")["metrics"] == undisturbed["metrics"]


@pytest.mark.parametrize("kind", ["smolvla", pytest.param("pi0", marks=pytest.mark.long)])
@pytest.mark.parametrize("method", ["flow_noise", "filtered"])
def test_a_vla_practises_on_pictures(kind: str, method: str, serve: Serve, tmp_path: Path) -> None:
    """That it runs, and that ratios begin at 1; nothing is learned in three iterations."""
    with checkpoints.tiny_pi0():
        folder = getattr(checkpoints, kind)(
            tmp_path / "policy",
            images={"observation.image": (96, 96)},
            state=2,
            action=2,
            chunk_size=8,
            n_action_steps=8,
        )
        base = LeRobotConfig(path=str(folder), threads=1).make()
        node = serve(exploring(base, ExploreConfig(method=method)), weights_from=ANYBODY)  # type: ignore[arg-type]
        assert (
            main(
                [
                    *("rl", "--robot.type=pusht", "--robot.obs_type=pixels_agent_pos", "--robot.max_steps=16"),
                    *(f"--policy.path={folder}", "--policy.threads=1", f"--nodes={node.endpoint}"),
                    *(f"--practice.method={method}", "--practice.iterations=3", "--practice.states=2"),
                    *(
                        "--practice.rollouts=2",
                        "--practice.held_out=2",
                        "--practice.steps=2",
                        f"--output_dir={tmp_path / 'run'}",
                    ),
                ]
            )
            == 0
        )
    assert (tmp_path / "run" / "last" / "config.json").is_file()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    if method == "flow_noise":
        assert all(line["ratio_error"] < 1e-5 and line["node_error"] < 1e-3 for line in lines[:3]), lines


SIMULATORS = {
    "push": ["--robot.max_steps=16"],
    "libero": ["--robot.suite=libero_object", "--robot.tasks=[1,4]", "--robot.cameras=[]", "--robot.max_steps=16"],
    "pusht": ["--robot.obs_type=environment_state_agent_pos", "--robot.max_steps=16"],
    "metaworld": ["--robot.obs_type=pixels_agent_pos", "--robot.max_steps=16"],
    "robosuite": ["--robot.env_name=Lift", "--robot.cameras=[]", "--robot.max_steps=16"],
    "gym": ["--robot.env_id=Pendulum-v1", "--robot.fps=20"],
}


@pytest.mark.long
@pytest.mark.parametrize("kind", SIMULATORS)
def test_every_simulator_is_practised_on_by_the_same_command(kind: str, tmp_path: Path) -> None:
    """That rollouts are played, told apart by their initial states, and learned from; nobody succeeds here."""
    keys = dict(key.removeprefix("--robot.").split("=", 1) for key in SIMULATORS[kind])
    robot = decode(RobotConfig, {"type": kind, **{key: yaml.safe_load(value) for key, value in keys.items()}}).make()
    vectors = {name: feature for name, feature in robot.spec.observations.items() if not feature.is_image}
    shape = Shape(vectors, robot.spec.action, 8, robot.spec.fps, hidden=32, blocks=1, num_steps=2)
    save(FlowNetwork(shape), tmp_path / "policy")
    robot.close()
    words = ["rl", f"--robot.type={kind}", *SIMULATORS[kind], f"--policy.path={tmp_path / 'policy'}"]
    words += ["--practice.method=flow_noise", "--practice.iterations=1", "--practice.train_states=4"]
    words += ["--practice.states=2", "--practice.rollouts=2", "--practice.held_out=2", "--max_ticks=16"]
    assert main([*words, f"--output_dir={tmp_path / 'run'}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["rollouts"] == 4 and lines[0]["ratio_error"] < 1e-5
    rollouts = [Rollout.from_bytes(file.read_bytes()) for file in (tmp_path / "run" / "rollouts").glob("*/*.npz")]
    begins = {one.episode: [r.observations for r in rollouts if r.episode == one.episode] for one in rollouts}
    for same in begins.values():
        for name in vectors:
            np.testing.assert_array_equal(same[0][name][0], same[1][name][0])  # the same beginning, twice
    assert len({one.actions.tobytes() for one in rollouts}) == 4  # and four different ways to go on


@pytest.mark.long
def test_two_processes_of_torchrun_learn_what_one_learns(
    policy: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "-m",
        "tactus",
        "rl",
    ]
    done = subprocess.run([*words, *command(policy, tmp_path / "run")], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        json.loads(text.splitlines()[-1])
        for text in (what_came_of_it(tmp_path / "run")["metrics"], undisturbed["metrics"])
    )
    assert abs(ours["evaluation"]["successes"] - theirs["evaluation"]["successes"]) <= 1
    shutil.rmtree(tmp_path / "run")
