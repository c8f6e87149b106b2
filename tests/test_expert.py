"""The scripted expert: its contract, and closed loops on a toy arm that it was not tuned on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from tactus.hal.config import ConfigError
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Chunk, Observation
from tactus.policies.policy import Policy, PolicyError, Request, Session
from tactus.policies.scripted.expert import ExpertConfig

CHEESE = "pick up the cream cheese and place it in the basket"
SOUP = "pick up the alphabet soup and place it in the basket"
BOWL = "pick up the black bowl from table center and place it on the plate"
DOWN = np.array([np.pi, 0.0, 0.0])
UPRIGHT = {CHEESE: [0.0, 0.0, 1.0, 0.0], SOUP: [0.0, 0.7071, 0.7071, 0.0], BOWL: [0.0, 0.0, 0.7071, 0.7071]}


@dataclass
class ToyArm:
    """A hand that follows its actions with a first-order lag, fingers, and one object that sticks or falls.

    It shares no code with the expert's own model, and its gains are others. grip_m: where the object is held,
    relative to its origin; width_m: what then is between the fingers.
    """

    task: str
    object_m: np.ndarray
    target_m: np.ndarray
    grip_m: np.ndarray
    width_m: float
    hand_m: np.ndarray = field(default_factory=lambda: np.array([-0.15, 0.0, 0.26]))
    speed_m: np.ndarray = field(default_factory=lambda: np.zeros(3))
    opening_m: float = 0.078
    slips_at: int | None = None
    tick: int = 0
    held: bool = False
    slipped: bool = False

    def __post_init__(self) -> None:
        self.floor_m = self.object_m[2]

    def observe(self) -> Observation:
        fingers = [self.opening_m / 2, -self.opening_m / 2]
        poses = [*self.object_m, *UPRIGHT[self.task], *self.target_m, 0.0, 0.0, 0.0, 1.0]
        arrays = {
            STATE: np.array([*self.hand_m, *DOWN, *fingers], np.float32),
            ENVIRONMENT_STATE: np.array(poses, np.float64),
        }
        return Observation(arrays, tick=self.tick, task=self.task)

    def act(self, action: np.ndarray) -> None:
        self.speed_m = 0.55 * self.speed_m + 0.0055 * action[:3].astype(np.float64)
        self.hand_m = self.hand_m + self.speed_m
        around = bool(np.abs(self.hand_m - self.object_m - self.grip_m).max() < 0.02)
        inside_m = self.width_m if (around or self.held) else 0.0
        if action[6] > 0:
            self.opening_m = max(self.opening_m - 0.009, min(inside_m, self.opening_m))
        else:
            self.opening_m = min(self.opening_m + 0.009, 0.079)
        grips = action[6] > 0 and inside_m > 0 and self.opening_m <= self.width_m
        self.slipped |= self.held and self.tick == self.slips_at
        self.held = grips and self.tick != self.slips_at
        if self.held:
            self.object_m = self.object_m + self.speed_m
        else:
            self.object_m = np.array([*self.object_m[:2], max(self.object_m[2] - 0.05, self.floor_m)])
        self.tick += 1

    @property
    def done(self) -> bool:
        away = float(np.linalg.norm(self.object_m[:2] - self.target_m[:2]))
        return not self.held and away < 0.03 and self.object_m[2] < self.floor_m + 0.02


def cheese(**changes: object) -> ToyArm:
    place = np.array([0.0, 0.26, -0.005])
    return ToyArm(CHEESE, np.array([0.05, -0.1, 0.009]), place, np.array([0, 0, 0.003]), 0.042, **changes)  # type: ignore[arg-type]


def soup() -> ToyArm:
    place = np.array([0.0, 0.26, -0.005])
    return ToyArm(SOUP, np.array([-0.12, -0.24, 0.038]), place, np.array([0, 0, 0.01]), 0.062)


def bowl() -> ToyArm:
    place = np.array([0.06, 0.2, 0.003])
    return ToyArm(BOWL, np.array([-0.07, 0.01, -0.002]), place, np.array([0, -0.046, 0.038]), 0.005)


def run(arm: ToyArm, policy: Policy, latency: int, drop: float = 0.0, limit: int = 280) -> int:
    """Ticks until the object lies where it should; `limit` if it never does. Asks at half a chunk left."""
    rng = np.random.default_rng(0)
    horizon = policy.spec.horizon
    policy.reset(Session("toy", 0, arm.task))
    [chunk] = policy.infer([Request("toy", arm.observe())])
    queue = dict(enumerate(chunk.actions))
    pending: tuple[int, Chunk | None] | None = None
    grip = np.float32(-1)
    while arm.tick < limit and not arm.done:
        left = sum(tick >= arm.tick for tick in queue)
        if pending is None and left <= horizon / 2:
            [chunk] = policy.infer([Request("toy", arm.observe(), left)])
            pending = (arm.tick + latency, None if rng.random() < drop else chunk)
        if pending is not None and pending[0] <= arm.tick:
            if pending[1] is not None:
                queue |= {pending[1].start + i: action for i, action in enumerate(pending[1].actions)}
            pending = None
        action = queue.get(arm.tick, np.array([0, 0, 0, 0, 0, 0, grip], np.float32))
        grip = action[6]
        arm.act(action)
    return arm.tick


@pytest.mark.parametrize("latency", [0, 2, 6])
@pytest.mark.parametrize("make", [cheese, soup, bowl])
def test_picks_and_places_whatever_the_latency(make: Callable[[], ToyArm], latency: int) -> None:
    assert run(make(), ExpertConfig().make(), latency) < 130


@pytest.mark.parametrize("horizon", [1, 4, 8, 32, 64])
def test_picks_and_places_with_any_horizon(horizon: int) -> None:
    assert run(cheese(), ExpertConfig(horizon=horizon).make(), latency=0) < 200


@pytest.mark.parametrize("latency", [0, 2, 6])
def test_plans_that_were_never_executed_do_no_harm(latency: int) -> None:
    assert run(cheese(), ExpertConfig().make(), latency, drop=0.3) < 250


@pytest.mark.parametrize("tick", [35, 50, 60])
def test_starts_over_after_a_slip(tick: int) -> None:
    arm = cheese(slips_at=tick)
    assert run(arm, ExpertConfig().make(), latency=2) < 250
    assert arm.slipped


def test_an_object_wider_than_the_table_says_is_still_held() -> None:
    """Fingers that stall before the opening in the table have the object between them all the same."""
    arm = cheese()
    arm.width_m = 0.055
    assert run(arm, ExpertConfig().make(), latency=2) < 200


def test_is_deterministic_and_stays_in_bounds() -> None:
    chunks = []
    for _ in range(2):
        policy, arm, seen = ExpertConfig().make(), cheese(), []
        policy.reset(Session("toy", 0, CHEESE))
        for _ in range(6):
            [chunk] = policy.infer([Request("toy", arm.observe())])
            assert chunk.start == arm.tick
            assert chunk.actions.shape == (16, 7)
            assert chunk.actions.dtype == np.float32
            assert np.abs(chunk.actions).max() <= 1
            assert set(np.unique(chunk.actions[:, 6])) <= {-1.0, 1.0}
            seen.append(chunk.actions)
            for action in chunk.actions:
                arm.act(action)
        chunks.append(np.stack(seen))
    np.testing.assert_array_equal(chunks[0], chunks[1])


def test_sessions_share_nothing() -> None:
    """Two arms interleaved get what each gets alone, and one after `end` what a new one gets."""
    arms = {"a": cheese(), "b": bowl()}
    together, alone = ExpertConfig().make(), {name: ExpertConfig().make() for name in arms}
    for name, arm in arms.items():
        together.reset(Session(name, 0, arm.task))
        alone[name].reset(Session(name, 0, arm.task))
    for _ in range(4):
        chunks = together.infer([Request(name, arm.observe(), 4) for name, arm in arms.items()])
        for (name, arm), chunk in zip(arms.items(), chunks, strict=True):
            [single] = alone[name].infer([Request(name, arm.observe(), 4)])
            np.testing.assert_array_equal(chunk.actions, single.actions)
            for action in chunk.actions[:8]:
                arm.act(action)
    together.end("a")
    together.end("never seen")
    [again] = together.infer([Request("a", arms["a"].observe(), 4)])
    [fresh] = ExpertConfig().make().infer([Request("a", arms["a"].observe(), 4)])
    np.testing.assert_array_equal(again.actions, fresh.actions)


def test_commits_to_what_the_robot_will_have_executed() -> None:
    policy, arm = ExpertConfig(commit=4).make(), cheese()
    policy.reset(Session("toy", 0, CHEESE))
    [first] = policy.infer([Request("toy", arm.observe())])
    for action in first.actions[:8]:
        arm.act(action)
    arm.hand_m = arm.hand_m + np.array([0.0, 0.02, 0.0])
    [second] = policy.infer([Request("toy", arm.observe(), ticks_left=8)])
    np.testing.assert_array_equal(second.actions[:4], first.actions[8:12])
    assert not np.array_equal(second.actions[4:8], first.actions[12:])


@pytest.mark.parametrize("task", ["", "open the top drawer", "pick up the moon and place it in the basket"])
def test_unknown_tasks_are_refused_in_words(task: str) -> None:
    policy = ExpertConfig().make()
    observation = Observation(cheese().observe().arrays, task=task)
    with pytest.raises(PolicyError, match=r"does not know the task.*alphabet soup.*black bowl.*plate"):
        policy.infer([Request("toy", observation)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon: found 0; must be at least 1"),
        ({"horizon": 65}, "horizon: found 65; must be at most 64"),
        ({"commit": -1}, "commit: found -1; must not be negative"),
        ({"image_size": (0, 256)}, "image_size.0: found 0; must be positive"),
    ],
)
def test_bad_values_name_their_key(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExpertConfig(**changes)  # type: ignore[arg-type]


def test_images_are_asked_for_and_not_read() -> None:
    policy = ExpertConfig(images=True, image_size=(64, 48)).make()
    assert policy.spec.inputs["observation.images.image2"].shape == (64, 48, 3)
    policy.infer([Request("toy", cheese().observe())])
