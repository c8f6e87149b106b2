"""Traces: the format, hooks that change nothing, and ours equal to lerobot-eval's through every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from conftest import Serve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from test_lerobot_parity import PUSHT, SEED, pusht_robot

from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Policy
from tactus.policies.tracing.trace_file import KEY, Recorder, Trace, TraceError
from tactus.runtime.commands import main

FAMILIES = {"act": {"chunk_size": 10, "n_action_steps": 7}, "diffusion": {}, "smolvla": {}, "pi0": {}}


def long_but(*brief: str) -> list[Any]:
    return [pytest.param(kind, marks=[pytest.mark.long] * (kind not in brief)) for kind in FAMILIES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    with checkpoints.tiny_pi0():
        return {kind: getattr(checkpoints, kind)(root / kind, **PUSHT, **keys) for kind, keys in FAMILIES.items()}


def policy_of(folder: Path) -> Policy:
    with checkpoints.tiny_pi0():
        return LeRobotConfig(path=str(folder), threads=1).make()


def ours(policy: Policy, chunks: int, layers: str = "all") -> Trace:
    from tactus.runtime.diagnosis.tracing import trace_robot

    robot, recorder = pusht_robot(), Recorder("tactus", policy.spec.name)
    trace_robot(recorder, policy, robot, chunks, 0, SEED, layers)
    robot.close()
    return recorder.trace


def theirs(folder: Path) -> Trace:
    """lerobot-eval's rollout of the same episode."""
    import torch
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import make_env, make_env_pre_post_processors
    from lerobot.envs.configs import PushtEnv
    from lerobot.policies import get_policy_class, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout
    from lerobot.utils.random_utils import set_seed

    from tactus.policies.tracing.hooks import hooked

    torch.set_num_threads(1)
    env_config = PushtEnv(episode_length=24)
    env = make_env(env_config)["pusht"][0]
    with checkpoints.tiny_pi0():
        config: Any = PreTrainedConfig.from_pretrained(folder)
        policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    env_before, env_after = make_env_pre_post_processors(env_config, config)
    recorder = Recorder("lerobot-eval", config.type)
    set_seed(SEED)
    with hooked(recorder, policy, before, after, layers="all"):
        rollout(env, policy, env_before, env_after, before, after, seeds=[SEED])  # pyright: ignore
    env.close()
    return recorder.trace


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_ours_is_lerobot_evals_through_every_stage(folders: dict[str, Path], kind: str) -> None:
    """To the bit: what the preprocessor gets, its steps, pictures, noise, layers, every denoising step, actions."""
    expected = theirs(folders[kind])
    found = ours(policy_of(folders[kind]), len(expected.samples))
    assert len(expected.samples) >= 3
    for mine, its in zip(found.samples, expected.samples, strict=False):
        assert {*its.stages} <= {*mine.stages} and len(its.stages) > 30
        for name, stage in its.stages.items():
            left, right = mine.stages[name].array, stage.array
            if name == "chunk/actions":  # theirs as far as they were executed
                left, right = left[: right.shape[1]], right[0, : len(left)]
            if name == "chunk/normalised":
                right = right[:, : left.shape[1]]
            np.testing.assert_array_equal(left, right, err_msg=name, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["act", "pi0", *(pytest.param(k, marks=pytest.mark.long) for k in ("diffusion", "smolvla"))]
)
def test_a_trace_changes_nothing_and_leaves_nothing(folders: dict[str, Path], kind: str) -> None:
    policy = policy_of(folders[kind])
    checkpoint = policy.checkpoint  # pyright: ignore[reportAttributeAccessIssue]
    before = {name: {*vars(module)} for name, module in checkpoint.policy.named_modules()}
    first, second, unseen = ours(policy, 2), ours(policy, 2), ours(policy, 2, layers="none")
    for a, b, c in zip(first.samples, second.samples, unseen.samples, strict=True):
        assert [*a.stages] == [*b.stages] and {*c.stages} < {*a.stages}
        for name, stage in a.stages.items():
            np.testing.assert_array_equal(stage.array, b.stages[name].array, err_msg=name)
        np.testing.assert_array_equal(a.stages["chunk/actions"].array, c.stages["chunk/actions"].array)
    assert before == {name: {*vars(module)} for name, module in checkpoint.policy.named_modules()}
    assert not any(module._forward_hooks for module in checkpoint.policy.modules())
    assert not checkpoint.preprocessor.after_step_hooks and not checkpoint.postprocessor.after_step_hooks


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["smolvla", *(pytest.param(k, marks=pytest.mark.long) for k in ("act", "diffusion", "pi0"))]
)
def test_a_stage_swapped_for_itself_moves_nothing_and_for_another_it_does(folders: dict[str, Path], kind: str) -> None:
    from tactus.runtime.diagnosis.stage_swap import swap_stages

    policy = policy_of(folders[kind])
    a = ours(policy, 2)
    names = [*a.samples[0].stages]
    names = [name for name in names if not name.startswith(("queue", "executed"))]
    names = names if len(names) < 60 else names[:: len(names) // 30]
    one = Trace("one", samples=a.samples[:1])
    seed = SEED  # of the first sample's episode
    for swap in swap_stages(one, one, policy, names, seed):
        assert not swap.problem and swap.largest and not any(swap.largest), swap
    shifted = Trace.load(_shifted(one, Path(folders[kind]) / "shifted.trace"))
    moved = {s.stage: s for s in swap_stages(one, shifted, policy, ["chunk/normalised", "chunk/actions"], seed)}
    np.testing.assert_allclose(moved["chunk/actions"].largest, 1, atol=1e-4)
    assert min(moved["chunk/normalised"].largest) > 10, "of 256 px a unit"


def _shifted(trace: Trace, file: Path) -> Path:
    """A copy with 1 added to what its chunk has."""
    recorder = Recorder("shifted")
    for sample in trace.samples:
        recorder.begin(**sample.about)
        for stage in sample.stages.values():
            recorder(stage.name, stage.array + 1 if stage.name.startswith("chunk/") else stage.array)
    recorder.save(file)
    return file


@settings(max_examples=50)
@given(
    st.lists(
        st.dictionaries(
            st.text(min_size=1, max_size=20),
            hnp.arrays(st.sampled_from(["f4", "f8", "u1", "i8", "?", "f2"]), hnp.array_shapes(min_dims=0, max_dims=4)),
            max_size=4,
        ),
        max_size=3,
    )
)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, samples: list[dict[str, Any]]) -> None:
    recorder = Recorder("a program", "a policy", "a robot")
    for index, stages in enumerate(samples):
        recorder.begin(task="pick", tick=index)
        for name, array in stages.items():
            recorder(name, array, names=["x"], unit=["m"], axes="HWC")
    file = tmp_path_factory.mktemp("t") / "a.trace"
    recorder.save(file)
    found = Trace.load(file)
    assert (found.program, found.policy, found.robot) == ("a program", "a policy", "a robot")
    assert [sample.about["tick"] for sample in found.samples] == [*range(len(samples))]
    for sample, stages in zip(found.samples, samples, strict=True):
        assert [*sample.stages] == [*stages]
        for name, array in stages.items():
            np.testing.assert_array_equal(sample.stages[name].array, array, strict=True)
            assert sample.stages[name].unit == ("m",)


def test_a_program_of_its_own_writes_one_with_safetensors_alone(tmp_path: Path) -> None:
    """As docs/diagnosis.md tells users of openpi."""
    about = {"version": 1, "program": "openpi", "samples": [{"task": "pick"}]}
    about["stages"] = [{"sample": 0, "name": "noise", "tensor": "0"}]
    save_file({"0": np.zeros((1, 10, 32), np.float32)}, tmp_path / "a.trace", {"tactus-trace": json.dumps(about)})
    trace = Trace.load(tmp_path / "a.trace")
    assert trace.program == "openpi" and trace.samples[0].stages["noise"].array.shape == (1, 10, 32)


def damaged(kind: str, file: Path) -> None:
    recorder = Recorder("p")
    recorder.begin()
    recorder("raw/x", np.arange(1000.0))
    recorder.save(file)
    whole = file.read_bytes()
    about = {"version": 1, "program": "p", "samples": [{}], "stages": []}
    match kind:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("a trace, I promise")
        case "weights":
            save_file({"a": np.zeros(3)}, file)
        case "version":
            save_file({"0": np.zeros(3)}, file, {KEY: json.dumps({**about, "version": 2})})
        case "no json":
            save_file({"0": np.zeros(3)}, file, {KEY: "{"})
        case "a list":
            save_file({"0": np.zeros(3)}, file, {KEY: "[]"})
        case "no such sample":
            about["stages"] = [{"sample": 3, "name": "x", "tensor": "0"}]
            save_file({"0": np.zeros(3)}, file, {KEY: json.dumps(about)})
        case "no such tensor":
            about["stages"] = [{"sample": 0, "name": "x", "tensor": "7"}]
            save_file({"0": np.zeros(3)}, file, {KEY: json.dumps(about)})


DAMAGE = ["missing", "cut", "empty", "text", "weights", "version", "no json", "a list"]


@pytest.mark.parametrize("kind", [*DAMAGE, "no such sample", "no such tensor"])
def test_what_is_no_trace(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.trace"
    damaged(kind, file)
    with pytest.raises(TraceError, match=r"a\.trace: "):
        Trace.load(file)


@pytest.mark.slow
def test_sources_give_the_same_observations(folders: dict[str, Path], tmp_path: Path) -> None:
    """A robot's trace, an .npz of what it saw, and that trace again: the same stages from raw/… on."""
    robot_keys = ["--robot.type=pusht", "--samples=2", "--layers=none", "--seed=7"]
    path = f"--policy.path={folders['act']}"
    assert main(["trace", str(tmp_path / "a.trace"), path, *robot_keys]) == 0
    a = Trace.load(tmp_path / "a.trace")
    arrays = {
        name: np.stack([sample.stages[f"raw/{name}"].array for sample in a.samples])
        for name in ("observation.image", "observation.state")
    }
    np.savez(tmp_path / "seen.npz", **arrays)
    for source in ("seen.npz", "a.trace"):
        file = tmp_path / f"from_{source}.trace"
        assert main(["trace", str(file), path, f"--observations={tmp_path / source}", "--layers=none"]) == 0
        b = Trace.load(file)
        assert len(b.samples) == 2
        for mine, its in zip(a.samples, b.samples, strict=True):
            for name, stage in its.stages.items():
                np.testing.assert_array_equal(mine.stages[name].array, stage.array, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_records_and_datasets_are_traced(folders: dict[str, Path], serve: Serve, tmp_path: Path, kind: str) -> None:
    """What `tactus record` wrote of an episode, as dataset and as flight record: the observations of that episode."""
    policy = policy_of(folders[kind])
    steps = policy.spec.n_action_steps or 0
    keys = [f"--connect={serve(policy).endpoint}", "--robot.type=pusht", "--robot.max_steps=24"]
    keys += ["--episodes=1", f"--seed={SEED}", "--chunk_size_threshold=0", "--dataset_video=false"]
    folder = {name: str(tmp_path / name) for name in ("data", "flight", "out")}
    written = [
        f"--dataset_root={folder['data']}",
        f"--record_flight={folder['flight']}",
        f"--output_dir={folder['out']}",
    ]
    assert main(["record", *keys, *written]) == 0
    robot = ours(policy, 3, layers="none")
    for source, stride in ((folder["flight"], 1), (folder["data"], steps)):
        file = tmp_path / "found.trace"
        keys = [f"--policy.path={folders[kind]}", f"--observations={source}", f"--stride={stride}"]
        assert main(["trace", str(file), *keys, "--samples=3", f"--seed={SEED}", "--layers=none"]) == 0
        found = Trace.load(file)
        assert [sample.about["tick"] for sample in found.samples] == [0, steps, 2 * steps]
        for index, (mine, its) in enumerate(zip(robot.samples, found.samples, strict=True)):
            for name in ("observation.image", "observation.state"):
                left, right = mine.stages[f"sent/{name}"].array, its.stages[f"sent/{name}"].array
                np.testing.assert_allclose(left, right, rtol=1e-6, err_msg=f"{source} {index} {name}")
        actions = [trace.samples[0].stages["chunk/actions"].array for trace in (robot, found)]
        np.testing.assert_allclose(*actions, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys, words",
    [
        (["--observations=nowhere"], "accepted: a flight record"),
        (["--observations={tmp}/empty.npz"], "every array has one row per observation; found none"),
        (["--observations={tmp}/uneven.npz"], "observation.image 2, observation.state 3"),
        (["--observations={tmp}/other.npz"], "no observation.image, which the policy reads; found observation.state"),
        (["--observations={tmp}/wide.npz"], r"observation.state is [3]; the policy reads [2]"),
        (["--observations={tmp}/text.npz"], "is no .npz of plain arrays"),
        (["--observations={tmp}/text.trace"], "no trace, or one that is cut"),
        (["--observations={tmp}"], "holds no flight record"),
        (["--observations={tmp}/empty.npz", "--robot.type=pusht"], "leave out one of them"),
        (["--robot.type=aloha"], "this policy cannot drive this robot"),
        (["--samples=0"], "samples"),
        (["--layers=("], "layers"),
    ],
)
def test_what_cannot_be_traced(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, keys: list[str], words: str
) -> None:
    image, state = np.zeros((2, 96, 96, 3), np.uint8), np.zeros((2, 2), np.float32)
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "uneven.npz", **{"observation.image": image, "observation.state": np.zeros((3, 2))})
    np.savez(tmp_path / "other.npz", **{"observation.state": state})
    np.savez(tmp_path / "wide.npz", **{"observation.image": image, "observation.state": np.zeros((2, 3))})
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "text.trace").write_text("no trace")
    given_keys = [key.format(tmp=tmp_path) for key in keys]
    assert main(["trace", str(tmp_path / "out.trace"), f"--policy.path={folders['act']}", *given_keys]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "out.trace").exists()
