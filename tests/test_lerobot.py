"""LeRobot checkpoints as policies: the contract, what is read from a checkpoint, and every way one can be unusable."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from conftest import Serve
from safetensors.torch import load_file, save_file

from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Feature, Observation, PolicySpec, RobotSpec, SpecError, image
from tactus.hal.synthetic import SyntheticConfig
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.lerobot.temporal_ensemble import TemporalEnsemble
from tactus.policies.lerobot.weights import CheckpointError
from tactus.policies.policy import Policy, Prefix, Request, Session
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.handshake import mismatches, notes
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link, Refused
from tactus.testing import PolicyConformance

pytestmark = pytest.mark.slow

CAMERA = "observation.images.image"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    checkpoints.act(root / "act", images={}, state=8, action=7, environment_state=14, chunk_size=10, n_action_steps=6)
    checkpoints.act(
        root / "ensemble",
        images={},
        state=3,
        environment_state=2,
        action=2,
        chunk_size=6,
        n_action_steps=1,
        temporal_ensemble_coeff=0.01,
    )
    checkpoints.diffusion(root / "diffusion", state=4, action=3)
    checkpoints.vqbet(root / "vqbet", state=4, action=3)
    checkpoints.smolvla(root / "smolvla", state=8, action=7)
    checkpoints.smolvla(root / "seven", state=7, action=7)
    return {folder.name: folder for folder in root.iterdir()}


def policy(folder: Path, **changes: Any) -> Policy:
    return LeRobotConfig(path=str(folder), **({"threads": 1} | changes)).make()


@functools.cache
def shared(folder: Path) -> Policy:
    """One policy for several tests, as a policy node has one for several robots."""
    return policy(folder)


def observation(policy: Policy, seed: int, tick: int = 0, task: str = "put it there") -> Observation:
    random = np.random.default_rng(seed)
    lead = (len(policy.spec.observation_offsets),) if len(policy.spec.observation_offsets) > 1 else ()
    arrays = {}
    for name, feature in policy.spec.inputs.items():
        shape = (*lead, *feature.shape)
        arrays[name] = (
            random.integers(0, 256, shape, np.uint8)
            if feature.is_image
            else random.normal(size=shape).astype("float32")
        )
    return Observation(arrays, {}, tick, task)


KINDS = ["act", "ensemble", "diffusion", "vqbet", "smolvla"]


class TestConformance(PolicyConformance):
    @pytest.fixture(params=KINDS)
    def policy(self, request: pytest.FixtureRequest, folders: dict[str, Path]) -> Policy:
        return shared(folders[request.param])


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_do_not_matter(folders: dict[str, Path], kind: str) -> None:
    """A robot's actions, over three chunks, alone and in passes of 2, 5 and 8 with other robots and tasks."""
    ours = shared(folders[kind])

    def actions(neighbours: int) -> np.ndarray:
        names = ["mine", *(f"other {i}" for i in range(neighbours))]
        for i, name in enumerate(names):
            ours.reset(Session(name, 77 if name == "mine" else i, ""))
        chunks = []
        for tick in range(0, 9, 3):
            requests = [
                Request(name, observation(ours, 100 * i + tick, tick, f"task {'long ' * i}"))
                for i, name in enumerate(names)
            ]
            order = np.random.default_rng(tick).permutation(len(names))
            answers = ours.infer([requests[i] for i in order])
            chunks.append(answers[list(order).index(0)].actions)
        return np.stack(chunks)

    alone = actions(0)
    np.testing.assert_array_equal(actions(0), alone)
    for neighbours in (1, 4, 7):
        np.testing.assert_allclose(actions(neighbours), alone, atol=1e-5, rtol=1e-5)


def test_the_spec_is_the_checkpoints(folders: dict[str, Path]) -> None:
    spec = policy(folders["act"]).spec
    assert {name: feature.shape for name, feature in spec.inputs.items()} == {STATE: (8,), ENVIRONMENT_STATE: (14,)}
    assert (spec.horizon, spec.n_action_steps, spec.action.shape, spec.fps) == (10, 6, (7,), None)
    assert spec.name.startswith("act:act:") and not spec.takes_prefix
    spec = policy(folders["act"], n_action_steps=3, fps=20.0).spec
    assert (spec.n_action_steps, spec.fps) == (3, 20.0)
    spec = policy(folders["diffusion"]).spec
    assert spec.observation_offsets == (-1, 0) and spec.inputs[CAMERA] == image(64, 64)
    assert (spec.horizon, spec.n_action_steps) == (15, 8), "16 from the previous tick on"
    assert policy(folders["ensemble"]).spec.n_action_steps == 1
    assert policy(folders["smolvla"]).spec.takes_prefix


def test_a_whole_chunk_is_postprocessed_as_its_steps_are(folders: dict[str, Path]) -> None:
    for kind in KINDS:
        ours: Any = shared(folders[kind])
        raw = torch.randn(2, 7, *ours.spec.action.shape, generator=torch.Generator().manual_seed(1))
        steps = torch.stack([ours._postprocessor(raw[:, i]) for i in range(7)], dim=1)
        assert torch.equal(ours._postprocessor(raw), steps)


def test_vectors_of_any_dtype_are_cast(folders: dict[str, Path]) -> None:
    ours = policy(folders["act"])
    ours.reset(Session("a", 0, ""))
    narrow = observation(ours, 1)
    wide = Observation({name: array.astype("float64") for name, array in narrow.arrays.items()}, {}, 0, narrow.task)
    [one] = ours.infer([Request("a", narrow)])
    [other] = ours.infer([Request("a", wide)])
    np.testing.assert_array_equal(one.actions, other.actions)


def test_a_prefix_holds_the_chunk_to_what_is_committed(folders: dict[str, Path]) -> None:
    for guidance in ("identity", "vjp"):
        ours = policy(folders["smolvla"], guidance=guidance, guidance_schedule="ones", overrides={"num_steps": 10})
        for name in ("free", "held"):
            ours.reset(Session(name, 5, ""))
        seen = observation(ours, 3)
        [free] = ours.infer([Request("free", seen)])
        assert free.raw is not None and free.raw.shape == (ours.spec.horizon, 7)
        prefix = Prefix(free.raw[2:] + 0.5, 4)
        held, again = ours.infer([Request("held", seen, prefix=prefix), Request("free", seen)])
        assert held.raw is not None and again.raw is not None
        far = np.abs(free.raw[:4] - prefix.actions[:4]).mean()
        near = np.abs(held.raw[:4] - prefix.actions[:4]).mean()
        assert near < 0.5 * far, f"{guidance}: {near} {far}"
        assert np.abs(again.raw - free.raw).max() > 0.01, "the free robot goes on with noise of its own"


def test_what_was_executed_can_be_a_prefix(folders: dict[str, Path]) -> None:
    ours = policy(folders["smolvla"])
    ours.reset(Session("robot", 5, ""))
    [chunk] = ours.infer([Request("robot", observation(ours, 3))])
    assert chunk.raw is not None and np.abs(chunk.actions - chunk.raw).max() > 0.01
    np.testing.assert_allclose(ours.as_raw(chunk.actions[:4]), chunk.raw[:4], atol=1e-5)
    with pytest.raises(SpecError, match="does not say what executed actions are in its own form"):
        policy(folders["act"]).as_raw(chunk.actions[:4])


def test_a_policy_whose_numbers_look_like_shares_is_noted(
    folders: dict[str, Path], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The training data's range is all that a checkpoint says about its units."""
    spec = policy(folders["act"]).spec
    assert len(spec.action.low) == len(spec.action.high) == 7
    assert all(-1 < low < high < 1 for low, high in zip(spec.action.low, spec.action.high, strict=True))
    assert PolicySpec.from_dict(spec.to_dict()) == spec
    robots = {unit: RobotSpec("so100", 30.0, spec.inputs, Feature((7,), "float32", unit=unit)) for unit in ("deg", "%")}
    wide = replace(spec, action=replace(spec.action, high=(140.0, *spec.action.high[1:])))
    unknown = replace(spec, action=Feature((7,), "float32", unit=""))
    assert [len(notes(robots["deg"], one)) for one in (spec, wide, unknown)] == [1, 0, 0]
    assert notes(robots["%"], spec) == []
    link = Link(serve(policy(folders["act"])).endpoint)
    link.hello(robots["deg"], 10)
    link.close()
    assert "a policy from before LeRobot used degrees needs range_m100_100 (--robot.unit)" in caplog.text


class TestEnsemble:
    def test_asked_every_tick_it_is_lerobots(self) -> None:
        from lerobot.policies.act.modeling_act import ACTTemporalEnsembler

        ours, theirs = TemporalEnsemble(0.01, 6), ACTTemporalEnsembler(0.01, 6)
        for tick in range(20):
            chunk = torch.randn(6, 2, generator=torch.Generator().manual_seed(tick))
            assert torch.equal(ours.update(chunk, tick)[0], theirs.update(chunk[None])[0])

    @pytest.mark.parametrize("ticks", [(0, 2, 4, 5), (0, 5, 9), (0, 1, 8), (3, 6, 6, 7), (0, 9, 9, 20)])
    def test_skipped_and_repeated_ticks(self, ticks: tuple[int, ...]) -> None:
        """Against the definition: all predictions for a tick, oldest first, weighed by exp(-m·i)."""
        ours, predictions = TemporalEnsemble(0.3, 6), dict[int, torch.Tensor]()
        for tick in ticks:
            chunk = predictions[tick] = torch.randn(6, 2, generator=torch.Generator().manual_seed(tick))
            found = ours.update(chunk, tick)
            for i in range(6):
                past = [predictions[t][tick + i - t] for t in sorted(predictions) if t <= tick + i < t + 6]
                weights = torch.exp(-0.3 * torch.arange(len(past)))
                expected = (torch.stack(past) * weights[:, None]).sum(0) / weights.sum()
                torch.testing.assert_close(found[i], expected)


class TestRename:
    ROBOT = {STATE: Feature((8,), "float32", unit="rad"), "observation.images.front": image(64, 64)}

    def spec(self, **changes: Any) -> RobotSpec:
        return RobotSpec("arm", 30.0, {**self.ROBOT, **changes}, Feature((7,), "float32"))

    def test_names_differ(self, folders: dict[str, Path]) -> None:
        reason, advice = mismatches(self.spec(), policy(folders["smolvla"]).spec)
        assert reason.startswith(f"{CAMERA}: the policy needs it, the robot observes observation.images.front")
        assert advice.endswith(f"--policy.rename='{{observation.images.front: {CAMERA}}}'")

    @pytest.mark.parametrize("saved", [False, True])
    def test_renamed(self, folders: dict[str, Path], tmp_path: Path, saved: bool) -> None:
        rename = {"observation.images.front": CAMERA}
        if saved:  # in the checkpoint
            shutil.copytree(folders["smolvla"], tmp_path / "it")

            def save(processor: dict[str, Any]) -> None:
                processor["steps"][0]["config"]["rename_map"] = rename

            edit_json(tmp_path / "it", "policy_preprocessor.json", save)
        ours = policy(tmp_path / "it") if saved else policy(folders["smolvla"], rename=rename)
        assert mismatches(self.spec(), ours.spec) == []
        plain = policy(folders["smolvla"])
        for one in (ours, plain):
            one.reset(Session("a", 0, ""))
        seen = observation(plain, 1)
        renamed = Observation(
            {STATE: seen.arrays[STATE], "observation.images.front": seen.arrays[CAMERA]}, {}, 0, seen.task
        )
        [expected], [found] = plain.infer([Request("a", seen)]), ours.infer([Request("a", renamed)])
        np.testing.assert_array_equal(found.actions, expected.actions)

    def test_to_what_the_checkpoint_does_not_have(self, folders: dict[str, Path]) -> None:
        with pytest.raises(CheckpointError, match=f"no observation.images.top; it reads .*{CAMERA}"):
            policy(folders["smolvla"], rename={"observation.images.front": "observation.images.top"})


def test_another_image_size_must_be_allowed(folders: dict[str, Path], serve: Serve) -> None:
    ours = policy(folders["smolvla"])
    robot = RobotSpec("arm", 30.0, {STATE: Feature((8,), "float32"), CAMERA: image(96, 48)}, Feature((7,), "float32"))
    link = Link(serve(ours).endpoint)
    with pytest.raises(Refused, match=r"shape: robot 96x48x3, policy 64x64x3; .* accept it with --allow image_size"):
        link.hello(robot, 5)
    link.close()

    link = Link(serve(ours, allow=["image_size"]).endpoint)
    link.hello(robot, 5)
    link.reset(0, 0, "task")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 48, 3), np.uint8)
    link.request(Observation({STATE: np.zeros(8, np.float32), CAMERA: pixels}, {}, 0, "task"), 0, 0)
    assert link.wait(20)
    [reply] = link.poll()
    assert reply.chunk is not None, reply.error
    link.close()


def test_two_robots_at_once_on_one_model(
    folders: dict[str, Path], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each does what it does alone, whatever comes and goes beside it; and the model is built once."""
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    built = []
    build = SmolVLAPolicy.__init__
    monkeypatch.setattr(SmolVLAPolicy, "__init__", lambda self, *a, **k: built.append(1) or build(self, *a, **k))
    spec = SyntheticConfig(width=7, cameras=1, image_size=(64, 64), steps=60, fps=50.0)
    rename = {"observation.images.camera_0": CAMERA}
    node = serve(policy(folders["seven"], rename=rename), virtual_batch=2)

    def episode(number: int) -> np.ndarray:
        robot, clock, link = spec.make(), VirtualClock(50.0), Link(node.endpoint)
        served = link.hello(robot.spec, 10, real_time=False)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:2"), lost_after_s=60)
        stats = RobotNode(robot, served, delayed, clock, LoopConfig()).run_episode(number, 5)
        link.close()
        return np.stack(stats.actions)

    alone = {number: episode(number) for number in (0, 1)}
    together: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def life(number: int) -> None:
        together[number] += [episode(number) for _ in range(2)]

    lives = [threading.Thread(target=life, args=[number]) for number in together]
    for thread in lives:
        thread.start()
    for thread in lives:
        thread.join(60)
    assert len(built) == 1 and not np.allclose(alone[0], alone[1])
    for number, episodes in together.items():
        assert len(episodes) == 2
        for actions in episodes:
            np.testing.assert_allclose(actions, alone[number], atol=1e-5, rtol=1e-5)


def edit_json(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def edit_tensors(folder: Path, pattern: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    [file] = folder.glob(pattern)
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file)


NORMALIZER, UNNORMALIZER = "policy_preprocessor_step_*_normalizer*", "policy_postprocessor_step_*_unnormalizer*"
MODEL = "model.safetensors"


def first_weight(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name, tensor in sorted(tensors.items()) if tensor.is_floating_point() and tensor.ndim == 2)


def drop(tensors: dict[str, torch.Tensor], *names: str) -> None:
    for name in names:
        del tensors[name]


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first_weight(tensors)][0, 0] = float("nan")


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (lambda f: (f / MODEL).unlink(), r"lacks model\.safetensors; found config\.json"),
    "no config": (lambda f: (f / "config.json").unlink(), r"lacks config\.json"),
    "no processors": (
        lambda f: (f / "policy_preprocessor.json").unlink(),
        r"lacks policy_preprocessor\.json.*migrate_policy_normalization",
    ),
    "partial weights": (
        lambda f: edit_tensors(f, MODEL, lambda t: drop(t, first_weight(t))),
        r"weights of .*: 1 missing: model\..*All of them are needed",
    ),
    "foreign weights": (
        lambda f: edit_tensors(f, MODEL, lambda t: t.update({"other.weight": torch.zeros(2)})),
        r"1 not part of this policy: other\.weight",
    ),
    "NaN weights": (lambda f: edit_tensors(f, MODEL, poison), r"1 NaN or infinite: model\."),
    "weights cut short": (
        lambda f: (f / MODEL).write_bytes((f / MODEL).read_bytes()[:5000]),
        r"model\.safetensors is cut short or no safetensors",
    ),
    "statistics under another name": (
        lambda f: edit_tensors(f, UNNORMALIZER, lambda t: t.update({"actions.mean": t.pop("action.mean")})),
        r"postprocessor's action lacks mean",
    ),
    "no statistics for the actions": (
        lambda f: edit_tensors(f, UNNORMALIZER, lambda t: drop(t, *[k for k in t if k.startswith("action.")])),
        r"postprocessor has none for action",
    ),
    "no statistics for the state": (
        lambda f: edit_tensors(f, NORMALIZER, lambda t: drop(t, *[k for k in t if STATE in k])),
        rf"preprocessor has none for {STATE}; it has them for ",
    ),
    "narrow statistics": (
        lambda f: edit_tensors(f, NORMALIZER, lambda t: t.update({f"{STATE}.std": torch.ones(5)})),
        rf"{STATE}\.std has shape \[5\], the feature \[8\]",
    ),
    "statistics that are no numbers": (
        lambda f: edit_tensors(f, NORMALIZER, lambda t: t.update({f"{STATE}.std": torch.full((8,), float("nan"))})),
        rf"{STATE}\.std is not finite",
    ),
    "no normaliser": (
        lambda f: edit_json(f, "policy_postprocessor.json", lambda d: d.update(steps=d["steps"][1:])),
        r"the postprocessor has no normaliser, action needs",
    ),
    "unknown type": (
        lambda f: edit_json(f, "config.json", lambda d: d.update(type="oracle")),
        r"config\.json cannot be used: .*oracle",
    ),
    "another size": (
        lambda f: edit_json(f, "config.json", lambda d: d.update(dim_feedforward=48)),
        r"cannot be built.*size mismatch|other than the loaded ones",
    ),
    "more layers": (
        lambda f: edit_json(f, "config.json", lambda d: d.update(n_encoder_layers=3)),
        r"missing: model\.encoder\.layers\.",
    ),
    "not json": (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be used"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_unusable_checkpoints_are_refused(folders: dict[str, Path], tmp_path: Path, fault: str) -> None:
    change, complaint = UNUSABLE[fault]
    folder = tmp_path / "broken"
    shutil.copytree(folders["act"], folder)
    change(folder)
    with pytest.raises(CheckpointError, match=f"(?s){complaint}"):
        policy(folder)


def test_a_training_output_is_pointed_to_its_checkpoint(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["act"], tmp_path / "last" / "pretrained_model")
    with pytest.raises(CheckpointError, match=r"did you mean .*last/pretrained_model\?"):
        policy(tmp_path / "last")


def test_not_enough_memory(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tactus.policies.lerobot.weights._available_bytes", lambda device: 1000)
    with pytest.raises(CheckpointError, match=r"out of memory: .*model\.safetensors needs .* GB on cpu"):
        policy(folders["act"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"path": "/no/such/place"}, "no directory '/no/such/place'; accepted: a checkpoint's directory"),
        ({"path": "nobody/nothing"}, "'nobody/nothing' is no directory here and cannot be had from the hub"),
        ({"device": "cuda:7"}, r"policy\.device: 'cuda:7' cannot be used"),
        ({"overrides": {"chunk_sise": 3}}, r"policy\.overrides: .*chunk_sise"),
        ({"n_action_steps": 11}, r"policy\.n_action_steps: found 11: .*chunk size"),
    ],
)
def test_unusable_settings_are_refused(folders: dict[str, Path], changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        policy(**({"folder": folders["act"]} | changes) if "path" not in changes else {"folder": changes["path"]})


@pytest.mark.parametrize("key", ["max_batch", "threads", "n_action_steps", "guidance_horizon"])
def test_counts_are_positive(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: found 0; must be positive"):
        LeRobotConfig(path="x", **{key: 0})


@pytest.mark.long
@pytest.mark.slow
def test_compiled_is_eager(folders: dict[str, Path]) -> None:
    eager, compiled = policy(folders["act"]), policy(folders["act"], compile="default", max_batch=2)
    for one in (eager, compiled):
        for name in "abc":
            one.reset(Session(name, ord(name), ""))
    for rows in (1, 2):
        requests = [Request(name, observation(eager, ord(name), 0, "task")) for name in "abc"[:rows]]
        for expected, found in zip(eager.infer(requests), compiled.infer(requests), strict=True):
            np.testing.assert_allclose(found.actions, expected.actions, atol=1e-4)
