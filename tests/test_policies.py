"""Every Policy runs the conformance suite; then what is particular to each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from peer_servers import Gr00tServer, OpenpiServer

from tactus.hal.spec import Feature, SpecError
from tactus.policies.policy import Policy, Request
from tactus.policies.remote.config import Gr00tConfig, OpenpiConfig
from tactus.policies.scripted.config import PusherConfig, ReplayConfig
from tactus.policies.scripted.expert import ExpertConfig
from tactus.policies.scripted.replay import read_actions, write_actions
from tactus.policies.scripted.ticker import TickerConfig
from tactus.testing import PolicyConformance, some_observation

ACTION = Feature((3,), "float32", mode=("delta", "absolute", "binary"))


class TestTicker(PolicyConformance):
    @pytest.fixture
    def policy(self) -> Policy:
        return TickerConfig(cameras=1, image_size=(8, 8)).make()


class TestReplay(PolicyConformance):
    @pytest.fixture
    def policy(self, tmp_path: Path) -> Policy:
        write_actions(
            tmp_path / "actions.npz", list(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)), ACTION
        )
        return ReplayConfig(path=str(tmp_path / "actions.npz"), horizon=6).make()


class TestExpert(PolicyConformance):
    task = "pick up the alphabet soup and place it in the basket"

    @pytest.fixture(params=[1, 16])
    def policy(self, request: pytest.FixtureRequest) -> Policy:
        return ExpertConfig(horizon=request.param).make()


class TestPusher(PolicyConformance):
    @pytest.fixture(params=[PusherConfig(), PusherConfig(horizon=1, noise=0.5, mistakes=0.5)])
    def policy(self, request: pytest.FixtureRequest) -> Policy:
        return request.param.make()


INPUTS = {"observation.state": 6, "observation.images.front": [8, 8]}


class TestOpenpi(PolicyConformance):
    @pytest.fixture
    def policy(self) -> Iterator[Policy]:
        features = {"observation/state": "observation.state", "observation/image": "observation.images.front"}
        server = OpenpiServer(lambda seen: {"actions": np.outer(np.arange(16), seen["observation/state"])})
        yield OpenpiConfig(
            url=server.url, inputs=INPUTS, features=features | {"prompt": "task"}, horizon=16, action_width=6
        ).make()
        server.close()


class TestGr00t(PolicyConformance):
    @pytest.fixture(params=["n1.7", "n1.6", "n1.5"])
    def policy(self, request: pytest.FixtureRequest) -> Iterator[Policy]:
        version = request.param

        def infer(seen: dict) -> dict:
            if version == "n1.5":
                return {"action.arm": np.outer(np.arange(16), seen["state.arm"][0, :5]), "action.gripper": np.zeros(16)}
            arm = np.outer(np.arange(16, dtype=np.float32), seen["state"]["arm"][0, 0])
            return {"arm": arm[None], "gripper": np.zeros((1, 16, 1), np.float32)}

        video, arm = "observation.images.front", "observation.state[0:5]"
        features = {"video": {"front": video}, "state": {"arm": arm}, "language": {"task": "task"}}
        if version == "n1.5":
            features = {"video.front": video, "state.arm": arm, "annotation.human.task_description": "task"}
        server = Gr00tServer(infer, version)
        yield Gr00tConfig(
            url=server.url,
            version=version,
            inputs=INPUTS,
            features=features,
            actions={"arm": 5, "gripper": 1},
            horizon=16,
        ).make()
        server.close()


def test_replay_plays_by_tick_and_rests_after_the_end(tmp_path: Path) -> None:
    recorded = np.arange(15, dtype=np.float32).reshape(5, 3)
    write_actions(tmp_path / "a.npz", list(recorded), ACTION)
    policy = ReplayConfig(path=str(tmp_path / "a.npz"), horizon=4).make()
    [chunk] = policy.infer([Request("s", some_observation(policy, 3))])
    np.testing.assert_array_equal(chunk.actions[:2], recorded[3:])
    np.testing.assert_array_equal(chunk.actions[2:], [[0, 13, 14]] * 2)
    [late] = policy.infer([Request("s", some_observation(policy, 100))])
    np.testing.assert_array_equal(late.actions, [[0, 13, 14]] * 4)


@pytest.mark.parametrize("content", [None, b"not a zip", b""])
def test_replay_says_what_is_not_a_recording(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SpecError, match=r"policy.path: '.*a.npz' is not a recording of actions"):
        ReplayConfig(path=str(file)).make()


def test_a_recording_is_not_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", actions=np.array([{}], dtype=object), feature=np.array("{}"))
    with pytest.raises(SpecError, match="not a recording of actions"):
        read_actions(tmp_path / "a.npz")


@pytest.mark.parametrize("changes", [{"width": 0}, {"horizon": 0}])
def test_ticker_refuses_nothing_at_all(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="found 0; must be at least 1|found 0; must be positive"):
        TickerConfig(**changes)
