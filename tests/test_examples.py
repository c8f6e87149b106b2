"""Every example, run as its first lines say: in processes of its own, over real sockets, from a folder elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
HERE = {**os.environ, "PYTHONPATH": f"{ROOT}:{EXAMPLES}", "HF_HUB_OFFLINE": "1"}
TACTUS = ["-m", "tactus"]
CART = "--robot.type=own_robot:CartConfig"

Serve = Callable[..., str]


def run(*arguments: str, folder: Path, timeout_s: float = 60) -> str:
    out = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=HERE, capture_output=True, text=True, timeout=timeout_s
    )
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


@pytest.fixture
def serve_in_process(tmp_path: Path) -> Iterator[Serve]:
    """A policy node of its own, started by the given program; gives its endpoint once it is ready."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        endpoint = f"ipc://{tmp_path}/node{len(processes)}"
        command = [sys.executable, *arguments, f"--connect={endpoint}"]
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=HERE, stdout=subprocess.PIPE, text=True))
        stdout = processes[-1].stdout
        assert stdout is not None and endpoint in stdout.readline()
        return endpoint

    yield start
    for process in processes:
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("command", [["run"], ["eval", "--latency=fixed:6"]], ids=["real time", "virtual time"])
def test_a_robot_and_a_policy_of_ones_own_meet(command: list[str], serve_in_process: Serve, tmp_path: Path) -> None:
    endpoint = serve_in_process(*TACTUS, "serve", "--policy.type=own_policy:HomingConfig")
    keys = [CART, "--robot.speed=0.8", "--episodes=3", f"--connect={endpoint}", "--output_dir=out"]
    out = run(*TACTUS, *command, *keys, folder=tmp_path)
    assert "of 3" in out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["successes"] == 3 and summary["policy"]["name"] == "homing" and summary["robot"]["speed"] == 0.8


def test_ones_own_robot_is_refused_by_a_policy_for_another(serve_in_process: Serve, tmp_path: Path) -> None:
    endpoint = serve_in_process(*TACTUS, "serve", "--policy.type=ticker", "--policy.width=2")
    command = [sys.executable, *TACTUS, "run", CART, f"--connect={endpoint}"]
    out = subprocess.run(command, cwd=tmp_path, env=HERE, capture_output=True, text=True, timeout=60)
    assert out.returncode == 3 and "observation.state: shape: robot 1, policy 2" in out.stderr


@pytest.mark.parametrize(
    "command, kind", [("run", "robot.type=own_robot:Cart"), ("serve", "policy.type=own_policy:Homing")]
)
def test_ones_own_keys_are_listed_and_checked(command: str, kind: str, tmp_path: Path) -> None:
    section = kind.partition(".")[0]
    asked = [sys.executable, *TACTUS, command, f"--{kind}Config"]
    listed = run(*asked[1:], "--help", folder=tmp_path)
    assert f"--{section}.speed=0." in listed
    wrong = [*asked, f"--{section}.speeed=1", f"--{section}.speed=fast"]
    out = subprocess.run(wrong, cwd=tmp_path, env=HERE, capture_output=True, text=True, timeout=60)
    assert out.returncode == 2 and f"unknown key --{section}.speeed; did you mean --{section}.speed" in out.stderr
    assert f"{section}.speed: found 'fast'; expected a number" in out.stderr


@pytest.mark.parametrize(
    "kind, words", [("own_robot:Cart", "is not a dataclass that inherits"), ("nothing:At", "cannot be imported")]
)
def test_a_type_that_is_none_is_told(kind: str, words: str, tmp_path: Path) -> None:
    command = [sys.executable, *TACTUS, "run", f"--robot.type={kind}"]
    out = subprocess.run(command, cwd=tmp_path, env=HERE, capture_output=True, text=True, timeout=60)
    assert out.returncode == 2 and words in out.stderr and "Traceback" not in out.stderr


def test_workers_know_ones_own_robot_too(serve_in_process: Serve, tmp_path: Path) -> None:
    endpoint = serve_in_process(*TACTUS, "serve", "--policy.type=own_policy:HomingConfig")
    out = run(
        *TACTUS,
        "eval",
        CART,
        "--workers=2",
        "--episodes=4",
        f"--connect={endpoint}",
        "--output_dir=out",
        folder=tmp_path,
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["successes"] == 4, out


def test_ones_own_pass_the_conformance_suites(tmp_path: Path) -> None:
    out = run("-m", "pytest", "-p", "no:cacheprovider", f"{EXAMPLES}/test_own.py", folder=tmp_path)
    assert " passed" in out and "failed" not in out


def test_a_client_needs_no_tactus(serve_in_process: Serve, tmp_path: Path) -> None:
    """pyzmq, msgpack and numpy alone: here importing tactus is an error."""
    endpoint = serve_in_process(*TACTUS, "serve", "--policy.type=ticker", "--policy.width=2")
    (tmp_path / "tactus.py").write_text("raise ImportError('this client must not need it')")
    (tmp_path / "client.py").write_text((EXAMPLES / "client_without_tactus.py").read_text())
    out = run("client.py", endpoint, folder=tmp_path)
    assert "the policy is ticker, chunks of 50" in out
    assert "actions for ticks 20 to 69: [[20.0, 20.0], [21.0, 21.0], [22.0, 22.0]]" in out


def test_a_client_is_told_why_it_is_refused(serve_in_process: Serve, tmp_path: Path) -> None:
    endpoint = serve_in_process(*TACTUS, "serve", "--policy.type=ticker", "--policy.width=3")
    command = [sys.executable, f"{EXAMPLES}/client_without_tactus.py", endpoint]
    out = subprocess.run(command, cwd=tmp_path, env=HERE, capture_output=True, text=True, timeout=60)
    assert out.returncode == 1 and "REFUSE" in out.stderr and "action: shape: robot 2, policy 3" in out.stderr


def test_the_program_in_the_readme_runs(tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    for name in ("own_robot.py", "own_policy.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    out = run("program.py", folder=tmp_path)
    assert "Outcome(success=True, done=True" in out and "0 of" in out


@pytest.mark.long
def test_the_base_to_practise_from_is_mediocre(tmp_path: Path) -> None:
    """With its noise and without it: neither hopeless nor solved, so that practice has something to show."""
    out = run(f"{EXAMPLES}/push_base.py", "base", folder=tmp_path, timeout_s=240)
    rates = [int(rate) for rate in re.findall(r"noise scale [01]: succeeds in (\d+)% of 100 episodes", out)]
    assert len(rates) == 2 and 22 <= rates[0] <= 48 and rates[1] < 55, out
    assert json.loads((tmp_path / "base" / "config.json").read_text())["num_steps"] == 4


def test_every_example_is_described() -> None:
    described = (EXAMPLES / "README.md").read_text()
    for file in EXAMPLES.glob("*.py"):
        assert file.name in described
