"""Workers on a Ray cluster of two nodes (two raylets on this machine): the same episodes, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_commands import ROBOT, ROOT, TACTUS, TICKER, Start, lines, start_serve, tactus
from test_lab import rows, wait_for_lines

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

from ray.cluster_utils import Cluster  # noqa: E402

__all__ = ["start_serve"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one core each, so that two workers need both; its address."""
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        two.add_node(num_cpus=1)
        two.wait_for_nodes()
        yield two.address
    finally:
        two.shutdown()


def actors() -> list[Any]:
    """Processes of Ray's that play episodes."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "ray::_Actor" in " ".join(process.cmdline())]


@pytest.mark.long
def test_two_nodes_play_what_one_worker_plays(cluster: str, start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, f"--connect={endpoint}", "--latency=lognormal:2,drop=0.05", "--episodes=12", "--robot.work_ms=5"]
    tactus("eval", *common, f"--output_dir={tmp_path}/one", check=True)
    ours = ["--engine=ray", f"--ray_address={cluster}", "--workers=2"]
    out = tactus("eval", *common, *ours, f"--output_dir={tmp_path}/two")
    assert out.returncode == 0 and "of 12" in out.stdout, out.stderr
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    assert {row["worker"] for row in lines(tmp_path / "two" / "timings.jsonl")} == {0, 1}


@pytest.mark.long
def test_two_policies_play_there_what_they_play_here(cluster: str, start_serve: Start, tmp_path: Path) -> None:
    teacher, student = start_serve(*TICKER), start_serve(*TICKER[:-1], "--policy.horizon=12")
    policies = f"--sweep.policy={{teacher: {teacher}, student: {student}}}"
    common = [*ROBOT, policies, "--sweep.latency=[lognormal:2]", "--episodes=4"]
    tactus("eval", *common, f"--output_dir={tmp_path}/here", check=True)
    ours = ["--engine=ray", f"--ray_address={cluster}", "--workers=2"]
    out = tactus("eval", *common, *ours, f"--output_dir={tmp_path}/there")
    assert out.returncode == 0, out.stderr
    names = {folder.name for folder in (tmp_path / "here" / "cells").iterdir()}
    assert len(names) == 4
    assert all(rows(tmp_path / "here" / "cells" / name) == rows(tmp_path / "there" / "cells" / name) for name in names)


@pytest.mark.long
def test_an_actor_that_is_killed_is_replaced(cluster: str, start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, "--robot.work_ms=10", f"--connect={endpoint}", "--latency=fixed:2", "--episodes=12"]
    ours = ["--engine=ray", f"--ray_address={cluster}", "--workers=2", f"--output_dir={tmp_path}/hit"]
    run = subprocess.Popen(
        [*TACTUS, "eval", *common, *ours], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for_lines(tmp_path / "hit" / "episodes.jsonl", 3, run)
        os.kill(actors()[0].pid, signal.SIGKILL)
        out, _ = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == 0 and "died" in out and "of 12" in out, out
    tactus("eval", *common, f"--output_dir={tmp_path}/whole", check=True)
    assert rows(tmp_path / "hit") == rows(tmp_path / "whole")


def test_no_cluster_there(tmp_path: Path) -> None:
    out = tactus("eval", *ROBOT, "--engine=ray", "--ray_address=127.0.0.1:1", f"--output_dir={tmp_path}/o")
    assert out.returncode == 2 and "no Ray cluster at 127.0.0.1:1" in out.stderr, out.stderr
