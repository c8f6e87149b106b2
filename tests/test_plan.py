"""Placement of rollouts: the arithmetic for any machine, and a real policy node and worker measured on this one."""

from __future__ import annotations

import itertools
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tactus.hal.spec import STATE
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import FlowNetwork, Shape, save
from tactus.runtime.commands import main
from tactus.runtime.lab.worker_limit import free_bytes, peak_bytes, private_bytes
from tactus.runtime.rl.costs import free_memory, measure_costs
from tactus.runtime.rl.placement import SHARE, Bytes, Costs, plan

GB = 10**9
TYPICAL = Costs(Bytes(GB // 2), Bytes(GB), Bytes(2 * GB), Bytes(2 * GB), 1.0, 0.9, 0.1, 0.05)
"""Half a GB and 0.9 cores a worker; the node computes 5 % of the time."""

sizes = st.integers(0, 64 * GB)
seconds = st.floats(0, 100, allow_nan=False)


@st.composite
def anything(draw: st.DrawFn) -> Costs:
    worker_s, node_s, waits_s = draw(seconds), draw(seconds), draw(st.floats(1e-3, 100))
    busy_s = draw(st.floats(0, 1)) * (worker_s + node_s + waits_s)
    parts = [Bytes(draw(sizes), draw(sizes)) for _ in range(4)]
    return Costs(*parts, worker_s + node_s + waits_s, worker_s, node_s, busy_s)


free = st.builds(Bytes, sizes, sizes)
cores = st.integers(1, 256)
rollouts = st.integers(1, 5000)


@given(anything(), free, cores, rollouts, st.booleans())
def test_a_plan_never_takes_more_than_is_free(found: Costs, free: Bytes, cores: int, count: int, learner: bool) -> None:
    made = plan(found, free, cores, count, learner)
    assert 1 <= made.workers <= count and made.waves * made.workers >= count > (made.waves - 1) * made.workers
    if made.fits:
        assert made.need.ram <= SHARE * free.ram and made.need.gpu <= SHARE * free.gpu
    else:  # not even one worker: then that is all it says
        assert made.workers == 1 and any(made.need.beyond(Bytes(int(SHARE * free.ram), int(SHARE * free.gpu))))
        assert "plan: none." in "\n".join(made.lines())
    assert made.workers == 1 or made.mode in ("at once", "waves")
    assert made.rollouts_per_s > 0 and len(made.lines()) >= 5


@given(anything(), free, cores, rollouts, st.booleans(), st.integers(0, 64 * GB), st.integers(0, 64 * GB), cores)
def test_more_of_anything_is_never_slower(
    found: Costs, free: Bytes, cores: int, count: int, learner: bool, ram: int, gpu: int, more: int
) -> None:
    made = plan(found, free, cores, count, learner)
    for bigger in (
        plan(found, Bytes(free.ram + ram, free.gpu), cores, count, learner),
        plan(found, Bytes(free.ram, free.gpu + gpu), cores, count, learner),
        plan(found, free, cores + more, count, learner),
    ):
        assert bigger.workers >= made.workers or not made.fits
        assert bigger.rollouts_per_s >= made.rollouts_per_s
        assert bigger.fits or not made.fits


@given(anything(), free, cores, rollouts, st.booleans())
def test_what_more_would_take_grows(found: Costs, free: Bytes, cores: int, count: int, learner: bool) -> None:
    made = plan(found, free, cores, count, learner)
    needs = [made.needs(factor) for factor in (1, 2, 4, 8)]
    for less, more in itertools.pairwise(needs):
        assert more.rollouts_per_s == pytest.approx(2 * less.rollouts_per_s)
        assert more.workers >= less.workers and more.cores >= less.cores and more.nodes >= less.nodes
        assert more.free.ram >= less.free.ram and more.free.gpu >= less.free.gpu
    if made.fits and made.mode != "one process" and needs[0].nodes == 1 and needs[0].workers <= made.workers:
        assert needs[0].free.ram <= free.ram + 2 and needs[0].free.gpu <= free.gpu + 2


@pytest.mark.parametrize(
    "change, free_gb, gpu_gb, cores, rollouts, mode, workers, limited",
    [
        ({}, 100, 0, 64, 8, "at once", 8, "rollouts"),
        ({}, 100, 0, 8, 64, "waves", 8, "cores"),
        ({}, 10, 0, 64, 64, "waves", 10, "memory"),  # 0.8 · 10 = node 1 + learner 2 + 10 · 0.5
        ({"node_busy_s": 0.25}, 100, 0, 64, 64, "waves", 4, "policy node"),
        ({"worker": Bytes(GB // 2, GB // 4), "node_busy_s": 0.01}, 100, 10, 64, 64, "waves", 32, "GPU memory"),
        ({"node": Bytes(GB, 3 * GB), "learner": Bytes(GB, 4 * GB)}, 100, 10, 8, 64, "waves", 8, "cores"),
        ({}, 100, 0, 1, 64, "sequential", 1, "cores"),
        ({}, 4, 0, 8, 64, "one process", 1, "memory"),  # 3.5 GB as three processes, 2.5 as two
        ({}, 4.5, 0, 8, 64, "sequential", 1, "memory"),
    ],
)
def test_how_rollouts_are_placed(
    change: dict, free_gb: float, gpu_gb: float, cores: int, rollouts: int, mode: str, workers: int, limited: str
) -> None:
    free = Bytes(int(free_gb * GB), int(gpu_gb * GB))
    made = plan(replace(TYPICAL, **change), free, cores, rollouts, True)
    assert (made.mode, made.workers, made.limits[0].what, made.fits) == (mode, workers, limited, True)
    told = "\n".join(made.lines())
    assert f"limited by {limited}: " in told and "free on the GPU" * bool(gpu_gb) in told
    assert ("one copy of the model" in told) == (mode == "one process")
    assert all(f"{factor}×" in told for factor in (2, 4, 8))


def test_where_nothing_fits_it_is_said_how_much_is_missing() -> None:
    made = plan(TYPICAL, Bytes(2 * GB), 8, 64, True)
    assert not made.fits and made.missing.ram == made.need.ram - int(SHARE * 2 * GB)
    assert "in one process, and one worker take 2.50 GB: 0.90 GB too much" in made.lines()[-1]
    without = plan(TYPICAL, Bytes(2 * GB), 8, 64, False)
    assert without.fits and without.mode == "sequential"


def test_the_whole_memory_is_never_taken_for_the_free() -> None:
    """What somebody else has is gone from what may be planned with. Others use this machine too: a few attempts."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size, gone = 2**30, []
    for _ in range(5):
        before = free_memory(FlowConfig(path="x"))
        with mmap.mmap(-1, size) as held:
            for page in range(0, size, mmap.PAGESIZE):
                held[page] = 1
            gone.append(before.ram - free_memory(FlowConfig(path="x")).ram)
        assert 0 < before.ram < total
        if size / 2 < gone[-1] < 2 * size:
            return
    raise AssertionError(f"1 GB was taken, and of the free memory {gone} are gone")


HOLDING = """
import mmap, os, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared:
    private = bytearray(os.urandom(40 * 2**20))
    print(sum(shared[page] for page in range(0, len(shared), mmap.PAGESIZE)), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_what_processes_share_is_counted_once(tmp_path: Path) -> None:
    """Two that have mapped the same 200 MB, and have 40 MB each."""
    (tmp_path / "library").write_bytes(bytes(200 * 2**20))
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "library")]
    two = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for one in two:
            assert one.stdout is not None and one.stdout.readline() == b"0\n"
        for one in two:
            resident = int(Path(f"/proc/{one.pid}/statm").read_text().split()[1]) * mmap.PAGESIZE
            assert 140 * 2**20 < private_bytes(one.pid) < resident - 90 * 2**20
            assert peak_bytes(one.pid) >= private_bytes(one.pid)
    finally:
        for one in two:
            one.communicate()


# ---- a real node, a real worker


def flow(folder: Path, width: int = 7, hidden: int = 64, horizon: int = 10) -> FlowConfig:
    spec = SyntheticConfig(width=width).make().spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = Shape({STATE: spec.observations[STATE]}, spec.action, horizon, hidden=hidden, blocks=2)
        save(FlowNetwork(shape), folder)
    return FlowConfig(path=str(folder))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


@pytest.mark.long
@pytest.mark.realtime
def test_costs_are_those_of_a_real_node_and_worker(tmp_path: Path) -> None:
    """A worker that computes 4 ms a tick; a policy of 34 MB, which a learner has six times with its state."""
    policy, robot = flow(tmp_path, hidden=1024), SyntheticConfig(width=7, steps=40, work_ms=4.0)
    said: list[str] = []
    found = measure_costs(robot, policy, True, 32, episodes=4, say=said.append)
    assert len(said) == 2
    assert 0.04 <= found.worker_cpu_s <= 0.5 and found.episode_s >= found.worker_cpu_s
    assert 0 < found.node_cpu_s < 1 and 0 < found.node_busy_s < found.episode_s
    mb = 2**20
    assert 15 * mb < found.worker.ram < 400 * mb and not found.worker.gpu
    weights = sum(parameter.numel() for parameter in policy.make().flow.network.parameters()) * 4  # type: ignore[union-attr]
    assert found.node.ram > weights + 50 * mb
    state = found.both.ram - found.node.ram
    assert 3 * weights <= state < 3 * weights + 200 * mb and found.learner.ram > 4 * weights
    assert (
        f"weights {weights / 1e6:.3g} MB" in found.facts[1]
        and "activations of 32" in found.facts[1]
        and not found.facts[1].endswith(" 0 MB")
    )
    made = plan(found, Bytes(free_bytes()), 2, 64, True)
    assert made.fits and 1 <= made.workers <= 64
    # less work is less time: it is the worker that was measured
    again = measure_costs(replace(robot, work_ms=0.5), policy, False, episodes=4)
    assert 0.005 <= again.worker_cpu_s < 0.7 * found.worker_cpu_s
    assert again.learner == Bytes(0) and again.both == again.node


@pytest.mark.long
def test_a_worker_that_grows_with_its_tasks_is_measured_with_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    from growing_robot import MB, GrowingConfig

    few = measure_costs(GrowingConfig(tasks=2), flow(tmp_path), False, episodes=20)
    many = measure_costs(GrowingConfig(tasks=8), flow(tmp_path), False, episodes=20)
    assert 18 * MB < many.worker.ram - few.worker.ram < 30 * MB  # six times 4


@pytest.mark.slow
def test_the_command_prints_a_plan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flow(tmp_path)
    line = ["plan", "--robot.type=synthetic", "--robot.steps=30", f"--policy.path={tmp_path}", "--rollouts=6"]
    assert main(line) == 0
    told, progress = capfd.readouterr()
    assert re.search(r"^plan: policy node \+ learner \+ \d workers?, 6 rollouts ", told, re.MULTILINE)
    assert "limited by " in told and "8×" in told and "measuring a worker's episodes" in progress
    assert not [line for line in subprocess.getoutput("ps -eo args").splitlines() if str(tmp_path) in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys, words",
    [
        (["--robot.type=camera", "--robot.source=FOLDER/none.mp4", "--policy.path=FLOW"], "no simulation with an outc"),
        pytest.param(
            ["--robot.type=synthetic", "--robot.width=3", "--policy.path=FLOW"],
            "observation.state: shape: robot 3, pol",
            marks=pytest.mark.long,
        ),
        pytest.param(["--robot.type=synthetic", "--policy.path=FOLDER/none"], "none", marks=pytest.mark.long),
        (["--robot.type=synthetic", "--policy.type=ticker"], "learner: ticker is no flow policy, which is all that a"),
        (["--robot.type=gym", "--robot.env_id=PickCube-v1", "--policy.path=FLOW"], "What a package registers is MOD"),
        pytest.param(
            ["--robot.type=synthetic", "--robot.limit=0.001", "--policy.path=FLOW", "--learner=false"],
            "is beyond 0.001",
            marks=pytest.mark.long,
        ),
    ],
    ids=["no outcome", "does not fit", "no policy", "no flow policy", "no environment", "fails"],
)
def test_what_cannot_be_planned_is_a_sentence(
    keys: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flow(tmp_path / "flow")
    line = [key.replace("FLOW", str(tmp_path / "flow")).replace("FOLDER", str(tmp_path)) for key in keys]
    status = main(["plan", *line])
    told = capfd.readouterr().err
    assert words in told and "Traceback" not in told
    assert status == (1 if "limit" in "".join(keys) else 2)
