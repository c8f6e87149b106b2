"""A shadow policy: what it reports is what was apart, and whatever becomes of it, the first policy answers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from doubles import eventually
from hypothesis import given
from hypothesis import strategies as st
from processes import ROOT, end, endpoint_of

from tactus.hal.spec import STATE, Feature, Observation, PolicySpec, image
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Request, Session
from tactus.runtime.policy_node.inference import Ask, Inference, make
from tactus.runtime.policy_node.shadow import mismatches
from tactus.runtime.policy_node.shadow_report import Differences, line
from tactus.runtime.wire.link import Link, Reply

pytestmark = pytest.mark.realtime

CAMERA = "observation.images.camera_0"
ROBOT = SyntheticConfig(width=7, cameras=1, image_size=(64, 64))
SPEC = PolicySpec(
    "first",
    {STATE: Feature((3,), "float32"), CAMERA: image(64, 64)},
    Feature((2,), "float32", low=(-1.0, 0.0), high=(1.0, 4.0), names=("elbow", "grip"), unit=("deg", "%")),
    8,
    n_action_steps=4,
)


# what is made of two answers


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_report_is_what_numpy_says_of_the_steps_that_are_executed(count: int, horizon: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    found = Differences(SPEC, replace(SPEC, name="other", horizon=horizon, n_action_steps=1))
    apart = []
    for _ in range(count):
        first, shadow = (random.normal(size=(h, 2)).astype(np.float32) for h in (8, horizon))
        found.add(first, shadow, 5.0)
        steps = min(4, horizon)
        apart.append(np.abs(first[:steps].astype(float) - shadow[:steps]))
    rows, report = np.concatenate(apart), found.report()
    assert report["compared"] == count and report["steps"] == min(4, horizon)
    for i, each in enumerate(report["dimensions"]):
        assert each["mean"] == pytest.approx(rows[:, i].mean()) and each["max"] == rows[:, i].max()
        assert each["p95"] == pytest.approx(np.percentile(rows[:, i], 95))
        assert each["share"]["max"] == pytest.approx(each["max"] / (2.0, 4.0)[i])
        assert each["scale_is"] == "training range" and each["unit"] == ("deg", "%")[i]
    assert "elbow mean" in line({**report, "skipped": 0}) and "of the training range" in line({**report, "skipped": 0})


def test_without_a_range_it_is_the_robots_limits_or_the_spread_of_the_actions() -> None:
    bare = replace(SPEC, action=Feature((2,), "float32", unit=""))
    chunk = np.array([[0, 10], [2, 10], [0, 10], [2, 10]], np.float32)
    found = Differences(bare, bare)
    found.add(chunk, chunk + 1, 5.0)
    first, second = found.report()["dimensions"]
    assert first["scale_is"] == "std of the first policy's actions" and first["share"]["max"] == 1.0
    assert second["share"] is None and second["max"] == 1.0  # it never moved: there is nothing to be a share of
    found.of(Feature((2,), "float32", unit="rad", names=("a", "b"), low=(0, 0), high=(4, 8)))
    assert [(d["name"], d["unit"], d["share"]["max"]) for d in found.report()["dimensions"]] == [
        ("a", "rad", 0.25),
        ("b", "rad", 0.125),
    ]


STATE_OF_2 = {**SPEC.inputs, STATE: Feature((2,), "float32")}
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "another action": ({"action": Feature((3,), "float32")}, "action: shape: first policy 2, shadow 3"),
    "another unit": ({"action": replace(SPEC.action, unit="rad")}, "action: unit: first policy deg, %, shadow rad"),
    "another state": ({"inputs": STATE_OF_2}, f"{STATE}: shape: first policy 3, shadow 2"),
    "a camera more": ({"inputs": {**SPEC.inputs, "x": image(64, 64)}}, "the shadow reads x, the first policy does not"),
    "a camera less": ({"inputs": {STATE: SPEC.inputs[STATE]}}, f"the first policy reads {CAMERA}, the shadow does not"),
    "another size": ({"inputs": {**SPEC.inputs, CAMERA: image(32, 32)}}, f"{CAMERA}: shape: first policy 64x64x3"),
    "a history": ({"observation_offsets": (-1, 0)}, "history: first policy 1 observations, shadow 2"),
}


@pytest.mark.parametrize(("changes", "words"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_compared_is_said(changes: dict[str, Any], words: str) -> None:
    assert words in "; ".join(mismatches(SPEC, replace(SPEC, name="other", **changes)))


def test_what_may_differ_may_differ() -> None:
    other = {"name": "other", "horizon": 3, "n_action_steps": None, "takes_prefix": True, "fps": 5.0}
    assert not mismatches(SPEC, replace(SPEC, **other))
    smaller = replace(SPEC, inputs={**SPEC.inputs, CAMERA: image(32, 32)})
    assert not mismatches(SPEC, smaller, allow=["image_size"])


# in processes, over the wire


class Node(NamedTuple):
    process: subprocess.Popen[bytes]
    log: Path
    report_file: Path
    link: Link
    history: int

    @property
    def shadow(self) -> int:
        """The shadow's process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        [pid] = [int(child) for child in children if b"shadow_process" in command_line(int(child))]
        return pid

    def stopped(self) -> dict[str, Any]:
        """End it; its report."""
        assert end(self.process, 30) == 0, self.log.read_text()
        return json.loads(self.report_file.read_text())


def command_line(pid: int) -> bytes:
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_bytes() if file.exists() else b""


def lives(pid: int) -> bool:
    file = Path(f"/proc/{pid}/stat")
    return file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def start(log: Path, keys: Sequence[str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "tactus", "serve", "--connect=tcp://127.0.0.1:*", *keys]
    with log.open("ab") as out:
        return subprocess.Popen(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment)


@contextmanager
def serving(folder: Path, *keys: str, robot: SyntheticConfig = ROBOT) -> Iterator[Node]:
    log, report = folder / "serve.log", folder / "report.json"
    process = start(log, [*keys, f"--shadow_report={report}"])
    link: Link | None = None
    try:
        link = Link(endpoint_of(log, 120))
        spec = link.hello(robot.make().spec, 10, real_time=False)
        yield Node(process, log, report, link, len(spec.observation_offsets))
    finally:
        if link is not None:
            link.close()
        end(process)


def answer(node: Node, tick: int, seed: int = 0) -> Reply:
    link, lead = node.link, (node.history,) if node.history > 1 else ()
    random = np.random.default_rng(seed + tick)
    arrays = {
        STATE: random.normal(size=(*lead, 7)).astype(np.float32),
        CAMERA: random.integers(0, 256, (*lead, 64, 64, 3), np.uint8),
    }
    link.request(Observation(arrays, dict.fromkeys(arrays, 1), tick, "pick"), 0, 0)
    until_s = time.monotonic() + 30
    while not (replies := link.poll()):
        assert time.monotonic() < until_s, "no answer"
        link.wait(0.05)
    return replies[0]


def scrape(log: Path) -> dict[str, float]:
    url = re.findall(r"http://\S+/metrics", log.read_text())[-1]
    with urllib.request.urlopen(url, timeout=5) as page:
        lines = page.read().decode().splitlines()
    return {one.rpartition(" ")[0]: float(one.rpartition(" ")[2]) for one in lines if not one.startswith("#")}


def drive(node: Node, enough: int, within_s: float = 120) -> None:
    """Episodes of bursts, which a shadow cannot keep up with, and pauses, until `enough` answers were compared."""
    until_s, episode = time.monotonic() + within_s, 0
    while scrape(node.log)["tactus_policy_shadow_compared_total"] < enough:
        assert time.monotonic() < until_s, node.log.read_text()
        node.link.reset(episode, 5, "pick")
        for tick in range(5):
            assert answer(node, tick, episode).chunk is not None
            time.sleep(0.3 if tick in (0, 3) else 0)
        time.sleep(0.5)
        episode += 1


RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "act": ("act", {}),
    "act, ensembled": ("act", {"n_action_steps": 1, "temporal_ensemble_coeff": 0.01}),
    "diffusion, of two observations": ("diffusion", {}),
    "smolvla": ("smolvla", {}),
}


def checkpoint(folder: Path, recipe: str) -> Path:
    import checkpoints

    kind, settings = RECIPES[recipe]
    return getattr(checkpoints, kind)(folder, images={CAMERA: (64, 64)}, state=7, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["diffusion, of two observations", "smolvla"])
def test_noise_goes_on_where_the_firsts_stood_though_the_episode_is_opened_with_it(recipe: str, tmp_path: Path) -> None:
    """A shadow that missed an episode's first answer is told of the episode and of the noise at once."""
    first, shadow = (make(LeRobotConfig(path=str(checkpoint(tmp_path / "one", recipe)), threads=1)) for _ in range(2))
    lead = (2,) if len(first.spec.observation_offsets) > 1 else ()
    arrays = {STATE: np.zeros((*lead, 7), np.float32), CAMERA: np.zeros((*lead, 64, 64, 3), np.uint8)}
    request, reset = Request("s", Observation(arrays, {}, 0, "pick")), Session("s", 5, "pick")
    Inference(first).answer([Ask(request, reset)])
    noise = first.noise("s")
    [expected], [found] = (
        Inference(first).answer([Ask(request)]),
        Inference(shadow).answer([Ask(request, reset, noise)]),
    )
    assert expected.chunk is not None and found.chunk is not None
    np.testing.assert_array_equal(found.chunk.actions, expected.chunk.actions)


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_checkpoint_is_apart_by_exactly_nothing(recipe: str, tmp_path: Path) -> None:
    """With answers skipped in between: for those that draw noise too, and those that remember."""
    path = checkpoint(tmp_path / "one", recipe)
    keys = [f"--policy.path={path}", f"--shadow.path={path}", "--policy.threads=1", "--shadow.threads=1"]
    with serving(tmp_path, *keys, "--metrics_port=0") as node:
        drive(node, 6)
        report = node.stopped()
    assert report["compared"] >= 6 and report["skipped"] > 0 and report["errors"] == 0
    assert [(d["mean"], d["p95"], d["max"]) for d in report["dimensions"]] == [(0.0, 0.0, 0.0)] * 7
    assert [d["name"] for d in report["dimensions"]] == [f"joint_{i}" for i in range(7)]
    said = node.log.read_text()
    assert "equal in every action" in said and f"{report['compared']} compared" in said


@pytest.mark.long
def test_a_changed_weight_is_seen_where_it_is(tmp_path: Path) -> None:
    """One that moves action 2 by 0.1 of its range's unit, in every step."""
    from safetensors.torch import load_file, save_file

    one, other = checkpoint(tmp_path / "one", "act"), checkpoint(tmp_path / "other", "act")
    weights = load_file(other / "model.safetensors")
    weights["model.action_head.bias"][2] += 0.1
    save_file(weights, other / "model.safetensors")
    threads = ["--policy.threads=1", "--shadow.threads=1"]
    with serving(tmp_path, f"--policy.path={one}", f"--shadow.path={other}", *threads, "--metrics_port=0") as node:
        drive(node, 3)
        eventually(lambda: any("share{" in key for key in scrape(node.log)), 5)
        seen, report = scrape(node.log), node.stopped()
    apart = [d["max"] for d in report["dimensions"]]
    assert apart[2] > 0.005 and apart[:2] + apart[3:] == [0.0] * 6
    assert seen['tactus_policy_shadow_difference{dimension="joint_2",statistic="max"}'] == pytest.approx(apart[2])
    assert report["latency_ms"]["p50"] > 0 and report["dimensions"][2]["share"]["p95"] > 0
    assert "furthest apart: joint_2 mean" in node.log.read_text()


TICKER = ["--policy.type=ticker", "--policy.cameras=1", "--policy.image_size=[64,64]"]
AS_TICKER = ["--shadow.cameras=1", "--shadow.image_size=[64,64]"]


def shadows(kind: str, *keys: str) -> list[str]:
    return [*TICKER, f"--shadow.type={kind}", *AS_TICKER, *keys]


def test_a_shadow_that_raises_is_told_once_and_the_first_answers(tmp_path: Path) -> None:
    with serving(tmp_path, *shadows("shadow_policies:Raising"), "--metrics_port=0") as node:
        node.link.reset(0, 1, "pick")
        for tick in range(40):
            assert answer(node, tick).chunk is not None
            time.sleep(0.05)
        eventually(lambda: scrape(node.log)["tactus_policy_shadow_errors_total"] > 1)
        report, said = node.stopped(), node.log.read_text()
    assert report["errors"] > 1 and report["compared"] == 0 and report["dimensions"] == []
    assert said.count("shadow: it raised; the first policy goes on") == 1
    assert said.count("ZeroDivisionError: a weight is zero") == 1 and "traceback: " in said


def test_a_shadow_that_dies_is_told_once_and_the_first_answers(tmp_path: Path) -> None:
    with serving(tmp_path, *shadows("ticker"), "--metrics_port=0") as node:
        drive(node, 3)
        os.kill(node.shadow, signal.SIGKILL)
        node.link.reset(99, 1, "pick")
        for tick in range(30):
            assert answer(node, tick).chunk is not None
            time.sleep(0.02)
        report, said = node.stopped(), node.log.read_text()
    assert said.count("the shadow has ended, killed by signal 9; the first policy goes on alone") == 1
    assert report["compared"] >= 3 and report["skipped"] >= 29


def test_an_answer_does_not_wait_for_a_busy_shadow_which_skips(tmp_path: Path) -> None:
    """It is stopped while the first works, and runs while it does not."""
    with serving(tmp_path, *shadows("shadow_policies:Busy", "--shadow.infer_ms=400"), "--metrics_port=0") as node:
        node.link.reset(0, 1, "pick")
        spent_s = []
        for tick in range(40):
            began_s = time.monotonic()
            assert answer(node, tick).chunk is not None
            spent_s.append(time.monotonic() - began_s)
            time.sleep(0.02)
        assert np.median(spent_s) < 0.1
        eventually(lambda: state_of(node.shadow) in "RS", 5)  # nobody asks: it may run
        report = node.stopped()
    assert report["skipped"] > 30 and report["compared"] + report["skipped"] == 40


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_killed_node_takes_its_shadow_along_even_a_stopped_one(tmp_path: Path) -> None:
    busy = shadows("shadow_policies:Busy", "--shadow.infer_ms=60000")
    with serving(tmp_path, *busy, "--policy.infer_ms=1500") as node:
        pid = node.shadow
        node.link.reset(0, 1, "pick")
        assert answer(node, 0).chunk is not None
        arrays = {STATE: np.zeros(7, np.float32), CAMERA: np.zeros((64, 64, 3), np.uint8)}
        node.link.request(Observation(arrays, dict.fromkeys(arrays, 1), 1, "pick"), 0, 0)
        eventually(lambda: state_of(pid) == "T", 10)
        node.process.kill()
        eventually(lambda: not lives(pid), 10)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["--shadow.type=ticker", "--shadow.width=6"], "action: shape: first policy 7, shadow 6"),
        (["--shadow.type=ticker", "--shadow.cameras=0"], f"the first policy reads {CAMERA}, the shadow does not"),
        (["--shadow.path=/nowhere/at/all"], "shadow: policy.path: no directory '/nowhere/at/all'"),
        (["--shadow.type=tickre"], "shadow.type: found 'tickre'; choose from"),
        (["--shadow_report=x.json"], "shadow_report: is for a shadow; give --shadow.path too"),
        (["--shadow.path=x", "--shadow_report=/proc/x.json"], "shadow_report: /proc/x.json cannot be written"),
    ],
)
def test_a_shadow_that_cannot_be_is_told_before_the_node_is_ready(keys: list[str], words: str, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    given = [*TICKER, "--shadow.image_size=[64,64]"] if "--shadow.type=ticker" in keys else TICKER
    given += ["--shadow.cameras=1"] * ("--shadow.width=6" in keys)
    process = start(log, [*given, *keys])
    assert process.wait(120) == 2
    assert words in log.read_text() and "Traceback" not in log.read_text() and " at tcp" not in log.read_text()
