"""New weights over the wire: whole, from whom they may come, and never in the middle of an episode."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from hypothesis import given
from hypothesis import strategies as st
from sign_robot import SignConfig, untrained

from tactus.hal.spec import STATE, Observation
from tactus.policies.policy import Policy
from tactus.policies.rl.config import ExploreConfig
from tactus.policies.rl.explorer import ExplorerPolicy, exploring
from tactus.runtime.policy_node.limits import ANYBODY
from tactus.runtime.policy_node.node import BindError, PolicyNode
from tactus.runtime.wire.codec import MAX_ARRAYS, decode, encode
from tactus.runtime.wire.keys import AllowList, ClientKeys, ServerKeys, make_keys, read_public, read_secret
from tactus.runtime.wire.link import Link, Refused, Reply, Unreachable
from tactus.runtime.wire.weights import Intake, parts, publish

shapes = st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=80)


@given(shapes, st.integers(4, 400), st.randoms())
def test_weights_arrive_as_they_left_in_any_order(sizes: list[list[int]], part_bytes: int, random: Any) -> None:
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(size=size).astype(np.float32) for i, size in enumerate(sizes)}
    sent = parts(3, weights, part_bytes)
    assert all(
        len(one.arrays) <= MAX_ARRAYS and sum(a.nbytes for a in one.arrays.values()) <= part_bytes for one in sent
    )
    random.shuffle(sent)
    intake = Intake({name: array.shape for name, array in weights.items()})
    again = sent[: len(sent) // 2]  # which were not acknowledged in time
    found = [intake.take(decode([bytes(frame) for frame in encode(one)])) for one in [*again, *sent]]
    whole = [one for one in found if one is not None]
    assert len(whole) >= 1
    for name, array in weights.items():
        np.testing.assert_array_equal(whole[-1][name], array)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a": np.zeros((2, 3)), "c": np.zeros(1)}, "has no weights 'c'"),
        ({"a": np.zeros((2, 3))}, "lack b"),
        ({"a": np.zeros((3, 3)), "b": np.zeros(2)}, "is beyond its"),
        ({"a": np.full((2, 3), np.nan), "b": np.zeros(2)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(weights: dict[str, np.ndarray], words: str) -> None:
    intake = Intake({"a": (2, 3), "b": (2,)})
    with pytest.raises(ValueError, match=words):
        for message in parts(1, weights):
            intake.take(decode([bytes(frame) for frame in encode(message)]))


@pytest.mark.parametrize(
    "meta",
    [
        {"version": 0, "parts": 1, "names": ("a",), "offsets": (0,)},
        {"version": 1, "parts": 0, "names": ("a",), "offsets": (0,)},
        {"version": "1", "parts": 1, "names": ("a",), "offsets": (0,)},
        {"version": 1, "parts": 1, "names": (1,), "offsets": (0,)},
        {"version": 1, "parts": 1, "names": ("a",), "offsets": (-1,)},
        {"version": 1, "parts": 1, "names": ("a", "a"), "offsets": (0,)},
        {"version": 1, "parts": 1, "names": ("a",), "offsets": 0},
        {},
    ],
)
def test_a_part_that_is_none_is_refused(meta: dict[str, Any]) -> None:
    [message] = parts(1, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"weights need|has no weights|is beyond"):
        Intake({"a": (2,)}).take(message._replace(meta=meta))


def explorer(folder: Path, method: str = "flow_noise") -> ExplorerPolicy:
    policy = exploring(untrained(folder).make(), ExploreConfig(method=method))  # type: ignore[arg-type]
    assert isinstance(policy, ExplorerPolicy)
    return policy


def moved(policy: Policy, by: float) -> dict[str, np.ndarray]:
    """Weights under which every action is further down, by a velocity of `by`."""
    assert policy.flow is not None
    now = {name: tensor.detach().numpy().copy() for name, tensor in policy.flow.network.named_parameters()}
    return {name: array + (by if name == "out.1.bias" else 0) for name, array in now.items()}


def ask(link: Link, tick: int) -> Reply:
    link.request(Observation({STATE: np.zeros(2, np.float32)}, {}, tick), 0, 0)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        link.wait(0.02)
        if replies := link.poll():
            return replies[0]
    raise TimeoutError


def version_of(link: Link, tick: int = 0) -> int:
    reply = ask(link, tick)
    assert reply.chunk is not None, reply.error
    return reply.chunk.version


def test_an_episode_ends_with_the_weights_it_began_with(serve: Serve, tmp_path: Path) -> None:
    policy = explorer(tmp_path)
    node = serve(policy, weights_from=ANYBODY)
    left, right = Link(node.endpoint), Link(node.endpoint)
    for link in (left, right):
        link.hello(SignConfig().make().spec, 5.0, real_time=False)
    left.reset(0, 7, "", explore=True)
    right.reset(0, 7, "")
    first = ask(left, 0)
    assert first.chunk is not None and first.chunk.version == 0
    assert {*first.chunk.beside} == {"points", "times", "log_prob"}
    publish(node.endpoint, 4, moved(policy, -5.0), 10.0)
    assert version_of(left, 4) == 0  # still the same episode
    right.reset(1, 6, "")  # another one: the same noise
    answer = ask(right, 0)
    assert answer.chunk is not None and answer.chunk.version == 4 and not answer.chunk.beside
    np.testing.assert_allclose(answer.chunk.actions.mean() - first.chunk.actions.mean(), 5.0, atol=0.5)
    assert version_of(left, 8) == 0
    left.reset(1, 6, "", explore=True)
    assert version_of(left) == 4 and len(policy._versions) == 1  # nobody needs the old ones any more
    for link in (left, right):
        link.close()
    assert node.counters.updates == 1


def test_a_node_that_is_not_told_to_takes_no_weights(serve: Serve, tmp_path: Path) -> None:
    policy = explorer(tmp_path)
    node = serve(policy)
    with pytest.raises(Refused, match="no new weights are taken from anybody: weights_from is not given"):
        publish(node.endpoint, 1, moved(policy, 1.0), 5.0)
    assert node.counters.updates == 0 and node.counters.refused == 1


def test_a_policy_without_weights_to_change_is_not_served_so(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="takes no new weights"):
        PolicyNode(untrained(tmp_path).make(), "tcp://127.0.0.1:*", weights_from=ANYBODY)


@pytest.mark.parametrize("insecure", [False, True])
def test_without_keys_nobody_elsewhere_changes_weights(insecure: bool, tmp_path: Path) -> None:
    words = "weights_from: found anybody without keys" if insecure else "nothing protects it"
    with pytest.raises(BindError, match=words):
        PolicyNode(explorer(tmp_path), "tcp://0.0.0.0:*", insecure=insecure, weights_from=ANYBODY)
    with pytest.raises(Unreachable, match="weights go there with keys only"):
        publish("tcp://192.0.2.1:5555", 1, {}, 1.0)


def test_of_those_with_keys_the_learner_alone_changes_weights(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    for name in ("policy", "robot", "learner", "stranger"):
        make_keys(keys, name)
    (keys / "listed").mkdir()
    for name in ("robot", "learner"):
        (keys / "listed" / f"{name}.key").write_bytes((keys / f"{name}.key").read_bytes())
    server = ServerKeys(read_secret(keys / "policy.key_secret", ""), AllowList(keys / "listed"))

    def client(name: str) -> ClientKeys:
        return ClientKeys(read_secret(keys / f"{name}.key_secret", ""), read_public(keys / "policy.key", ""))

    policy = explorer(tmp_path / "policy")
    with pytest.raises(BindError, match="found anybody with keys"):
        PolicyNode(policy, "tcp://127.0.0.1:*", keys=server, weights_from=ANYBODY)
    node = serve(policy, keys=server, weights_from="learner")
    publish(node.endpoint, 1, moved(policy, 1.0), 10.0, client("learner"))
    with pytest.raises(Refused, match="no new weights are taken from key robot: weights_from is learner"):
        publish(node.endpoint, 2, moved(policy, 2.0), 10.0, client("robot"))
    with pytest.raises(Unreachable, match="acknowledged"):
        publish(node.endpoint, 3, moved(policy, 3.0), 1.0, client("stranger"))
    assert node.counters.updates == 1
