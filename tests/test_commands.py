"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tactus.hal.robot import RobotConfig
from tactus.runtime.commands.config import COMMANDS
from tactus.runtime.commands.keys import leaves

ROOT = Path(__file__).parents[1]
TACTUS = [sys.executable, "-m", "tactus"]
TICKER = ["--policy.type=ticker", "--policy.width=3", "--policy.horizon=8"]
ROBOT = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=60"]

Start = Callable[..., str]


def tactus(*arguments: str, check: bool = False, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TACTUS, *arguments], cwd=ROOT, capture_output=True, text=True, check=check, timeout=timeout_s
    )


@pytest.fixture
def start_serve(tmp_path: Path) -> Iterator[Start]:
    """`tactus serve` in the background; gives its endpoint once it is ready."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        endpoint = f"ipc://{tmp_path}/node{len(processes)}"
        process = subprocess.Popen(
            [*TACTUS, "serve", f"--connect={endpoint}", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None and endpoint in process.stdout.readline()
        return endpoint

    yield start
    for process in processes:
        process.terminate()
        assert process.wait(timeout=60) == 0


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_help_everywhere() -> None:
    assert "  serve          policy node" in tactus("--help", check=True).stdout
    assert tactus("--version", check=True).stdout == f"tactus {version('tactus')}\n"
    for command, cls in COMMANDS.items():
        out = tactus(command, "--help", check=True).stdout
        assert len(out.splitlines()) <= 100
        for path, key in leaves(cls):
            assert (key.positional or f"--{'.'.join(path)}") in out
    for kind in ("libero", "so100"):
        of_kind = tactus("run", f"--robot.type={kind}", "--help", check=True).stdout
        for path, _ in leaves(RobotConfig.choice(kind)):
            assert f"--robot.{'.'.join(path)}" in of_kind
    everything = tactus("serve", "--help=all", check=True).stdout
    assert "--policy.n_action_steps" in everything and "--policy.infer_ms" in everything


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["frobnicate"], "unknown command 'frobnicate'"),
        (["eval", "--robot.type=hexapod"], "choose from 'aloha', 'arm', 'camera', 'gym', 'koch'"),
        (["eval", "--robot.siute=libero_object"], "unknown key --robot.siute; did you mean --robot.suite"),
        (["eval", "--latncy=fixed:2"], "unknown key --latncy; did you mean --latency"),
        (["eval", "--xyzzy=1"], "unknown key --xyzzy; known: --a"),
        (
            ["eval", "--robot.type=synthetic", "--robot.zzzzzz=1"],
            "unknown key --robot.zzzzzz; known: --robot.cameras, --robot.fps",
        ),
        (
            ["eval", "--robot.type=synthetic", "--robot.suite=libero_object"],
            "unknown key --robot.suite; did you mean --robot.steps",
        ),
        (["eval", "--latency=soon"], "accepted: fixed:TICKS, measured"),
        (["eval", "--aggregate=newest"], "accepted: latest_only, weighted_average, average, conservative, temporal"),
        (["eval", "--robot.suite=libero_kitchen"], "robot.suite: found 'libero_kitchen'; accepted: libero_spatial"),
        (["eval", "--episodes=many"], "'many'"),
        (["eval", "--episodes=0"], "episodes: found 0; must be positive"),
        (["eval", "--chunk_size_threshold=2"], "chunk_size_threshold: found 2; must be at most 1"),
        (["eval", "--resume"], "needs output_dir"),
        (["eval", "--config_path=/does/not/exist.yaml"], "/does/not/exist.yaml"),
        (
            ["serve", "--policy.type=oracle"],
            "policy.type: found 'oracle'; choose from 'expert', 'flow', 'gr00t', 'learned', 'learned_so101'",
        ),
        (["serve", "--policy.type=replay", "--policy.path=/no/such.npz"], "'/no/such.npz' is not a recording"),
        (
            ["serve", "--policy.path=/no/such"],
            "policy.path: no directory '/no/such'; accepted: a checkpoint's directory",
        ),
        (["serve", "--policy=lerobot"], "policy.path: missing; accepted: a checkpoint's directory, or owner/name"),
        (
            ["serve", "--policy.path=nobody/nothing"],
            "'nobody/nothing' is no directory here and cannot be had from the hub",
        ),
        (["serve", "--allow", "image_colour", *TICKER], "allow.0: found 'image_colour'; accepted: image_size, robot"),
        (["serve", "--batch_wait_ms=-1", *TICKER], "batch_wait_ms: found -1; must not be negative"),
        (["serve", "--connect=tcp://0.0.0.0:5999", *TICKER], "reached from other machines"),
    ],
)
def test_bad_input_is_told_with_what_exists(arguments: list[str], words: str) -> None:
    out = tactus(*arguments)
    assert out.returncode == 2 and words in out.stderr, out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.slow
def test_unknown_keys_in_a_file_are_told_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("robot:\n  type: libero\n  siute: libero_object\n")
    out = tactus("eval", f"--config_path={tmp_path}/a.yaml")
    assert out.returncode == 2 and "siute" in out.stderr and "did you mean robot.suite" in out.stderr


@pytest.mark.slow
def test_a_port_in_use_is_said_so() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        out = tactus("serve", f"--connect=tcp://127.0.0.1:{other.getsockname()[1]}", *TICKER)
    assert out.returncode == 2 and "something else is listening there" in out.stderr


@pytest.mark.slow
def test_no_policy_node_is_a_clear_failure(tmp_path: Path) -> None:
    out = tactus("eval", *ROBOT, f"--connect=ipc://{tmp_path}/none", "--start_timeout_s=0.5")
    assert out.returncode == 1 and "is `tactus serve` running?" in out.stderr


@pytest.mark.slow
def test_a_refusal_lists_every_mismatch_and_moves_nothing(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    out = tactus(
        "eval", "--robot.type=synthetic", "--robot.width=4", f"--connect={endpoint}", f"--output_dir={tmp_path}/o"
    )
    assert out.returncode == 3
    assert "observation.state: shape: robot 4, policy 3" in out.stderr and "action: shape" in out.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_equal_seeds_give_equal_files(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, f"--connect={endpoint}", "--latency=lognormal:3,sigma=0.6,drop=0.1,reorder=0.1", "--episodes=6"]
    common += ["--request_timeout_s=0.2"]
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        tactus("eval", *common, f"--seed={seed}", f"--output_dir={tmp_path}/{name}", check=True)
    a, b, c = ((tmp_path / name / "episodes.jsonl").read_bytes() for name in "abc")
    assert a == b != c
    rows = lines(tmp_path / "a" / "episodes.jsonl")
    assert len({tuple(row["latency_ticks"]) for row in rows}) == 6 and sum(row["resends"] for row in rows) > 0


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_same_file(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, "--robot.work_ms=5", f"--connect={endpoint}", "--latency=lognormal:3", "--episodes=8"]
    tactus("eval", *common, f"--output_dir={tmp_path}/whole", check=True)
    cut = tmp_path / "cut" / "episodes.jsonl"
    victim = subprocess.Popen(
        [*TACTUS, "eval", *common, f"--output_dir={tmp_path}/cut"], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not cut.exists() or len(cut.read_text().splitlines()) < 2:
        assert victim.poll() is None
        time.sleep(0.02)
    victim.kill()
    victim.wait()
    assert 2 <= len(lines(cut)) < 8
    assert "already holds results" in tactus("eval", *common, f"--output_dir={tmp_path}/cut").stderr
    other = tactus("eval", *common, "--seed=7", f"--output_dir={tmp_path}/cut", "--resume")
    assert other.returncode == 2 and "seed: 1000 there, 7 now" in other.stderr
    tactus("eval", *common, f"--output_dir={tmp_path}/cut", "--resume", check=True)
    assert cut.read_bytes() == (tmp_path / "whole" / "episodes.jsonl").read_bytes()
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["episodes"] == 8


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    out = tmp_path / "o"
    arguments = [*ROBOT, "--robot.work_ms=5", f"--connect={endpoint}", "--episodes=50", f"--output_dir={out}"]
    process = subprocess.Popen([*TACTUS, "eval", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (out / "episodes.jsonl").exists() or not (out / "episodes.jsonl").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=10)
    assert process.returncode == 130 and "--resume goes on" in complaint
    assert json.loads((out / "summary.json").read_text())["episodes"] == len(lines(out / "episodes.jsonl")) > 0


@pytest.mark.slow
@pytest.mark.realtime
def test_run_is_in_real_time_and_on_the_beat(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    tactus(
        "run",
        *ROBOT,
        "--robot.fps=30",
        f"--connect={endpoint}",
        "--episodes=1",
        f"--output_dir={tmp_path}/o",
        check=True,
    )
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert summary["ticks"] + summary["skipped_ticks"] >= 60 - 1 and summary["starved_ticks"] == 0
    assert summary["wall_s"] >= 59 / 30


@pytest.mark.slow
def test_summary_has_what_is_promised_and_a_replay_repeats_it(start_serve: Start, tmp_path: Path) -> None:
    first = start_serve(*TICKER)
    common = [*ROBOT, "--episodes=2", "--latency=fixed:2"]
    tactus("eval", *common, f"--connect={first}", f"--output_dir={tmp_path}/a", "--record_actions", check=True)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    promised = """
        episodes successes success_rate success_ci95 per_task ticks starved_ticks stale_actions_dropped requests
        renders latency_ticks inference_ms round_trip_ms wall_s assets robot policy versions
    """
    for key in promised.split():
        assert key in summary, key
    for key in ("latency_ticks", "inference_ms", "round_trip_ms"):
        assert set(summary[key]) == {"p50", "p95"}
    again = start_serve("--policy.type=replay", f"--policy.path={tmp_path}/a/actions/episode_00001.npz")
    tactus("eval", *common, f"--connect={again}", f"--output_dir={tmp_path}/b", check=True)
    assert (
        lines(tmp_path / "b/episodes.jsonl")[1]["actions_sha256"]
        == lines(tmp_path / "a/episodes.jsonl")[1]["actions_sha256"]
    )


@pytest.mark.slow
def test_a_success_rate_never_goes_without_its_interval(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    out = tactus(
        "eval", *ROBOT, f"--connect={endpoint}", "--episodes=2", f"--output_dir={tmp_path}/o", check=True
    ).stdout
    for line in out.splitlines():
        if "%" in line and "starved" not in line:
            assert ("[" in line and "of 2" in line) or "95 %" in line, line


@pytest.mark.slow
def test_a_video_needs_a_camera(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    out = tactus("eval", *ROBOT, f"--connect={endpoint}", "--video", f"--output_dir={tmp_path}/o")
    assert out.returncode == 2 and "--video needs a camera" in out.stderr


@pytest.mark.slow
def test_a_video_has_every_tick(start_serve: Start, tmp_path: Path) -> None:
    import cv2

    endpoint = start_serve(*TICKER)
    cameras = ["--robot.cameras=2", "--robot.image_size=[48,64]"]
    tactus(
        "eval",
        *ROBOT,
        *cameras,
        f"--connect={endpoint}",
        "--episodes=2",
        "--video",
        f"--output_dir={tmp_path}/o",
        check=True,
    )
    film = cv2.VideoCapture(str(tmp_path / "o" / "video.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 61  # and how it ended
    assert abs(film.get(cv2.CAP_PROP_FPS) - 30) < 0.01
    levels = []
    while (got := film.read())[0]:
        levels.append(int(got[1][:256].mean()))
    assert abs(levels[0] - 0) < 4 and abs(levels[60] - 60) < 4 and levels == sorted(levels)
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["video_frames"] == 61


@pytest.mark.slow
class TestSimSh:
    """`bash launch/sim.sh` on primitive assets, as on a machine without a hub."""

    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = ["bash", str(ROOT / "launch" / "sim.sh"), "--robot.assets=primitive", "--robot.tasks=[1]"]

    def children(self, folder: Path) -> list[str]:
        """Processes of ours that still run; `folder` is in the command line of just this test's."""
        found = subprocess.run(["pgrep", "-f", f"m tactus .*{folder}"], capture_output=True, text=True)
        return found.stdout.split()

    @pytest.mark.slow
    def test_it_runs_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        out = subprocess.run(
            [*self.command, "--episodes=1", "--video", f"--output_dir={tmp_path}/o", "--policy.threads=1"],
            cwd=tmp_path,
            env={**self.environment, "HOME": str(tmp_path / "home")},  # nothing cached, no LIBERO config yet
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert out.returncode == 0, out.stderr
        assert out.stdout.count("assets: primitive") == 1
        summary = json.loads((tmp_path / "o" / "summary.json").read_text())
        assert summary["successes"] == 1 and summary["latency_ticks"]["p50"] == 2.0
        assert summary["assets"].startswith("primitive")
        assert summary["renders"] == 2 * summary["video_frames"] == 2 * (summary["ticks"] + 1)
        assert self.children(tmp_path) == []

    @pytest.mark.slow
    def test_the_emulated_arm_is_played_by_a_policy_of_its_own(self, tmp_path: Path) -> None:
        words = ["--robot.type=twin", "--robot.max_steps=20", "--episodes=1", f"--output_dir={tmp_path}/o"]
        out = subprocess.run([*self.command[:2], *words], capture_output=True, text=True, timeout=200)
        assert out.returncode == 0, out.stderr
        summary = json.loads((tmp_path / "o" / "summary.json").read_text())
        assert "so101_keypoints" in summary["policy"]["name"] and summary["renders"] == 2 * summary["requests"] > 0

    @pytest.mark.slow
    @pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
    def test_a_signal_ends_both_processes(self, tmp_path: Path, signum: int) -> None:
        process = subprocess.Popen(
            [*self.command, "--episodes=50", f"--output_dir={tmp_path}/o"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        while "assets:" not in (line := process.stdout.readline()):
            assert line, "ended early"
        time.sleep(1)
        assert len(self.children(tmp_path)) == 2
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # a terminal sends Ctrl-C to the whole group
        else:
            process.send_signal(signum)
        assert process.wait(timeout=20) == 128 + signum
        assert self.children(tmp_path) == []

    @pytest.mark.slow
    def test_a_policy_that_cannot_be_made_ends_it_at_once(self, tmp_path: Path) -> None:
        out = subprocess.run(
            [*self.command, "--policy.horizon=0", f"--output_dir={tmp_path}/o"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert out.returncode == 2 and "horizon" in out.stderr
        assert self.children(tmp_path) == []

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "keys, sentence",
        [
            pytest.param(
                ["--policy.path={}/empty"],
                "tactus serve: policy.path: .*empty lacks config.json",
                marks=pytest.mark.long,
            ),
            pytest.param(["--policy.path={}/none"], "tactus serve: policy.path: no directory", marks=pytest.mark.long),
            (["--robot.suite=libero_none"], "tactus (serve|eval): robot.suite: found 'libero_none'"),
            pytest.param(["--robot.tasks=[99]"], "tactus eval: .*99", marks=pytest.mark.long),
        ],
        ids=lambda value: " ".join(value).partition("=")[0] if isinstance(value, list) else "",
    )
    def test_what_cannot_start_is_said_once(self, tmp_path: Path, keys: list[str], sentence: str) -> None:
        """While its robot is made, a policy fails to load; or the other way round."""
        (tmp_path / "empty").mkdir()
        keys = [key.format(tmp_path) for key in keys]
        command = [*self.command, *keys, f"--output_dir={tmp_path}/o"]
        out = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert out.returncode == 2, out.stderr
        complaints = [line for line in out.stderr.splitlines() if "before the first episode" not in line]
        assert re.match(sentence, complaints[0]) and "Traceback" not in out.stderr
        assert all("lists every key" in line for line in complaints[1:])
        assert self.children(tmp_path) == [] and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("--minutes=0", "--minutes: found 0; accepted: a whole number from 1"),
        ("--suites=libero_10", "--suites: found libero_10; accepted: libero_object, libero_spatial, twin"),
        ("--suites=libero_object,twin", "--suites: twin is another robot than LIBERO's"),
        ("--dataset_root=here", "--dataset_root: decided here; leave it out"),
        ("minutes", "minutes: not expected; keys are given as --key=value"),
    ],
)
def test_train_sh_says_what_it_takes(key: str, words: str, tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "launch" / "train.sh"), f"--output_dir={tmp_path}/looks", key]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert out.returncode == 2 and out.stderr.startswith(f"train.sh: {words}") and not (tmp_path / "looks").exists()
    asked = subprocess.run([*command[:2], "--help"], capture_output=True, text=True, timeout=60)
    assert asked.returncode == 0 and "--minutes=" in asked.stdout and "--rounds=" in asked.stdout


def test_a_robot_says_what_it_waits_for(tmp_path: Path) -> None:
    keys = [f"--connect=ipc://{tmp_path}/none", "--start_timeout_s=0.5", "--policy_timeout_s=2.5"]
    out = tactus("eval", *ROBOT, *keys)
    assert out.returncode == 1 and "no policy node answered" in out.stderr and "within 2.5 s" in out.stderr
    assert out.stdout.count(f"waiting for the policy node at ipc://{tmp_path}/none: 2 s") == 1


@pytest.mark.slow
def test_a_real_run_leaves_a_trace_that_eval_replays(start_serve: Start, tmp_path: Path) -> None:
    node = tmp_path / "node.trace"
    endpoint = start_serve(*TICKER, "--policy.infer_ms=45", f"--latency_trace={node}")
    out = tmp_path / "run"
    common = [*ROBOT, "--robot.fps=50", f"--connect={endpoint}", "--episodes=2"]
    tactus("run", *common, f"--output_dir={out}", check=True)
    rows = [word for word in (out / "latency.trace").read_text().splitlines() if not word.startswith("#")]
    assert len(rows) == sum(row["requests"] for row in lines(out / "episodes.jsonl"))
    trace = [float(word) for word in rows if word != "drop"]  # the last one, if the episode was over before its answer
    answers = [float(word) for word in node.read_text().splitlines() if not word.startswith("#")]
    assert len(rows) - 2 <= len(trace) and min(trace) >= min(answers) >= 45
    if len(trace) == len(answers):
        assert all(answer <= latency for answer, latency in zip(answers, trace, strict=True)), "the way is on top"
    tactus("eval", *common, f"--latency=trace:{out / 'latency.trace'}", f"--output_dir={tmp_path}/sim", check=True)
    delays = {delay for row in lines(tmp_path / "sim" / "episodes.jsonl") for delay in row["latency_ticks"][1:]}
    assert delays <= {math.ceil(latency / 20) for latency in trace} and min(delays) >= 3
