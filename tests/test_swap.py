"""Another policy in the place of the one that answers: at a chunk's boundary, for all robots or one, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from doubles import HORIZON, FunctionPolicy, eventually, state_at, synthetic
from processes import ROOT, end, episodes, serving, start

from tactus.hal.spec import Chunk, SpecError, image
from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.policy import Policy
from tactus.runtime.policy_node.limits import ANYBODY
from tactus.runtime.policy_node.node import BindError, PolicyNode
from tactus.runtime.policy_node.swap import check_room
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import TickView, Watcher
from tactus.runtime.wire.keys import AllowList, ClientKeys, ServerKeys, make_keys, read_public, read_secret
from tactus.runtime.wire.link import Link, Refused, Unreachable
from tactus.runtime.wire.swap import swap

pytestmark = pytest.mark.realtime


def constant(value: float) -> FunctionPolicy:
    """A policy whose actions are all of this value; its name says so."""
    policy = FunctionPolicy(lambda request: np.full((HORIZON, 3), value, np.float32), max_batch=4)
    policy._spec = replace(policy.spec, name=f"constant {value:g}")
    return policy


PICTURE = {"observation.images.x": image(8, 8)}


class Shelf:
    """What is loaded, by the key `value`: policies are made of it, and kept to be looked at."""

    def __init__(self) -> None:
        self.made: dict[float, FunctionPolicy] = {}
        self.seconds = 0.0

    def load(self, keys: Mapping[str, Any]) -> tuple[Policy, Mapping[str, str]]:
        until_s = time.monotonic() + self.seconds
        while time.monotonic() < until_s:  # busy in Python, as loading is
            sum(map(abs, range(50)))
        policy = self.made[keys["value"]] = constant(keys["value"])
        policy._spec = replace(policy.spec, **keys.get("spec", {}), **({"inputs": PICTURE} if keys.get("sees") else {}))
        if keys.get("fails"):
            policy._answer = lambda request: np.full((HORIZON, 3), np.nan, np.float32)
        return policy, {"from": "the shelf"}


def introduced(node: PolicyNode, **changes: Any) -> Link:
    link = Link(node.endpoint)
    link.hello(synthetic().make().spec, 5.0, **changes)
    link.reset(0, 7, "")
    return link


def ask(link: Link, tick: int) -> Chunk:
    seq = link.request(state_at(tick), 0, 0)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        link.wait(0.02)
        for reply in link.poll():
            if reply.seq == seq:
                assert reply.chunk is not None, reply.error
                return reply.chunk
    raise TimeoutError


def test_a_swap_is_in_force_for_all_and_the_episode_goes_on(serve: Serve) -> None:
    shelf, first = Shelf(), constant(1)
    node = serve(first, swaps_from=ANYBODY, load=shelf.load)
    links = [introduced(node) for _ in range(2)]
    assert [ask(link, 0).actions[0, 0] for link in links] == [1, 1]
    begun: list[bool] = []
    found = swap(node.endpoint, {"value": 2}, "", 10.0, begun=lambda: begun.append(True))
    assert begun and found["robots"] == 2 and found["policy"].startswith("constant 2@")
    for link in links:
        chunk = ask(link, 4)
        assert chunk.actions[0, 0] == 2 and chunk.start == 4 and chunk.policy == found["policy"]
        assert link.policy.name == "constant 2" and link.policy.details["from"] == "the shelf" and link.swapped == 1
    opened = {session.id: session.seed for session in shelf.made[2].opened if session.id != "warm-up"}
    assert opened == {link.session: 7 for link in links}, "the episode that was open was opened anew, with its seed"
    eventually(lambda: sorted(first.ended) == sorted(link.session for link in links))
    later = introduced(node)
    assert ask(later, 0).actions[0, 0] == 2 and node.counters.swaps == 1
    for link in (*links, later):
        link.close()


def test_a_swap_for_one_robot_leaves_the_others(serve: Serve) -> None:
    shelf = Shelf()
    node = serve(constant(1), swaps_from=ANYBODY, load=shelf.load)
    one, other = introduced(node), introduced(node)
    ask(one, 0)
    ask(other, 0)
    assert swap(node.endpoint, {"value": 2}, one.session, 10.0)["robots"] == 1
    for tick in (1, 2, 3):
        assert ask(one, tick).actions[0, 0] == 2 and ask(other, tick).actions[0, 0] == 1
    with pytest.raises(Refused, match="no session and no robot is called nobody; connected: synthetic"):
        swap(node.endpoint, {"value": 3}, "nobody", 5.0)
    assert ask(introduced(node), 0).actions[0, 0] == 1
    assert swap(node.endpoint, {"value": 4}, "synthetic", 10.0)["robots"] >= 2, "by the robot's name"
    assert ask(one, 4).actions[0, 0] == 4 == ask(other, 4).actions[0, 0]


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "another horizon": ({"spec": {"horizon": 9}}, "chunk is"),
    "another input": ({"sees": True}, "observation.images.x: constant 2 reads it, constant 1 does not"),
    "a failure": ({"fails": True}, "its first answer failed: chunk has nan"),
    "another robot's": ({"spec": {"robot": "so100"}}, "the policy was trained on so100, this is synthetic"),
    "another past": ({"spec": {"observation_offsets": (-1, 0)}}, "observation_offsets: running policy"),
}


@pytest.mark.parametrize(("keys", "words"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_refused_and_nothing_changes(serve: Serve, keys: dict[str, Any], words: str) -> None:
    node = serve(constant(1), swaps_from=ANYBODY, load=Shelf().load)
    link = introduced(node)
    before = ask(link, 0)
    with pytest.raises(Refused) as refused:
        swap(node.endpoint, {"value": 2, **keys}, "", 10.0)
    assert words in str(refused.value)
    after = ask(link, 1)
    assert after.policy == before.policy and after.actions[0, 0] == 1 and link.swapped == 0 and not node.counters.swaps
    link.close()


def test_a_robot_in_virtual_time_is_not_swapped(serve: Serve) -> None:
    node = serve(constant(1), swaps_from=ANYBODY, load=Shelf().load)
    link = introduced(node, real_time=False)
    with pytest.raises(Refused, match="takes no swap: virtual time"):
        swap(node.endpoint, {"value": 2}, "", 10.0)
    assert ask(link, 0).actions[0, 0] == 1


def test_who_may_order_a_swap_is_who_may_send_weights(serve: Serve, tmp_path: Path) -> None:
    shelf = Shelf()
    closed = serve(constant(1))
    with pytest.raises(Refused, match="no other policy is taken from anybody: swaps_from is not given"):
        swap(closed.endpoint, {"value": 2}, "", 5.0)
    with pytest.raises(BindError, match="swaps_from: found anybody without keys"):
        PolicyNode(constant(1), "tcp://0.0.0.0:*", insecure=True, swaps_from=ANYBODY, load=shelf.load)
    with pytest.raises(Unreachable, match="with keys only"):
        swap("tcp://192.0.2.1:5555", {}, "", 1.0)
    keys = tmp_path / "keys"
    for name in ("policy", "robot", "operator"):
        make_keys(keys, name)
    (keys / "listed").mkdir()
    for name in ("robot", "operator"):
        (keys / "listed" / f"{name}.key").write_bytes((keys / f"{name}.key").read_bytes())
    server = ServerKeys(read_secret(keys / "policy.key_secret", ""), AllowList(keys / "listed"))
    with pytest.raises(BindError, match="found anybody with keys"):
        PolicyNode(constant(1), "tcp://127.0.0.1:*", keys=server, swaps_from=ANYBODY, load=shelf.load)
    node = serve(constant(1), keys=server, swaps_from="operator", load=shelf.load)

    def client(name: str) -> ClientKeys:
        return ClientKeys(read_secret(keys / f"{name}.key_secret", ""), read_public(keys / "policy.key", ""))

    with pytest.raises(Refused, match="no other policy is taken from key robot: swaps_from is operator"):
        swap(node.endpoint, {"value": 2}, "", 5.0, client("robot"))
    assert swap(node.endpoint, {"value": 2}, "", 10.0, client("operator"))["robots"] == 0


class Sources(Watcher):
    def __init__(self) -> None:
        self.starved = 0
        self.values: list[float] = []

    def before(self, view: TickView) -> None:
        self.starved += view.starved
        self.values.append(float(view.action[0]))


def test_a_robot_that_moves_misses_no_tick_while_the_other_is_loaded(serve: Serve) -> None:
    shelf = Shelf()
    shelf.seconds = 1.0
    node = serve(constant(1), swaps_from=ANYBODY, load=shelf.load)
    robot, clock, seen = synthetic(steps=120).make(), RealClock(50), Sources()
    link = Link(node.endpoint)
    policy = link.hello(robot.spec, 5.0)
    robot.connect()
    runner = RobotNode(robot, policy, link, clock, LoopConfig(), say=lambda line: None)
    code = f"from tactus.runtime.wire.swap import swap; swap({node.endpoint!r}, {{'value': 2}}, '', 20)"
    asking = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    stats = runner.run_episode(0, 1, [seen])
    while asking.poll() is None:  # where the machine was so busy that the episode was over before
        stats = runner.run_episode(1, 1, [seen])
    stats = runner.run_episode(2, 1, [seen])
    assert seen.starved == 0 and {*seen.values} == {1.0, 2.0}
    assert seen.values == sorted(seen.values), "one after the other, never back"
    assert {*stats.chunk_policies} == {link.policy.identity} != {stats.policy}
    link.close()


def test_a_second_policy_that_has_no_room_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(2**42)  # a hole: it takes no room here
    with pytest.raises(
        SpecError, match=r"no room for a second policy: .* needs 8796.09 GB while it is loaded, .* free"
    ):
        check_room(LeRobotConfig(path=str(tmp_path), device="cpu"))
    (tmp_path / "model.safetensors").unlink()
    check_room(LeRobotConfig(path=str(tmp_path), device="cpu"))


def test_at_the_terminal(tmp_path: Path) -> None:
    words = ["--policy.type=ticker", "--policy.width=3", "--swaps_from=anybody"]
    with serving(tmp_path / "node.log", *words) as (_, endpoint):
        line = ["--robot.type=synthetic", "--robot.width=3", f"--connect={endpoint}", "--max_ticks=300"]
        run = start("run", [*line, "--episodes=1", f"--output_dir={tmp_path / 'out'}"], tmp_path / "run.log")

        def tactus(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tactus", "swap", f"--connect={endpoint}", *words]
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

        eventually(lambda: "session" in (tmp_path / "node.log").read_text(), 30)
        none = tactus()
        assert none.returncode == 2 and "policy: not given" in none.stderr
        unfit = tactus("--policy.type=ticker", "--policy.width=7")
        assert unfit.returncode == 3 and "nothing has changed" in unfit.stderr and "shape" in unfit.stderr
        fit = tactus("--policy.type=ticker", "--policy.width=3", "--policy.infer_ms=1")
        assert fit.returncode == 0 and "answers 1 robots" in fit.stdout, fit.stderr
        foreign = tactus("--policy.type=own_policy:Config")
        assert foreign.returncode != 0
        assert run.wait(60) == 0, (tmp_path / "run.log").read_text()
        end(run)
    [row] = episodes(tmp_path / "out")
    assert len(row["chunks_of"]) == 2 and row["starved_ticks"] == 0, json.dumps(row)[:500]
