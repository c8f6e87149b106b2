"""Distillation: a student is its teacher in one step, the known wrong ways are caught as what they are, it resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import flow_teachers
import pytest
import torch
from distillation_faults import Fault, of_any, of_padding

from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.distillation.methods import Reflow
from tactus.policies.distillation.pairs import cached
from tactus.policies.policy import Policy, PolicyConfig
from tactus.runtime.commands.verification import at
from tactus.runtime.distillation.observations import Observations
from tactus.runtime.distillation.student import distill, read_kept
from tactus.runtime.distillation.verification import Verification, verify

pytestmark = pytest.mark.slow

EPISODE = 32
"""Observations of what counts as an episode."""


def quiet(title: str, total: int) -> Callable[[int], object]:
    return lambda more: None


class Taught(NamedTuple):
    """A trained teacher and what it has not seen."""

    config: PolicyConfig
    policy: Policy
    found: Observations

    def student(self, folder: Path, config: DistillationConfig, method: Reflow | None = None) -> Policy:
        return at(self.config, distill(self.policy, self.config.make, self.found, config, folder, quiet, method)).make()

    def verified(self, folder: Path, config: DistillationConfig, method: Reflow | None = None) -> Verification:
        student = self.student(folder, config, method)
        return verify(
            self.policy, student, self.found.held_out, "made", read_kept(folder / "student"), None, config.seed, quiet
        )


def taught(kind: str, folder: Path, steps: int) -> Taught:
    config = flow_teachers.trained(kind, folder, steps)
    policy = config.make()
    seen = flow_teachers.observations(policy.spec, 512, 10**6)
    return Taught(config, policy, Observations(seen, flow_teachers.observations(policy.spec, 96, 2 * 10**6), "made"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    torch.set_num_threads(1)
    return taught("flow", tmp_path_factory.mktemp("flow"), 600)


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    torch.set_num_threads(1)
    return taught("smolvla", tmp_path_factory.mktemp("smolvla"), 60)


RIGHT = DistillationConfig(steps=2500, batch=128, pairs=16384)
BRIEF = DistillationConfig(steps=30, batch=32, pairs=1024, save_every=10)
"""Enough to see what was trained on."""


def told(done: Verification) -> str:
    return "\n".join(f"{check.passed} {check.name}: {check.found} {check.cause}" for check in done.checks)


@pytest.mark.parametrize("seed", range(5))
def test_the_right_way_passes(ours: Taught, tmp_path: Path, seed: int) -> None:
    done = ours.verified(tmp_path, replace(RIGHT, seed=seed))
    assert done.passed, told(done)
    assert all(check.passed for check in done.checks), told(done)


def test_the_students_error_is_small_where_the_teachers_is_not(ours: Taught, tmp_path: Path) -> None:
    """The control: the same check on the teacher in one step, and on one without its second stage, cut short."""
    itself = replace(ours.config, num_steps=1).make()  # type: ignore[call-arg]
    done = verify(ours.policy, itself, ours.found.held_out, "made", None, None, 0, quiet)
    failed = {check.name for check in done.checks if check.passed is False}
    assert not done.passed and failed >= {"error", "straightness"}, told(done)
    assert {check.name for check in done.checks if check.passed is None} == {"noise", "whole chunks", "deploy/train"}


def means(taught: Taught) -> torch.Tensor:
    """Of the teacher's chunks over noises, for every observation."""
    flow = taught.policy.flow
    assert flow is not None
    generator = torch.Generator().manual_seed(9)
    chunks = []
    with torch.no_grad():
        condition = flow.condition(taught.found.training)
        for _ in range(16):
            chunks.append(flow.integrate(condition, flow.noise([generator] * len(taught.found.training))))
    return torch.stack(chunks).mean(0)


@pytest.mark.parametrize("name", of_any(torch.empty(0), 0))
def test_a_wrong_way_is_caught_by_the_check_that_is_about_it(ours: Taught, tmp_path: Path, name: str) -> None:
    caught(ours, tmp_path, of_any(means(ours), EPISODE)[name], RIGHT)


@pytest.mark.parametrize("name", of_padding(0))
def test_a_wrong_way_with_padding_is_caught(smolvla: Taught, tmp_path: Path, name: str) -> None:
    caught(smolvla, tmp_path, of_padding(flow_teachers.A)[name], BRIEF)


def caught(taught: Taught, folder: Path, fault: Fault, config: DistillationConfig) -> None:
    done = taught.verified(folder, config, fault.method)
    check = next(check for check in done.checks if check.name == fault.check)
    assert check.passed is False and fault.cause in check.cause, told(done)
    assert not done.passed and fault.cause in done.reason, done.reason


def test_what_is_trained_on_is_what_deployment_draws(smolvla: Taught, tmp_path: Path) -> None:
    """The right way beside the wrong ones above, as briefly: nothing is said of padding, noise, chunks or time."""
    done = smolvla.verified(tmp_path, BRIEF)
    about = {check.name: check.passed for check in done.checks}
    assert all(about[name] for name in ("padding", "noise", "whole chunks", "direction of time", "cache")), told(done)


@pytest.mark.parametrize("method", ["reflow", "consistency"])
@pytest.mark.parametrize("pairs", [1024, None])
def test_interrupted_anywhere_it_goes_on_to_the_same_bits(
    ours: Taught, tmp_path: Path, method: Any, pairs: int | None
) -> None:
    config = replace(BRIEF, method=method, pairs=pairs)
    whole = ours.student(tmp_path / "whole", config)
    for stop in (4, 10, 29):

        class Interrupted(Reflow):
            pass

        folder = tmp_path / f"stopped {stop}"

        def bar(title: str, total: int, stop: int = stop) -> Callable[[int], object]:
            seen = [0]

            def more(count: int) -> None:
                seen[0] += count
                if title == "training" and seen[0] > stop:
                    raise KeyboardInterrupt

            return more

        with pytest.raises(KeyboardInterrupt):
            distill(ours.policy, ours.config.make, ours.found, config, folder, bar)
        assert (folder / "state.safetensors").exists() == (stop >= 10)
        again = ours.student(folder, config)
        assert whole.flow is not None and again.flow is not None
        theirs = again.flow.network.state_dict()
        for name, tensor in whole.flow.network.state_dict().items():
            assert torch.equal(tensor, theirs[name]), (stop, name)
        a, b = (json.loads((f / "student" / "distillation.json").read_text()) for f in (tmp_path / "whole", folder))
        assert a["losses"] == b["losses"] and a["facts"] == b["facts"]


def test_pairs_are_made_once_and_more_of_them_begin_with_the_same(ours: Taught, tmp_path: Path) -> None:
    flow = ours.policy.flow
    assert flow is not None
    few = cached(flow, ours.found.training, 1500, 0, tmp_path)
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(stamps) == 2
    many = cached(flow, ours.found.training, 2500, 0, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert all(torch.equal(a, b[:1500]) for a, b in zip(few, many, strict=True))
    other = cached(flow, ours.found.training, 100, 1, tmp_path)
    assert not torch.equal(other.noise, few.noise[:100])
    with torch.no_grad():
        condition = flow.condition([ours.found.training[row] for row in few.rows[:8].tolist()])
        assert torch.allclose(flow.integrate(condition, few.noise[:8]), few.chunks[:8], atol=1e-5), "that very pair"


def test_a_file_that_is_cut_is_told_of(ours: Taught, tmp_path: Path) -> None:
    flow = ours.policy.flow
    assert flow is not None
    cached(flow, ours.found.training, 100, 0, tmp_path)
    [file] = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="delete it, and it is made again"):
        cached(flow, ours.found.training, 100, 0, tmp_path)


def test_the_expert_alone_is_trained(smolvla: Taught, tmp_path: Path) -> None:
    """What conditions the velocity stays the teacher's: pictures, text, state."""
    student = smolvla.student(tmp_path, BRIEF)
    assert student.flow is not None and smolvla.policy.flow is not None
    theirs = smolvla.policy.flow.network.state_dict()
    moved = {name for name, t in student.flow.network.state_dict().items() if not torch.equal(t, theirs[name])}
    assert moved and all("expert" in name or "action_" in name for name in moved), moved
