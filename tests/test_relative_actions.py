"""Actions relative to the observed state: every row gets its own robot's, its own observation's, its newest tick's."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from conftest import Serve

from tactus.hal.spec import STATE, Chunk, Feature, Observation, RobotSpec
from tactus.policies.guidance import Prefixes, PrefixGuidance
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.lerobot.relative_actions import RelativeActions
from tactus.policies.lerobot.temporal_ensemble import TemporalEnsemble
from tactus.policies.lerobot.weights import CheckpointError
from tactus.policies.policy import Policy, Prefix, Request, Session
from tactus.runtime.wire.link import Continue, Link, Reply

pytestmark = pytest.mark.slow

WIDTH, H = 3, 10
NAMES = ["shoulder.pos", "elbow.pos", "gripper.pos"]
MASK = np.array([1, 1, 0], np.float32)
RANGES = {"action": (-2.0, 3.0), STATE: (-4.0, 6.0)}
SIZE: Any = {"state": WIDTH, "action": WIDTH, "ranges": RANGES}
VECTORS: Any = {**SIZE, "images": {}, "environment_state": 2}
CAMERA = "observation.images.image"
KINDS = {
    "act": lambda folder: checkpoints.act(folder, **VECTORS),
    "diffusion": lambda folder: checkpoints.diffusion(folder, **VECTORS),
    "vqbet": lambda folder: checkpoints.vqbet(folder, **SIZE),
    "smolvla": lambda folder: checkpoints.smolvla(folder, **SIZE),
    "pi0": lambda folder: checkpoints.pi0(folder, images={CAMERA: (56, 56)}, **SIZE),
}


def make_relative(folder: Path) -> None:
    """Put LeRobot's two steps where `use_relative_actions` puts them in PI0, the gripper excluded."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import make_pre_post_processors
    from lerobot.processor import (
        AbsoluteActionsProcessorStep,
        NormalizerProcessorStep,
        RelativeActionsProcessorStep,
        UnnormalizerProcessorStep,
    )

    before, after = make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), pretrained_path=str(folder))
    relative = RelativeActionsProcessorStep(True, ["gripper"], NAMES)
    for pipeline, kind, step, offset in (
        (before, NormalizerProcessorStep, relative, 0),
        (after, UnnormalizerProcessorStep, AbsoluteActionsProcessorStep(True, relative), 1),
    ):
        steps = [
            one
            for one in pipeline.steps
            if not isinstance(one, (RelativeActionsProcessorStep, AbsoluteActionsProcessorStep))
        ]
        [place] = [i for i, one in enumerate(steps) if isinstance(one, kind)]
        pipeline.steps = [*steps[: place + offset], step, *steps[place + offset :]]
        for file in folder.glob(f"policy_{'pre' if offset == 0 else 'post'}processor*"):
            file.unlink()
        pipeline.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind twice, with the same weights: "act" predicts what it does, "act_relative" the same as an offset."""
    root = tmp_path_factory.mktemp("checkpoints")
    for kind, write in KINDS.items():
        write(root / kind)
        write(root / f"{kind}_relative")
        make_relative(root / f"{kind}_relative")
    relative = {"relative_exclude_joints": ["gripper"], "action_feature_names": NAMES, "use_relative_actions": True}
    checkpoints.pi0(root / "pi0_own", images={CAMERA: (56, 56)}, **SIZE, **relative)
    return {folder.name: folder for folder in root.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with checkpoints.tiny_pi0():
        yield


@functools.cache
def policy(folder: Path, **changes: Any) -> Any:
    return LeRobotConfig(path=str(folder), threads=1, **changes).make()


def observation(policy: Policy, seed: int, tick: int = 0, offset: float = 0.0) -> Observation:
    random = np.random.default_rng(seed)
    lead = (len(policy.spec.observation_offsets),) if len(policy.spec.observation_offsets) > 1 else ()
    arrays = {}
    for name, feature in policy.spec.inputs.items():
        shape = (*lead, *feature.shape)
        drawn = random.integers(0, 256, shape, np.uint8) if feature.is_image else random.normal(size=shape)
        arrays[name] = drawn if feature.is_image else (drawn + offset).astype(np.float32)
    return Observation(arrays, {}, tick, f"task {'long ' * (seed % 3)}")


def newest(seen: Observation) -> np.ndarray:
    return seen.arrays[STATE].reshape(-1, WIDTH)[-1]


def reset(policy: Policy, *names: str) -> None:
    for name in names:
        policy.reset(Session(name, sum(map(ord, name)), ""))


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_relative_to_its_own_newest_state(folders: dict[str, Path], kind: str, rows: int) -> None:
    """Whoever shares the pass, in whatever order, whatever was inferred before: alone and absolute, plus the state."""
    plain, relative = policy(folders[kind]), policy(folders[f"{kind}_relative"])
    names = "abcd"[:rows]
    for turn, order in enumerate(itertools.islice(itertools.permutations(range(rows)), 0, 24, 5)):
        seen = [observation(plain, 10 * turn + i, offset=7.0 * i) for i in range(rows)]
        expected = []
        for name, one in zip(names, seen, strict=True):
            reset(plain, name)
            [chunk] = plain.infer([Request(name, one)])
            expected.append(chunk.actions + MASK * newest(one))
        reset(relative, "other", *names)
        relative.infer([Request("other", observation(plain, 99, offset=50.0))])
        found = relative.infer([Request(names[i], seen[i]) for i in order])
        for i, chunk in zip(order, found, strict=True):
            np.testing.assert_allclose(chunk.actions, expected[i], atol=2e-4)


@pytest.mark.long
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_pass_that_is_filled_up(folders: dict[str, Path], rows: int) -> None:
    """Compiled, for one and for four robots: three leave a row that nobody asked for."""
    plain, compiled = policy(folders["act"]), policy(folders["act_relative"], compile="default", max_batch=4)
    reset(compiled, *"abcd"[:rows])
    seen = [observation(plain, i, offset=9.0 * i) for i in range(rows)]
    found = compiled.infer([Request("abcd"[i], seen[i]) for i in reversed(range(rows))])[::-1]
    for one, chunk in zip(seen, found, strict=True):
        reset(plain, "a")
        [alone] = plain.infer([Request("a", one)])
        np.testing.assert_allclose(chunk.actions, alone.actions + MASK * newest(one), atol=2e-4)


def test_two_sizes_of_image_in_one_infer(folders: dict[str, Path]) -> None:
    relative = policy(folders["smolvla_relative"])
    small, large = observation(relative, 1, offset=3.0), observation(relative, 2, offset=-8.0)
    large = Observation({**large.arrays, CAMERA: np.zeros((80, 96, 3), np.uint8)}, {}, 0, "task")
    alone = []
    for one in (small, large):
        reset(relative, "a")
        alone += relative.infer([Request("a", one)])
    for name in "xyz":
        relative.reset(Session(name, ord("a"), ""))
    together = relative.infer([Request(name, one) for name, one in zip("xyz", (small, large, small), strict=True)])
    for found, expected in zip(together, [*alone, alone[0]], strict=True):
        np.testing.assert_allclose(found.actions, expected.actions, atol=1e-4)


def test_an_ensemble_is_of_what_is_executed(folders: dict[str, Path], tmp_path: Path) -> None:
    """Chunks of different observations: their offsets mean something only with the state that each began at."""
    settings: Any = {"chunk_size": H, "n_action_steps": 1}
    checkpoints.act(tmp_path / "plain", **VECTORS, **settings)
    checkpoints.act(tmp_path / "ensemble", temporal_ensemble_coeff=0.01, **VECTORS, **settings)
    make_relative(tmp_path / "ensemble")
    plain, ensemble = policy(tmp_path / "plain"), policy(tmp_path / "ensemble")
    reset(plain, "a")
    reset(ensemble, "a", "b")
    reference = TemporalEnsemble(0.01, H)
    for tick in (0, 2, 3, 7):
        seen = observation(plain, tick, tick, offset=5.0 * tick)
        [chunk] = plain.infer([Request("a", seen)])
        expected = reference.update(torch.tensor(chunk.actions + MASK * newest(seen)), tick)
        found, _ = ensemble.infer([Request("a", seen), Request("b", observation(plain, 77, tick, offset=-30.0))])
        np.testing.assert_allclose(found.actions, expected.numpy(), atol=2e-4)


class Spy(PrefixGuidance):
    """Guides as it does, and keeps what it was given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Prefixes | None] = []

    def stack(self, *arguments: Any, **more: Any) -> Prefixes | None:
        self.seen.append(super().stack(*arguments, **more))
        return self.seen[-1]


@contextlib.contextmanager
def guided(folder: Path, guidance: Any = "identity") -> Iterator[tuple[Any, Spy]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tactus.policies.lerobot.policy.PrefixGuidance", Spy)
        steps = "num_steps" if "smolvla" in folder.name else "num_inference_steps"
        ours: Any = LeRobotConfig(
            path=str(folder), threads=1, guidance=guidance, guidance_schedule="ones", overrides={steps: 10}
        ).make()
        yield ours, ours._guidance


RTC = ["smolvla_relative", "pi0_relative", "pi0_own"]


@pytest.mark.parametrize("kind", RTC)
@pytest.mark.parametrize("guidance", ["identity", "vjp"])
def test_the_robot_is_held_to_what_it_executes(
    folders: dict[str, Path], serve: Serve, kind: str, guidance: str
) -> None:
    """Over the wire: the state is 0, then 5, with six ticks committed; a second robot shares the pass or not."""
    with guided(folders[kind], guidance) as (ours, spy):
        camera = ours.spec.inputs[CAMERA]
        robot = RobotSpec(
            "arm", 30.0, {STATE: Feature((WIDTH,), "float32"), CAMERA: camera}, Feature((WIDTH,), "float32")
        )
        link = Link(serve(ours).endpoint)
        try:
            link.hello(robot, 10)
            link.reset(0, 0, "task")

            def ask(tick: int, state: float, merged: int, delay: int | None) -> tuple[int, Chunk]:
                arrays = {STATE: np.full(WIDTH, state, np.float32), CAMERA: np.full(camera.shape, 90, np.uint8)}
                seq = link.request(
                    Observation(arrays, dict.fromkeys(arrays, 0), tick, "task"), 0, merged, Continue(delay)
                )
                reply = answer(link)
                assert reply.chunk is not None, reply.error
                return seq, reply.chunk

            merged, first = ask(0, 0.0, 0, 0)
            _, second = ask(3, 5.0, merged, 6)
        finally:
            link.close()
        prefixes = spy.seen[-1]
        assert prefixes is not None
        left = H - 3
        assert prefixes.weights[0, :left].eq(1).all() and not prefixes.weights[0, left:].any()
        executed, state = first.actions[3:], torch.full((1, WIDTH), 5.0)
        np.testing.assert_array_equal(lerobots(ours, executed, state), prefixes.actions[0, :left, :WIDTH].numpy())
        again = ours._postprocessor(prefixes.actions[:, :left, :WIDTH])[0].numpy()
        np.testing.assert_allclose(again, executed, atol=1e-4)
        jump = np.abs(second.actions[:6] - first.actions[3:9]).max()
        assert jump < (0.1 if guidance == "identity" else 1.5), jump


def answer(link: Link) -> Reply:
    for _ in range(200):
        link.wait(0.1)
        for reply in link.poll():
            return reply
    raise AssertionError("no answer")


def lerobots(ours: Any, executed: np.ndarray, state: torch.Tensor) -> np.ndarray:
    from lerobot.policies.rtc import reanchor_relative_rtc_prefix
    from lerobot.processor import NormalizerProcessorStep, RelativeActionsProcessorStep

    steps = ours._inputs._preprocessor.steps
    [relative] = [step for step in steps if isinstance(step, RelativeActionsProcessorStep)]
    [normalizer] = [step for step in steps if isinstance(step, NormalizerProcessorStep)]
    return reanchor_relative_rtc_prefix(torch.tensor(executed), state[0], relative, normalizer, "cpu").numpy()


@pytest.mark.parametrize("kind", RTC)
def test_prefixes_of_a_mixed_pass_are_each_rows_own(folders: dict[str, Path], kind: str) -> None:
    """With and without a prefix, in any order: what a robot is held to is what it would be held to alone."""
    with guided(folders[kind]) as (ours, _):
        names = "abc"
        seen = {name: observation(ours, i, offset=6.0 * i) for i, name in enumerate(names)}
        then = {name: observation(ours, 10 + i, 2, offset=-4.0 * i) for i, name in enumerate(names)}

        def second(*order: str) -> dict[str, np.ndarray]:
            reset(ours, *names)
            first = dict(zip(names, ours.infer([Request(name, seen[name]) for name in names]), strict=True))
            requests = [
                Request(name, then[name], prefix=None if name == "b" else Prefix(first[name].raw[2:], 4))
                for name in order
            ]
            return {name: chunk.actions for name, chunk in zip(order, ours.infer(requests), strict=True)}

        alone = {name: second(name)[name] for name in names}
        for order in itertools.permutations(names):
            for name, actions in second(*order).items():
                np.testing.assert_allclose(actions, alone[name], atol=1e-3, err_msg=f"{name} of {order}")


def edit(folder: Path, which: str, change: Any) -> None:
    file = folder / f"policy_{which}processor.json"
    data = json.loads(file.read_text())
    data["steps"] = change(data["steps"])
    file.write_text(json.dumps(data))


def without(name: str) -> Any:
    return lambda steps: [step for step in steps if step["registry_name"] != name]


def off(name: str) -> Any:
    def change(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for step in steps:
            if step["registry_name"] == name:
                step["config"]["enabled"] = False
        return steps

    return change


@pytest.mark.parametrize(
    ("which", "change"),
    [
        ("pre", off("relative_actions_processor")),
        ("post", off("absolute_actions_processor")),
        ("pre", without("relative_actions_processor")),
        ("post", without("absolute_actions_processor")),
    ],
)
def test_one_way_only_is_refused(tmp_path: Path, which: str, change: Any) -> None:
    checkpoints.act(tmp_path / "act", **VECTORS)
    make_relative(tmp_path / "act")
    edit(tmp_path / "act", which, change)
    with pytest.raises(CheckpointError, match="relative actions: the preprocessor has"):
        policy(tmp_path / "act")


def test_relative_to_a_state_that_is_not_read(tmp_path: Path) -> None:
    checkpoints.act(tmp_path / "act", images={}, state=0, environment_state=4, action=WIDTH)
    make_relative(tmp_path / "act")
    with pytest.raises(CheckpointError, match=f"does not read {STATE}"):
        policy(tmp_path / "act")


def test_processors_that_are_tied_in_another_way_take_one_at_a_time() -> None:
    """GR00T's decoder reads what its packer saw: LeRobot's own steps, as its factory ties them together."""
    from lerobot.policies.groot.processor_groot import GrootN17ActionDecodeStep, GrootN17PackInputsStep
    from lerobot.processor import PolicyProcessorPipeline

    packer = GrootN17PackInputsStep()
    tied = PolicyProcessorPipeline([packer]), PolicyProcessorPipeline([GrootN17ActionDecodeStep(pack_step=packer)])
    assert RelativeActions(*tied, history=1).alone
    with pytest.raises(CheckpointError, match="GrootN17ActionDecodeStep"):
        RelativeActions(*tied, history=2)
