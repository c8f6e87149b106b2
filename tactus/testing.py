"""What every Robot and every Policy must do. Inherit, provide the fixtures, and the whole suite runs."""

from __future__ import annotations

import numpy as np
import pytest

from tactus.hal.robot import Robot
from tactus.hal.spec import Feature, LazyArrays, Observation, RobotSpec, SpecError
from tactus.policies.policy import Policy, Request, Session


def some_action(feature: Feature, rng: np.random.Generator) -> np.ndarray:
    """A harmless action: inside the bounds where there are any, small otherwise."""
    low = np.array(feature.low) if feature.low else np.full(feature.shape, -0.1)
    high = np.array(feature.high) if feature.high else np.full(feature.shape, 0.1)
    return rng.uniform(low, high).astype(feature.dtype)


def some_observation(policy: Policy, tick: int, seed: int = 0, task: str = "") -> Observation:
    """Arrays of the shapes and dtypes the policy asks for, with plausible numbers in them."""
    rng = np.random.default_rng([seed, tick])
    history = len(policy.spec.observation_offsets)
    arrays = {}
    for name, feature in policy.spec.inputs.items():
        shape = (history, *feature.shape) if history > 1 else feature.shape
        if feature.is_image:
            arrays[name] = rng.integers(0, 256, shape, np.uint8)
        else:
            arrays[name] = rng.uniform(-0.2, 0.2, shape).astype(feature.dtype)
    return Observation(arrays, {}, tick, task)


class RobotConformance:
    """Subclasses provide the fixture `robot`, connected; deterministic ones set `deterministic`."""

    deterministic = True

    @pytest.fixture
    def robot(self) -> Robot:
        raise NotImplementedError("the subclass provides it")

    def test_spec_survives_the_wire(self, robot: Robot) -> None:
        assert RobotSpec.from_dict(robot.spec.to_dict()) == robot.spec

    def test_action_states_a_mode_per_dimension(self, robot: Robot) -> None:
        assert len(robot.spec.action.shape) == 1
        assert len(robot.spec.action.mode) == robot.spec.action.shape[0]
        assert robot.spec.fps > 0

    def test_observations_are_as_specified(self, robot: Robot) -> None:
        robot.reset(0, seed=7)
        observation = robot.observe()
        assert set(observation.arrays) == set(robot.spec.observations)
        for name, feature in robot.spec.observations.items():
            feature.check(name, observation.arrays[name])
            assert observation.arrays[name].flags.c_contiguous
            assert observation.stamps_ns[name] > 0

    def test_observing_changes_nothing(self, robot: Robot) -> None:
        robot.reset(0, seed=7)
        first, second = robot.observe(), robot.observe()
        for name in robot.spec.observations:
            np.testing.assert_array_equal(first.arrays[name], second.arrays[name])

    def test_an_observation_stays_as_it_was(self, robot: Robot) -> None:
        robot.reset(0, seed=7)
        seen = robot.observe()
        names = [name for name, feature in robot.spec.observations.items() if not feature.is_image]
        before = {name: seen.arrays[name].copy() for name in names}
        rng = np.random.default_rng(0)
        for _ in range(3):
            robot.act(some_action(robot.spec.action, rng))
        for name in names:
            np.testing.assert_array_equal(seen.arrays[name], before[name])

    def test_act_returns_what_was_sent(self, robot: Robot) -> None:
        robot.reset(0, seed=7)
        action = some_action(robot.spec.action, np.random.default_rng(1))
        sent = robot.act(action)
        robot.spec.action.check("sent", sent)
        np.testing.assert_array_equal(sent, action)

    @pytest.mark.parametrize("wrong", ["shape", "dtype"])
    def test_a_wrong_action_is_refused(self, robot: Robot, wrong: str) -> None:
        robot.reset(0, seed=7)
        width = robot.spec.action.shape[0]
        action = np.zeros(width + 1, robot.spec.action.dtype) if wrong == "shape" else np.zeros(width, np.int16)
        with pytest.raises(SpecError, match="action"):
            robot.act(action)

    def test_outcome_begins_undone(self, robot: Robot) -> None:
        robot.reset(0, seed=7)
        outcome = robot.outcome()
        assert outcome is None or not outcome.done

    def test_scene_is_pure(self, robot: Robot) -> None:
        assert robot.scene(3) == robot.scene(3)
        robot.reset(1, seed=7)
        assert robot.scene(3) == robot.scene(3)

    def test_equal_seeds_give_equal_bits_in_any_order(self, robot: Robot) -> None:
        if not self.deterministic:
            pytest.skip("hardware")

        def play(episode: int) -> list[np.ndarray]:
            robot.reset(episode, seed=11)
            rng = np.random.default_rng(5)
            seen = []
            for _ in range(4):
                robot.act(some_action(robot.spec.action, rng))
                arrays = robot.observe().arrays
                seen += [arrays[name].copy() for name in sorted(robot.spec.observations)]
            return seen

        first = play(0)
        play(1)
        for a, b in zip(first, play(0), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_close_twice(self, robot: Robot) -> None:
        robot.close()
        robot.close()


class PolicyConformance:
    """Subclasses provide the fixture `policy` and may set `task`, an instruction the policy understands."""

    task = ""

    @pytest.fixture
    def policy(self) -> Policy:
        raise NotImplementedError("the subclass provides it")

    def ask(self, policy: Policy, session: str, tick: int, seed: int = 0) -> np.ndarray:
        [chunk] = policy.infer([Request(session, some_observation(policy, tick, seed, self.task))])
        assert chunk.start == tick
        return chunk.actions

    def test_spec_survives_the_wire(self, policy: Policy) -> None:
        assert type(policy.spec).from_dict(policy.spec.to_dict()) == policy.spec

    def test_chunk_is_as_specified(self, policy: Policy) -> None:
        policy.reset(Session("a", 1, self.task))
        actions = self.ask(policy, "a", 5)
        assert actions.shape == (policy.spec.horizon, *policy.spec.action.shape)
        assert actions.dtype == np.dtype(policy.spec.action.dtype)
        assert np.isfinite(actions).all()

    def test_observations_may_be_read_only(self, policy: Policy) -> None:
        policy.reset(Session("a", 1, self.task))
        observation = some_observation(policy, 0, task=self.task)
        arrays = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in observation.arrays.items()}
        policy.infer([Request("a", Observation(LazyArrays(arrays), {}, 0, self.task))])

    def test_equal_seeds_give_equal_chunks(self, policy: Policy) -> None:
        chunks = []
        for _ in range(2):
            policy.reset(Session("a", 3, self.task))
            chunks.append([self.ask(policy, "a", tick) for tick in (0, 7)])
        np.testing.assert_array_equal(chunks[0], chunks[1])

    def test_sessions_do_not_influence_each_other(self, policy: Policy) -> None:
        policy.reset(Session("a", 3, self.task))
        alone = [self.ask(policy, "a", tick) for tick in (0, 7, 14)]
        policy.reset(Session("a", 3, self.task))
        policy.reset(Session("b", 4, self.task))
        among = []
        for tick in (0, 7, 14):
            self.ask(policy, "b", tick + 1, seed=9)
            among.append(self.ask(policy, "a", tick))
        np.testing.assert_array_equal(alone, among)

    def test_a_batch_equals_its_requests(self, policy: Policy) -> None:
        names = [f"s{i}" for i in range(policy.max_batch)]
        for name in names:
            policy.reset(Session(name, 3, self.task))
        alone = [self.ask(policy, name, i, seed=i) for i, name in enumerate(names)]
        for name in names:
            policy.reset(Session(name, 3, self.task))
        requests = [Request(name, some_observation(policy, i, seed=i, task=self.task)) for i, name in enumerate(names)]
        together = [chunk.actions for chunk in policy.infer(requests)]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6 * max(10.0, np.abs(alone).max()))

    def test_noise_can_be_drawn_again(self, policy: Policy) -> None:
        """From where it stood, as a policy does that is compared with another one and has skipped some requests."""
        if policy.remembers:
            pytest.skip("its answers depend on more than the observation and the noise")
        policy.reset(Session("a", 3, self.task))
        self.ask(policy, "a", 0)
        noise = policy.noise("a")
        expected = self.ask(policy, "a", 7)
        policy.reset(Session("b", 4, self.task))
        policy.set_noise("b", noise)
        np.testing.assert_array_equal(self.ask(policy, "b", 7), expected)

    def test_end_forgets(self, policy: Policy) -> None:
        policy.reset(Session("a", 3, self.task))
        first = self.ask(policy, "a", 0)
        policy.end("a")
        policy.end("never there")
        policy.reset(Session("a", 3, self.task))
        np.testing.assert_array_equal(self.ask(policy, "a", 0), first)
