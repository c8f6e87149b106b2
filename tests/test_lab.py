"""The laboratory: grids, schedules, workers and policy nodes that die, disks that fill. Nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import FunctionPolicy, count
from hypothesis import given
from hypothesis import strategies as st
from test_commands import ROBOT, ROOT, TACTUS, TICKER, lines, start_serve, tactus

from tactus.hal.spec import SpecError
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.lab.config import SweepConfig
from tactus.runtime.lab.coordinator import Coordinator, FilmRequest
from tactus.runtime.lab.pool import Event, Pool
from tactus.runtime.lab.scheduler import ATTEMPTS, Job, Scheduler
from tactus.runtime.lab.sweep_folder import SweepFolder, read_sweep
from tactus.runtime.lab.sweep_settings import COMPARED, LATENCIES, SYNCHRONOUS, Cell
from tactus.runtime.lab.sweep_settings import cells as cells_of
from tactus.runtime.lab.worker_limit import Usage, cores, memory
from tactus.runtime.robot_node.action_queue import RTC
from tactus.runtime.robot_node.action_smoothness import action_std, jump_sums, rms_jump

__all__ = ["start_serve"]

Start = Callable[..., str]
POLICY = FunctionPolicy(count).spec
PREFIXED = replace(POLICY, name="prefixed", takes_prefix=True, horizon=12)
TCP = "tcp://127.0.0.1:5555"


# ---- pure


def test_a_grid_is_every_combination_and_the_reference() -> None:
    sweep = SweepConfig(latency=["fixed:0", "fixed:4"], aggregate=["latest_only", "average"], execution_horizon=[4, 8])
    cells = cells_of(sweep, Cell(latency="fixed:9"), {"": POLICY})
    assert cells[0] == SYNCHRONOUS and cells[0].synchronous
    assert len(cells) == 1 + 2 * 2 * 2 == len({cell.name for cell in cells})
    assert Cell("fixed:4", "average", 0.5, 8) in cells
    assert all(Cell.from_dict(json.loads(json.dumps(cell.to_dict()))) == cell for cell in cells)


def test_a_bare_sweep_takes_what_the_policy_can() -> None:
    cells = cells_of(SweepConfig(default=True), Cell(), {"": POLICY})
    assert {cell.aggregate for cell in cells} == {*COMPARED} - {RTC}
    assert {cell.latency for cell in cells} == {*LATENCIES}
    assert RTC in {
        cell.aggregate for cell in cells_of(SweepConfig(default=True), Cell(), {"": replace(POLICY, takes_prefix=True)})
    }


def test_the_reference_is_not_played_twice() -> None:
    cells = cells_of(SweepConfig(chunk_size_threshold=[0.0, 0.5]), Cell(), {"": POLICY})
    assert len(cells) == 2 and cells[0].synchronous and not cells[1].synchronous


def test_latencies_with_commas_survive_yaml() -> None:
    sweep = SweepConfig(latency=["lognormal:3", "sigma=0.2", "drop=0.05", "fixed:1", "drop=0.1"])
    assert sweep.latency == ["lognormal:3,sigma=0.2,drop=0.05", "fixed:1,drop=0.1"]


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"aggregate": ["newest"]}, "aggregate.0: found 'newest'; accepted: latest_only"),
        ({"latency": ["soon"]}, "unknown kind 'soon'; accepted: fixed:TICKS"),
        ({"chunk_size_threshold": [0.5, 1.5]}, "chunk_size_threshold.1: found 1.5; must be at most 1"),
        ({"execution_horizon": [0]}, "execution_horizon.0: found 0; must be positive"),
        ({"latency": ["fixed:1", "fixed:1"]}, "fixed:1 is there more than once"),
        ({"latency": [f"fixed:{k}" for k in range(50)], "execution_horizon": [*range(1, 50)]}, "2450 cells; at most"),
        ({"policy": {"a b": TCP}}, "found the name 'a b'; accepted: up to 32 letters, digits and"),
        ({"policy": {"": TCP}}, "found the name ''"),
        ({"policy": {"..": TCP}}, "found the name '..'"),
        ({"policy": {"a/b": TCP}}, "found the name 'a/b'"),
        ({"policy": {"-a": TCP}}, "found the name '-a'"),
        ({"policy": {"a" * 33: TCP}}, "found the name 'aaa"),
        ({"policy": {"Ä": TCP}}, "found the name 'Ä'"),
        ({"policy": {"a": TCP, "A": TCP}}, "a and A would share a folder where capitals do not count"),
        ({"policy": {"a": "localhost:5555"}}, "policy.a: found 'localhost:5555', which has no scheme: did you"),
        ({"policy": {"a": [TCP, "tcp://b:"]}}, "policy.a: found 'tcp://b:', whose port is 'missing'"),
        ({"policy": {"a": []}}, "policy: a has no address; accepted: that of a running `tactus serve`"),
        ({"policy": [TCP]}, "policy: found .*; expected a mapping"),
        ({"policy": {f"p{k}": TCP for k in range(7)}}, "policy: 7 policies; at most 6 make one sweep"),
    ],
)
def test_impossible_grids(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SweepConfig(**keys)


def test_a_grid_that_this_policy_cannot_do() -> None:
    sweep = SweepConfig(aggregate=["latest_only", RTC], execution_horizon=[4, 99])
    with pytest.raises(
        SpecError, match="rtc needs a policy that can continue.*execution_horizon 99: its chunks have 8"
    ):
        cells_of(sweep, Cell(), {"": POLICY})


def test_a_grid_of_several_policies_has_a_reference_for_each_and_every_combination() -> None:
    nodes = {"teacher": TCP, "student": [TCP, "ipc:///tmp/b"]}
    sweep = SweepConfig(latency=["fixed:0", "fixed:4"], aggregate=["latest_only", "average"], policy=nodes)
    assert sweep and SweepConfig(policy=nodes), "policies alone are a sweep"
    assert sweep.nodes == {"teacher": [TCP], "student": [TCP, "ipc:///tmp/b"]}
    cells = cells_of(sweep, Cell(), {"teacher": POLICY, "student": PREFIXED})
    assert cells[:2] == [replace(SYNCHRONOUS, policy="teacher"), replace(SYNCHRONOUS, policy="student")]
    assert [cell.synchronous for cell in cells] == [True] * 2 + [False] * 8
    assert len({cell.name for cell in cells}) == 10
    name = r"(teacher|student)_fixed-[04]_(latest_only|average)_threshold-0(\.5)?"
    assert all(re.fullmatch(name, cell.name) for cell in cells)
    assert all(Cell.from_dict(json.loads(json.dumps(cell.to_dict()))) == cell for cell in cells)


def test_of_several_policies_each_gets_what_it_can() -> None:
    """Where the grid does not say; where it does, each that cannot is named with what it cannot."""
    policies = {"teacher": POLICY, "student": PREFIXED}
    cells = cells_of(SweepConfig(default=True), Cell(), policies)
    assert {cell.policy for cell in cells if cell.aggregate == RTC} == {"student"}
    for keys, words in [
        ({"aggregate": [RTC]}, "teacher \\(.*\\) cannot do all of this grid: aggregate rtc needs"),
        ({"execution_horizon": [10]}, "teacher .*: execution_horizon 10: its chunks have 8 actions$"),
        ({"execution_horizon": [99]}, "teacher .* 8 actions; student \\(prefixed\\) .*99: its chunks have 12 actions"),
    ]:
        with pytest.raises(SpecError, match=words):
            cells_of(SweepConfig(**keys), Cell(), policies)


def test_a_cell_without_a_policy_is_kept_as_ever() -> None:
    """Folders of sweeps from before there was a name: what a cell writes, and what it is called."""
    cell = Cell("lognormal:3,drop=0.1", "average", 0.25, 8)
    kept = {"latency": "lognormal:3,drop=0.1", "aggregate": "average", "chunk_size_threshold": 0.25}
    kept |= {"execution_horizon": 8}
    assert cell.to_dict() == kept and cell.name == "lognormal-3-drop=0.1_average_threshold-0.25_horizon-8"
    for beside in ({}, {"policy": {"name": "act"}}, {"policy": "act"}):
        assert Cell.from_dict({**kept, **beside}) == cell


jobs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)), unique_by=lambda j: j[1:])


@given(jobs, st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_job_is_done_once_or_given_up(found: list[tuple[int, int, int]], workers: int, random: Any) -> None:
    schedule = Scheduler((group, Job(cell, episode)) for group, cell, episode in found)
    idle, playing, done = [*range(workers)], {}, []
    for _ in range(10 * ATTEMPTS * (len(found) + 1)):
        for worker in list(idle):
            if (job := schedule.next(worker)) is not None:
                assert job not in playing.values() and job not in done
                playing[worker] = job
                idle.remove(worker)
        if not playing:
            break
        worker = random.choice(sorted(playing))
        if random.random() < 0.3:
            schedule.lost(worker, gone=random.random() < 0.5)
        else:
            assert schedule.done(worker) == playing[worker]
            done.append(playing[worker])
        del playing[worker]
        idle.append(worker)
    assert schedule.left == 0
    assert sorted([*done, *schedule.given_up]) == sorted(Job(cell, episode) for _, cell, episode in found)


def test_a_worker_stays_with_its_task() -> None:
    schedule = Scheduler((episode % 2, Job(cell, episode)) for episode in range(4) for cell in range(2))
    first = [schedule.next(0), schedule.next(1)]
    assert {job.episode % 2 for job in first if job} == {0, 1}, "two workers, two tasks"
    for worker, job in enumerate(first):
        schedule.done(worker)
        again = schedule.next(worker)
        assert job and again and again.episode % 2 == job.episode % 2


def test_how_many_workers_a_machine_carries() -> None:
    available = len(os.sched_getaffinity(0))
    assert cores(Usage(1, 0.95, 0.05, 1)).workers == available
    assert cores(Usage(1, 1.0, available * 10.0, 1)).workers == 1
    assert memory(Usage(1, 1.0, 0.0, 10**15)).workers == 1
    assert "GB free" in memory(Usage(1, 1.0, 0.0, 10**9)).why


def test_jumps_at_seams_and_inside() -> None:
    actions = [np.array([x, 5.0]) for x in (0.0, 1.0, 4.0, 5.0, 5.0)]
    sums = jump_sums(actions, [0, 0, 2, 2, -1])
    assert (sums["seams"], sums["inside"], sums["ticks"]) == (1, 2, 5)
    std = action_std([sums])
    assert std[0] == pytest.approx(np.std([0, 1, 4, 5, 5])) and np.isnan(std[1]), "what does not move has no σ"
    assert rms_jump([sums], std) == pytest.approx(3 / std[0])
    assert rms_jump([sums], std, "inside") == pytest.approx(1 / std[0])
    assert rms_jump([jump_sums(actions, [0] * 5)], std) is None
    assert action_std([jump_sums([], [])]).size == 0


def test_a_folder_keeps_to_one_experiment(tmp_path: Path) -> None:
    cells, same = [SYNCHRONOUS, Cell("fixed:2")], {"policy": {"name": "a"}, "seed": 1}
    SweepFolder(tmp_path, same, cells, {"episodes": 2}, resume=False)
    with pytest.raises(ResultsError, match="already holds a sweep"):
        SweepFolder(tmp_path, same, cells, {}, resume=False)
    with pytest.raises(ResultsError, match="policy.name: a there, b now"):
        SweepFolder(tmp_path, {"policy": {"name": "b"}, "seed": 1}, cells, {}, resume=True)
    wider = SweepFolder(tmp_path, same, [*cells, Cell("fixed:4")], {"episodes": 2}, resume=True)
    assert len(wider.results) == 3
    assert read_sweep(tmp_path).cells == []
    with pytest.raises(ResultsError, match="cannot be read as a sweep"):
        read_sweep(tmp_path / "nowhere")


NAMED = {"teacher": {"name": "a", "details": {"settings": "10"}}, "student": {"name": "b"}}
ONLY = {"teacher": NAMED["teacher"]}
OTHER = {**NAMED, "student": {"name": "c"}}
MORE = {**NAMED, "third": {"name": "d"}}


@pytest.mark.parametrize(
    ("before", "now", "words", "kept"),
    [
        (NAMED, NAMED, "", NAMED),
        (NAMED, ONLY, "", NAMED),
        (NAMED, MORE, "", MORE),
        (ONLY, {"student": NAMED["student"]}, "", NAMED),
        (NAMED, OTHER, "policies.student.name: b there, c now", NAMED),
        (
            NAMED,
            {"teacher": {**ONLY["teacher"], "details": {"settings": "1"}}},
            "policies.teacher.details.settings: 10 there",
            NAMED,
        ),
        (NAMED, None, "holds a sweep of the policies teacher, student: name them in --sweep.policy", NAMED),
        (None, NAMED, "holds a sweep of one policy without a name: leave out --sweep.policy", None),
    ],
)
def test_a_name_stays_with_its_policy(
    before: dict[str, Any] | None, now: dict[str, Any] | None, words: str, kept: dict[str, Any] | None, tmp_path: Path
) -> None:
    """A sweep is resumed with more policies or fewer, but never with another one under a name that is there."""

    def opened(policies: dict[str, Any] | None, resume: bool) -> SweepFolder:
        which = {"policy": {"name": "one"}} if policies is None else {"policies": policies}
        cells = [replace(SYNCHRONOUS, policy=name) for name in policies or [""]]
        return SweepFolder(tmp_path, {**which, "seed": 1}, cells, {**which, "episodes": 2}, resume)

    opened(before, resume=False)
    if words:
        with pytest.raises(ResultsError, match=words):
            opened(now, resume=True)
    else:
        folder = opened(now, resume=True)
        assert now is not None and len(folder.results) == len(now)
        for cell, one in zip(folder.cells, folder.results, strict=True):
            written = json.loads((one.folder / "config.json").read_text())
            assert written["policy"] == now[cell.policy] and written["policy_name"] == cell.policy
            assert "policies" not in written
    about = json.loads((tmp_path / "sweep.json").read_text())
    assert about.get("policies") == about["fingerprint"].get("policies") == kept
    assert read_sweep(tmp_path).policies == (kept or {"": {"name": "one"}})


# ---- workers in processes of their own


def rows(folder: Path) -> list[str]:
    """What happened, order aside."""
    return sorted((folder / "episodes.jsonl").read_text().splitlines())


@pytest.mark.long
@pytest.mark.slow
def test_one_worker_or_four_play_the_same_episodes(start_serve: Start, tmp_path: Path) -> None:
    endpoints = [start_serve(*TICKER), start_serve(*TICKER)]
    common = [*ROBOT, "--latency=lognormal:2,drop=0.05", "--episodes=9"]
    tactus("eval", *common, f"--connect={endpoints[0]}", f"--output_dir={tmp_path}/one", check=True)
    four = [*common, f"--connect=[{','.join(endpoints)}]", "--workers=4"]
    out = tactus("eval", *four, f"--output_dir={tmp_path}/four", check=True).stdout
    assert rows(tmp_path / "one") == rows(tmp_path / "four") and "of 9" in out
    again = tactus("eval", *four, f"--output_dir={tmp_path}/one", "--resume", check=True)
    assert "of 9" in again.stdout and len(rows(tmp_path / "one")) == 9, "nothing is left to play"


@pytest.mark.slow
def test_auto_measures_and_says_why(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, "--robot.work_ms=1", f"--connect={endpoint}", "--episodes=6", "--workers=auto"]
    out = tactus("eval", *common, f"--output_dir={tmp_path}/o", check=True).stdout.replace("\n", " ")
    assert "workers: " in out and "cores, one worker and its share of the policy" in out and "GB free" in out
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["workers"] >= 1


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Commands in the background; killed afterwards."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen([*TACTUS, *arguments], cwd=ROOT, **{**pipes, **options}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_lines(file: Path, count: int, process: subprocess.Popen[str]) -> None:
    while not file.exists() or len(file.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_worker_is_replaced(start_serve: Start, started: Callable[..., Any], tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, "--robot.work_ms=2", f"--connect={endpoint}", "--latency=lognormal:2", "--episodes=20"]
    run = started("eval", *common, "--workers=2", f"--output_dir={tmp_path}/hit")
    wait_for_lines(tmp_path / "hit" / "episodes.jsonl", 3, run)
    os.kill(children(run.pid)[0], signal.SIGKILL)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and "died (exit status -9)" in out and "of 20" in out
    tactus("eval", *common, f"--output_dir={tmp_path}/whole", check=True)
    assert rows(tmp_path / "hit") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.long
def test_a_killed_policy_node(comes_back: bool, started: Callable[..., Any], tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/node"
    serve = ["serve", f"--connect={endpoint}", *TICKER]
    node = started(*serve)
    common = [*ROBOT, "--robot.work_ms=2", f"--connect={endpoint}", "--latency=fixed:3", "--episodes=16"]
    common += ["--lost_after_s=1", "--start_timeout_s=8"]
    hit = [*common, "--workers=2", f"--output_dir={tmp_path}/hit"]
    run = started("eval", *hit)
    wait_for_lines(tmp_path / "hit" / "episodes.jsonl", 3, run)
    node.kill()
    node.wait()
    if comes_back:
        started(*serve)
    out, _ = run.communicate(timeout=90)
    if not comes_back:
        kept = len(rows(tmp_path / "hit"))
        assert run.returncode == 1 and "no policy node answered" in out and "--resume goes on" in out and kept >= 3, out
        assert "died" not in out, "the workers give up, they do not break"
        started(*serve)
        assert "of 16" in tactus("eval", *hit, "--resume", check=True).stdout
    else:
        assert run.returncode == 0 and "will be played again" in out, out
    tactus("eval", *common, f"--output_dir={tmp_path}/whole", check=True)
    assert rows(tmp_path / "hit") == rows(tmp_path / "whole")


class Scripted(Pool):
    """A worker that says hello and then gives these answers; None: it dies."""

    def __init__(self, answers: list[dict[str, Any] | None]) -> None:
        self.answers = answers
        self.workers = 0
        self.events: list[Event] = []

    def start(self) -> int:
        self.workers += 1
        return self.workers - 1

    def give(self, worker: int, order: Mapping[str, Any]) -> None:
        answer = {"robot": {}} if "hello" in order else self.answers.pop(0)
        self.events.append(Event(worker, answer and {"said": [], **answer}, "exit status -9"))

    def wait(self, timeout_s: float) -> list[Event]:
        events, self.events = self.events, []
        return events

    def close(self) -> None:
        """Nothing to end."""


def test_a_film_that_is_not_made_is_said_so() -> None:
    made = {"row": {}, "jpeg": "cGljdHVyZQ==", "said": ["a slow policy"]}
    pool = Scripted([{"lost": "the policy node left"}, {"failed": "nobody there", "status": 1}, None, made])
    said: list[str] = []
    kept: list[tuple[int, bytes]] = []
    coordinator = Coordinator(pool, 1, said.append)
    coordinator.start(1)
    films = [FilmRequest(SYNCHRONOUS, {"episode": episode, "ticks": 9}) for episode in range(4)]
    coordinator.film(films, lambda film, row, jpeg: kept.append((film.row["episode"], jpeg)))
    assert kept == [(3, b"picture")] and pool.workers == 2
    assert said == [
        f"episode 0 of {SYNCHRONOUS.name} was not filmed: the policy node left",
        f"episode 1 of {SYNCHRONOUS.name} was not filmed: nobody there",
        f"episode 2 of {SYNCHRONOUS.name} was not filmed: worker 0 died",
        "worker 0 died (exit status -9); another one takes its place",
        "a slow policy",
    ]


def a_hello(**changes: Any) -> dict[str, Any]:
    details = {"assets": "sha256 1", "assets.source": "/here"} | changes.pop("details", {})
    robot = {"name": "robot", "fps": 20.0, "details": details}
    policies = {"student": {"name": "flow a", "details": {"settings": "1"}} | changes.pop("policy", {})}
    return {"robot": robot | changes.pop("robot", {}), "policies": policies, "versions": {"mujoco": "3.8.1"} | changes}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (a_hello(), None),
        (a_hello(details={"assets.source": "/there"}), None),
        (a_hello(details={"assets": "sha256 2"}), "details.assets: sha256 1 at the first worker, sha256 2 here"),
        (a_hello(details={"renderer": "egl, NVIDIA"}), "details.renderer: None at the first worker, egl, NVIDIA here"),
        (a_hello(mujoco="3.9"), "versions.mujoco: 3.8.1 at the first worker, 3.9 here"),
        (a_hello(robot={"fps": 30.0}), "fps: 20.0 at the first worker, 30.0 here"),
        (a_hello(policy={"name": "flow b"}), "policy student.name: flow a at the first worker, flow b here"),
        (
            a_hello(policy={"details": {"settings": "9"}}),
            "policy student details.settings: 1 at the first worker, 9 here",
        ),
    ],
)
def test_a_worker_with_other_files_plays_nothing(second: dict[str, Any], words: str | None) -> None:
    hellos = [a_hello(), second]

    class Two(Scripted):
        def give(self, worker: int, order: Mapping[str, Any]) -> None:
            self.events.append(Event(worker, {"said": [], **hellos[worker]}, ""))

    said: list[str] = []
    coordinator = Coordinator(Two([]), 2, said.append)
    coordinator.start(2)
    assert coordinator.workers == (1 if words else 2)
    assert said == ([f"worker 1 gives up, 1 left: it would play other episodes; {words}"] if words else [])


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_finished(start_serve: Start, started: Callable[..., Any], tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails in the middle of a line."""
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, f"--connect={endpoint}", "--episodes=40", "--workers=2", f"--output_dir={tmp_path}/o"]

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    run = started("eval", *common, preexec_fn=small)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 2 and "cannot write to" in out and "make room, then --resume" in out, out
    again = tactus("eval", *common, "--resume", check=True)
    assert "of 40" in again.stdout
    assert [row["episode"] for row in sorted(lines(tmp_path / "o" / "episodes.jsonl"), key=lambda r: r["episode"])] == [
        *range(40)
    ]


@pytest.mark.slow
def test_a_sweep_from_end_to_end(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = [*ROBOT, f"--connect={endpoint}", "--workers=2", f"--output_dir={tmp_path}/o"]
    sweep = ["--sweep.latency=[fixed:0,fixed:3,lognormal:2,drop=0.1]", "--sweep.aggregate=[latest_only,average]"]
    out = tactus("eval", *common, "--episodes=3", *sweep, check=True).stdout
    assert "report: " in out and (tmp_path / "o" / "report.html").is_file()
    found = read_sweep(tmp_path / "o")
    assert len(found.cells) == 7 and all(len(one.rows) == 3 for one in found.cells)
    assert found.cells[0].cell.synchronous
    for name in ("fixed:3", "lognormal:2,drop=0.1"):
        delays = [
            [row["latency_ticks"][:3] for row in sorted(one.rows, key=lambda row: row["episode"])]
            for one in found.cells
            if one.cell.latency == name
        ]
        assert len(delays) == 2 and delays[0] == delays[1], "cells are paired: the same delays"
    assert "already holds results" in tactus("eval", *common, "--episodes=3", *sweep).stderr
    other = tactus("eval", *common, "--episodes=3", *sweep, "--resume", "--seed=3")
    assert other.returncode == 2 and "seed: 1000 there, 3 now" in other.stderr
    more = tactus("eval", *common, "--episodes=5", *sweep, "--resume", check=True)
    assert "of 5" in more.stdout and all(len(one.rows) == 5 for one in read_sweep(tmp_path / "o").cells)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workers=0"], "workers: found '0'; accepted: a number of at least 1, or auto"),
        (["--workers=2", "--video"], "video: is for one worker without a sweep"),
        (["--ray_address=auto"], "ray_address: is for --engine=ray"),
        (["--sweep.aggregate=[rtc]"], "rtc needs a policy that can continue a chunk"),
        (["--execution_horizon=99"], "execution_horizon: found 99; a chunk of ticker has 8 actions"),
        (["--sweep", "--execution_horizon=99"], "execution_horizon 99: its chunks have 8 actions"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], words: str, start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    common = ["--robot.type=synthetic", "--robot.width=3", f"--connect={endpoint}", f"--output_dir={tmp_path}/o"]
    out = tactus("eval", *common, *arguments)
    assert out.returncode == 2 and words in out.stderr, out.stderr


@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why(start_serve: Start, tmp_path: Path) -> None:
    endpoint = start_serve(*TICKER)
    out = tactus("eval", "--robot.type=synthetic", "--robot.width=5", f"--connect={endpoint}", "--workers=2",
                 f"--output_dir={tmp_path}/o")  # fmt: skip
    assert out.returncode == 3 and "action: shape: robot 5, policy 3" in out.stderr


# ---- several policies


def two_of(start_serve: Start, **student: object) -> tuple[str, str]:
    """A teacher whose chunks have 8 actions and a student; other keys of the student's in `student`."""
    keys = {"horizon": 12, **student}
    others = ["--policy.type=ticker", "--policy.width=3", *(f"--policy.{key}={value}" for key, value in keys.items())]
    return start_serve(*TICKER), start_serve(*others)


@pytest.mark.long
def test_policies_play_in_one_sweep_what_each_plays_alone(start_serve: Start, tmp_path: Path) -> None:
    """To the bit, by however many workers, with one node of a policy or two; and a third joins later."""
    teacher, student = two_of(start_serve)
    again = start_serve("--policy.type=ticker", "--policy.width=3", "--policy.horizon=12")
    common = [*ROBOT, "--episodes=3", "--sweep.latency=[fixed:1,lognormal:2,drop=0.1]"]
    both = f"--sweep.policy={{teacher: {teacher}, student: [{student}, {again}]}}"
    run = tactus("eval", *common, both, "--workers=3", f"--output_dir={tmp_path}/both", check=True)
    out = " ".join(run.stdout.split())
    assert f"policyteacher:ticker,chunksof8,at{teacher}" in "".join(out.split()) and "report: " in out
    assert "what differs: horizon 8 and 12" in out
    found = read_sweep(tmp_path / "both")
    assert [(one.cell.policy, one.cell.synchronous) for one in found.cells] == [
        ("teacher", True), ("student", True), *[("teacher", False)] * 2, *[("student", False)] * 2,
    ]  # fmt: skip
    assert {name: about["horizon"] for name, about in found.policies.items()} == {"teacher": 8, "student": 12}
    for name, endpoint in (("teacher", teacher), ("student", student)):
        tactus("eval", *common, f"--connect={endpoint}", f"--output_dir={tmp_path}/{name}", check=True)
        for one in read_sweep(tmp_path / name).cells:
            cell = replace(one.cell, policy=name)
            assert rows(tmp_path / "both" / "cells" / cell.name) == rows(tmp_path / name / "cells" / one.cell.name)
    delays = [
        [row["latency_ticks"][:3] for row in sorted(one.rows, key=lambda row: row["episode"])]
        for one in found.cells
        if one.cell.latency.startswith("lognormal")
    ]
    assert len(delays) == 2 and delays[0] == delays[1], "policies are paired: the same delays"
    third = f"--sweep.policy={{third: {again}}}"
    tactus("eval", *common, third, f"--output_dir={tmp_path}/both", "--resume", check=True)
    assert {one.cell.policy for one in read_sweep(tmp_path / "both").cells} == {"teacher", "student", "third"}
    swapped = f"--sweep.policy={{teacher: {student}}}"
    refused = tactus("eval", *common, swapped, f"--output_dir={tmp_path}/both", "--resume")
    assert refused.returncode == 2 and "policies.teacher.horizon: 8 there, 12 now" in refused.stderr


@pytest.mark.long
@pytest.mark.slow
def test_a_policy_that_was_not_asked_for_long_is_not_taken_for_a_dead_one(start_serve: Start, tmp_path: Path) -> None:
    """While the others play, its link hears nothing; then its first answer takes a while."""
    teacher, student = two_of(start_serve, infer_ms=250)
    common = [*ROBOT, "--robot.work_ms=25", "--robot.steps=40", "--episodes=2", "--lost_after_s=0.6"]
    keys = [f"--sweep.policy={{teacher: {teacher}, student: {student}}}", f"--output_dir={tmp_path}/o"]
    out = tactus("eval", *common, *keys, check=True).stdout
    assert "played again" not in out and "given up" not in out, out


@pytest.mark.long
def test_one_killed_node_of_two(start_serve: Start, started: Callable[..., Any], tmp_path: Path) -> None:
    """Its episode is played again; the other policy's link is none the worse."""
    teacher, student = start_serve(*TICKER), f"ipc://{tmp_path}/student"
    serve = ["serve", f"--connect={student}", "--policy.type=ticker", "--policy.width=3", "--policy.horizon=12"]
    node = started(*serve)
    policies = f"--sweep.policy={{teacher: {teacher}, student: {student}}}"
    common = [*ROBOT, "--robot.work_ms=3", policies, "--latency=fixed:3", "--episodes=6"]
    common += ["--lost_after_s=1", "--start_timeout_s=20"]
    run = started("eval", *common, "--workers=2", f"--output_dir={tmp_path}/hit")
    wait_for_lines(tmp_path / "hit" / "cells" / "student_fixed-3_latest_only_threshold-0.5" / "episodes.jsonl", 1, run)
    node.kill()
    node.wait()
    started(*serve)
    out, _ = run.communicate(timeout=90)
    assert run.returncode == 0 and "will be played again" in out, out
    tactus("eval", *common, f"--output_dir={tmp_path}/whole", check=True)
    for one in read_sweep(tmp_path / "whole").cells:
        assert rows(tmp_path / "hit" / "cells" / one.cell.name) == rows(tmp_path / "whole" / "cells" / one.cell.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--sweep.policy={teacher: T, student: S}", "--connect=T"], 2, ["leave out one of the two"]),
        (["--sweep.policy={teacher: T, teacher: S}"], 2, ["sweep.policy.teacher: twice"]),
        (["--sweep.policy={a/b: T}"], 2, ["sweep.policy: found the name 'a/b'"]),
        (["--sweep.policy={teacher: there}"], 2, ["sweep.policy.teacher: found 'there', which has no scheme"]),
        (
            ["--sweep.policy={teacher: T, student: S}", "--sweep.execution_horizon=[10]"],
            2,
            ["teacher (ticker) cannot do all of this grid: execution_horizon 10: its chunks have 8 actions\n"],
        ),
        pytest.param(
            ["--sweep.policy={teacher: T, student: S}", "--sweep.aggregate=[rtc]"],
            2,
            ["teacher (ticker) cannot", "rtc needs a policy that can continue a chunk; student (ticker) cannot"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            [
                "--sweep.policy={teacher: T, student: ipc:///nowhere/a, third: ipc:///nowhere/b}",
                "--policy_timeout_s=1.5",
            ],
            1,
            [
                "student: no policy node answered at ipc:///nowhere/a",
                "third: no policy node answered at ipc:///nowhere/b",
            ],
            marks=pytest.mark.long,
        ),
        (
            ["--sweep.policy={teacher: T, student: W, third: ipc:///nowhere/b}", "--policy_timeout_s=1.5"],
            3,
            ["student: action: shape: robot 3, policy 4", "third: no policy node answered at ipc:///nowhere/b"],
        ),
    ],
)
def test_what_several_policies_cannot_be(
    arguments: list[str], status: int, words: list[str], start_serve: Start, tmp_path: Path
) -> None:
    """Said before anything is played, of every policy that it is said of."""
    nodes = dict(zip("TS", two_of(start_serve), strict=True)) if {"T", "S"} & {*" ".join(arguments)} else {}
    if "W" in " ".join(arguments):
        nodes["W"] = start_serve("--policy.type=ticker", "--policy.width=4")
    filled = [re.sub(r"\b[TSW]\b", lambda found: nodes[found[0]], argument) for argument in arguments]
    out = tactus("eval", *ROBOT, *filled, f"--output_dir={tmp_path}/o")
    assert out.returncode == status and all(word in out.stderr for word in words), out.stderr
    assert "Traceback" not in out.stderr and not (tmp_path / "o" / "cells").exists()


@pytest.mark.slow
def test_two_names_for_one_policy_are_noted(start_serve: Start, tmp_path: Path) -> None:
    node = start_serve(*TICKER)
    file = tmp_path / "run.yaml"
    file.write_text("connect: ipc:///nowhere/else\nsweep: {policy: {a: NODE, b: NODE}}\n".replace("NODE", node))
    keys = [*ROBOT, f"--config_path={file}", "--episodes=2", f"--output_dir={tmp_path}/o"]
    out = " ".join(tactus("eval", *keys, check=True).stdout.split())
    assert "note: a and b are one policy with the same settings: they will play the same episodes" in out
    assert "connect: ipc:///nowhere/else of the config file is not used" in out
    cells = [one.cell.name for one in read_sweep(tmp_path / "o").cells]
    played = {name: rows(tmp_path / "o" / "cells" / name) for name in cells}
    assert len(played) == 4
    assert all(played[name] == played["b" + name[1:]] for name in played if name.startswith("a_"))
