"""A disk that takes no more: a sentence that names the file, and what was written before is there and goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_commands import ROOT, TACTUS, TICKER, lines, tactus

pytestmark = [pytest.mark.slow, pytest.mark.realtime]
ROBOT = ["--robot.type=synthetic", "--robot.width=3"]


def limited(kilobytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command none of whose files may become larger: to a program what a full disk is, and needs no disk."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes * 1024},) * 2); "
        "from tactus.runtime.commands import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    endpoint = f"--connect=ipc://{tmp_path_factory.mktemp('node')}/node"
    serve = subprocess.Popen([*TACTUS, "serve", endpoint, *TICKER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert serve.stdout is not None and "policy node" in serve.stdout.readline()
    yield endpoint
    serve.terminate()
    serve.wait(timeout=60)


def test_results_are_kept_and_go_on(node: str, tmp_path: Path) -> None:
    keys = ["eval", *ROBOT, "--robot.steps=20", node, "--episodes=40", f"--output_dir={tmp_path}/o"]
    full = limited(8, *keys)
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert f"{tmp_path}/o" in full.stderr and "File too large" in full.stderr
    kept = (tmp_path / "o" / "episodes.jsonl").read_text().splitlines()
    assert 1 <= len(kept) < 40
    more = tactus(*keys, "--resume")
    assert more.returncode == 0, more.stderr
    rows = (tmp_path / "o" / "episodes.jsonl").read_text().splitlines()
    assert len(rows) == 40 and rows[: len(kept) - 1] == kept[:-1]


def test_a_film_costs_no_episode(node: str, tmp_path: Path) -> None:
    keys = ["eval", *ROBOT, "--robot.steps=20", "--robot.cameras=1", node, "--episodes=2", f"--output_dir={tmp_path}/o"]
    full = limited(5, *keys, "--video")
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert f"cannot write {tmp_path}/o/video.mp4" in full.stderr
    assert [row["episode"] for row in lines(tmp_path / "o" / "episodes.jsonl")] == [0]
    assert tactus(*keys, "--resume").returncode == 0


def test_recorded_actions_cost_no_episode(node: str, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "actions").write_text("somebody's")
    keys = ["eval", *ROBOT, "--robot.steps=20", node, "--episodes=2", f"--output_dir={tmp_path}/o", "--record_actions"]
    full = tactus(*keys)
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert f"cannot write {tmp_path}/o/actions/episode_00000.npz" in full.stderr
    assert [row["episode"] for row in lines(tmp_path / "o" / "episodes.jsonl")] == [0]


def test_a_flight_record_ends_and_the_robot_goes_on(node: str, tmp_path: Path) -> None:
    keys = [*ROBOT, "--robot.steps=400", node, "--episodes=3", f"--output_dir={tmp_path}/o"]
    full = limited(150, "eval", *keys, f"--record_flight={tmp_path}/f")
    assert full.returncode == 0 and "Traceback" not in full.stderr, full.stderr
    assert "the flight recorder has stopped: File too large" in full.stdout.replace("\n", " ")
    assert len(lines(tmp_path / "o" / "episodes.jsonl")) == 3
    assert tactus("replay-flight", f"{tmp_path}/f").returncode == 0


@pytest.mark.long
def test_a_report_is_told_and_the_sweep_is_kept(node: str, tmp_path: Path) -> None:
    keys = [*ROBOT, "--robot.steps=20", node, "--episodes=1", "--failures=0", "--sweep.latency=[fixed:4]"]
    full = limited(30, "eval", *keys, f"--output_dir={tmp_path}/s")
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert f"cannot write {tmp_path}/s/" in full.stderr and "File too large" in full.stderr
    assert limited(30, "report", f"{tmp_path}/s").returncode == 2
    assert tactus("report", f"{tmp_path}/s").returncode == 0


@pytest.mark.long
def test_episodes_of_a_dataset_are_kept_when_the_disk_fills(node: str, tmp_path: Path) -> None:
    """A parquet file's end is written last: room for it is kept."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no disk of its own can be mounted here")
    try:
        keys = [*ROBOT, "--robot.steps=20", "--robot.work_ms=5", "--robot.cameras=1", "--robot.image_size=[64,64]"]
        where = [f"--dataset_root={disk}/data", "--dataset_video=false", f"--output_dir={tmp_path}/o"]
        command = [*TACTUS, "record", *keys, node, "--episodes=500", *where]
        with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) as record:
            until = time.monotonic() + 60
            while not (disk / "data" / "meta" / "tactus.jsonl").exists() and time.monotonic() < until:
                time.sleep(0.05)
            (disk / "others").write_bytes(bytes(45_000_000))
            _, complaint = record.communicate(timeout=60)
        assert record.returncode == 1 and "Traceback" not in complaint, complaint
        assert f"{disk}/data could not be written: under 20 MB are free" in complaint
        labels = lines(disk / "data" / "meta" / "tactus.jsonl")
        assert 1 <= len(labels) < 500
        last = f"--dataset_episode={len(labels) - 1}"
        played = tactus("replay", *ROBOT, f"--actions={disk}/data", last, f"--output_dir={tmp_path}/r")
        assert played.returncode == 0, played.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
