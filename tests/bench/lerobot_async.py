"""LeRobot 0.6.1's asynchronous inference in virtual time: its own code, under the delays that ours is measured under.

    python tests/bench/lerobot_async.py          what a counting robot executes, LeRobot's way and ours

LeRobotAsyncNode stands where RobotNode does: the same robot, policy node, wire, virtual clock and
latency model, and LeRobot's rules in between. LeRobot's own functions are called for all that decides something:

RobotClient   __init__, control_loop_observation (label, must_go), _ready_to_send_observation, actions_available,
              control_loop_action, receive_actions (re-arms must_go), _aggregate_action_queues
PolicyServer  __init__, _enqueue_observation, _obs_sanity_checks, observations_similar, GetActions, _time_action_chunk

Written again here, because it sits in a thread's loop, in a gRPC handler or at a policy in the same process:

- RobotClient.control_loop: its two `if`s, one turn a tick; a turn without an action holds (action_queue.hold), since
  a simulator cannot stand still, and is counted as starved.
- RobotClient.send_observation and PolicyServer.SendObservations: without gRPC and pickle, straight to
  _enqueue_observation.
- PolicyServer._predict_action_chunk: marks the observation as processed; the actions come from our policy node.
- receive_actions runs as it is, stopped after one turn.

One tick. A chunk asked for at tick k with a delay of d is there when tick k + d begins, as in RobotNode:

    take in what has arrived | act, or hold | clock to k + 1 | send what is observed, labelled with the latest action

The server works on one observation at a time and keeps only the newest of those that wait; its delay counts from when
it takes one up, because the client's receiver asks for a chunk (GetActions) only once it has the one before.

What an observation shows when it is taken just after an action was sent is a question of the robot; `acts_at_once`:
True    the action is done: what is observed is the start of the next tick, as when LeRobot's client drives a simulator
        or a fast robot. The label is one too low then, and the first action of every later chunk is skipped.
False   the action is sent and nothing has moved: it is the start of this tick, as on a slow arm. The label is right
        until a tick starves; from then on LeRobot's count of actions lags behind the ticks. Show both.

Left out, all in LeRobot's favour: the wall time of its blocking send, of pickle and of its postprocessor; the least
inference_latency of 1/fps; the race between its two threads; the server's resizing of images; the client's waiting for
its first chunk (both nodes begin when it is there); and it gets histories of observations, which it does not know. The
filter sees observation.state only: pictures play no part in it, and are rendered only if the policy sees them, so that
`renders` is less than LeRobot's. Over TCP replies neither overtake one another nor get lost: `reorder` does nothing
here, and `drop` is a call of GetActions that fails after `rpc_timeout_s` (LeRobot would wait for ever).
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
from lerobot.async_inference import helpers

from tactus.hal.robot import Robot, Scene
from tactus.hal.spec import STATE, LazyArrays, Observation, PolicySpec, SpecError
from tactus.hal.synthetic import SyntheticConfig
from tactus.runtime.robot_node.action_queue import hold
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import Beginning, TickView, Watcher
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Continue, Link, LinkError, Reply

# LeRobot's own get_logger takes the root logger over and writes files into the working directory.
with mock.patch.object(helpers, "get_logger", lambda name, log_to_file=True: logging.getLogger(name)):
    from lerobot.async_inference import robot_client
    from lerobot.async_inference.configs import PolicyServerConfig, RobotClientConfig
    from lerobot.async_inference.helpers import TimedAction, TimedObservation
    from lerobot.async_inference.policy_server import PolicyServer
    from lerobot.async_inference.robot_client import RobotClient
    from lerobot.transport import services_pb2

R = TypeVar("R")
ROOT = Path(__file__).parents[2]
LOST_AFTER_S = 60.0
OBSERVATION = "observation"
"""Key of a raw observation under which our own travels with it."""
CONTEXT: Any = SimpleNamespace(peer=lambda: "lab")
EMPTY: Any = None


@dataclass
class LeRobotStats(EpisodeStats):
    """requests: observations that reached the policy, `asked` their ticks. resends: calls of GetActions that failed.
    starts: ticks of the observations behind the chunks, of which LeRobot's labels know nothing. latency_ticks: their
    age when the chunk is merged.

    observations: sent by the client. filtered: of these, refused by the server. tail_lost: queued actions, yet to be
    executed, that a merge threw away because the newer chunk did not cover their ticks.
    """

    observations: int = 0
    filtered: int = 0
    tail_lost: int = 0


class ServerLink(VirtualDelayedLink):
    """Delays count from the call of `request`, however old the observation is; no reply overtakes another."""

    def __init__(self, link: Link, clock: VirtualClock, model: LatencyModel, lost_after_s: float) -> None:
        super().__init__(link, clock, replace(model, reorder=0.0), lost_after_s)

    def request(self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None) -> int:
        seq = super().request(observation, ticks_left, merged, continued)
        self._pending[-1].tick = self._clock.tick
        return seq

    @property
    def lost(self) -> bool:
        """Whether the reply to the last request will never be seen."""
        return any(pending.delivery is not None and pending.delivery.dropped for pending in self._pending)


class Body:
    """Our robot as RobotClient knows one; names of its own, one for each number."""

    def __init__(self, node: LeRobotAsyncNode) -> None:
        self._node = node
        spec = node.robot.spec
        if STATE not in spec.observations:
            raise SpecError(f"LeRobot's filter reads {STATE}; {spec.name} has {', '.join(spec.observations)}")
        self.observation_features = {f"state_{i}": float for i in range(spec.observations[STATE].shape[0])}
        self.action_features = {f"action_{i}": float for i in range(spec.action.shape[0])}

    def connect(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        seen, state = self._node.seen, self._node.seen_state
        return {OBSERVATION: seen, **dict(zip(self.observation_features, state.tolist(), strict=True))}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self._node.act(np.array([*action.values()], self._node.robot.spec.action.dtype), starved=False)
        return action


class Server(PolicyServer):
    """taken: the observation that GetActions has last taken up."""

    taken: TimedObservation | None = None

    def _predict_action_chunk(self, observation_t: TimedObservation) -> list[TimedAction]:
        self.last_processed_obs = self.taken = observation_t
        return []


class Client(RobotClient):
    """Its observations go straight into the server's queue, its chunks come out of `reply`."""

    server: Server
    stats: LeRobotStats

    def send_observation(self, obs: TimedObservation) -> bool:
        self.stats.observations += 1
        self.stats.filtered += not self.server._enqueue_observation(obs)
        return True

    def receive(self, actions: list[TimedAction]) -> None:
        """One turn of receive_actions."""

        def get_actions(request: Any) -> Any:
            self.shutdown_event.set()  # ends the loop after this turn
            return services_pb2.Actions(data=pickle.dumps(actions))

        self.stub = SimpleNamespace(GetActions=get_actions)
        self.start_barrier = threading.Barrier(1)
        self.receive_actions()
        self.shutdown_event.clear()

    @property
    def queued(self) -> set[int]:
        """Timesteps in the action queue."""
        return {action.get_timestep() for action in self.action_queue.queue}


class LeRobotAsyncNode:
    """Runs episodes of `robot` as LeRobot's RobotClient and PolicyServer would; see the module.

    aggregate: a name of LeRobot's AGGREGATE_FUNCTIONS. actions_per_chunk: LeRobot's key; not given: all there are.
    Client and server begin anew with every episode, as if both had been started again.
    """

    def __init__(
        self,
        robot: Robot,
        policy_spec: PolicySpec,
        link: ServerLink,
        clock: VirtualClock,
        *,
        aggregate: str = "weighted_average",
        chunk_size_threshold: float = 0.5,
        actions_per_chunk: int | None = None,
        acts_at_once: bool = True,
        rpc_timeout_s: float = 1.0,
        max_ticks: int | None = None,
    ) -> None:
        self.robot = robot
        self._policy = policy_spec
        self._link = link
        self._clock = clock
        self._acts_at_once = acts_at_once
        self._rpc_timeout_ticks = rpc_timeout_s * robot.spec.fps
        self._max_ticks = max_ticks
        self._actions_per_chunk = actions_per_chunk or policy_spec.horizon
        self._history: deque[Observation] = deque(maxlen=1 - policy_spec.observation_offsets[0])
        self._body: Any = Body(self)
        self._client_config = RobotClientConfig(
            policy_type="act",
            pretrained_name_or_path="behind our link",
            robot=EMPTY,
            actions_per_chunk=self._actions_per_chunk,
            chunk_size_threshold=chunk_size_threshold,
            fps=round(robot.spec.fps),
            aggregate_fn_name=aggregate,
        )
        self._server_config = PolicyServerConfig(fps=round(robot.spec.fps), inference_latency=0)

    def run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher] = ()) -> LeRobotStats:
        """As RobotNode.run_episode."""
        started_s = time.monotonic()
        self._stats = stats = LeRobotStats()
        self._watchers = watchers
        self._history.clear()
        self._last: np.ndarray | None = None
        self._taken: TimedObservation | None = None
        self._taken_at = self._merged = self._tick = self._source = 0
        self._task = self.robot.scene(episode).task
        renders = self.robot.renders
        self._start_client()
        for watcher in watchers:
            watcher.begin(Beginning(episode, seed, self._task))
        self._timed("reset", lambda: self.robot.reset(episode, seed))
        self._link.reset(episode, seed, self._task)
        self._clock.start()
        self._wait_for_first_chunk()

        while self._max_ticks is None or self._tick < self._max_ticks:
            self._look()
            self._exchange()
            if self._client.actions_available():
                self._client.control_loop_action()
            else:
                self.act(hold(self._last, self.robot.spec.action), starved=True)
            if stats.outcome is not None and stats.outcome.done:
                break
            if self._acts_at_once:
                self._next_tick()
                self._look()
            self._send_observation()
            self._exchange()
            if not self._acts_at_once:
                self._next_tick()
        if self._last is not None:
            view = TickView(stats.ticks, self._last, False, len(self._client.queued), self.robot.observe)
            for watcher in watchers:
                watcher.end(view)
        stats.renders = self.robot.renders - renders
        stats.wall_s = time.monotonic() - started_s
        return stats

    def act(self, action: np.ndarray, starved: bool) -> None:
        """Send one action to the robot."""
        stats, tick = self._stats, self._tick
        stats.starved_ticks += starved
        stats.sources.append(-1 if starved else self._source)
        for watcher in self._watchers:
            watcher.before(TickView(tick, action, starved, len(self._client.queued), self.robot.observe))
        self._last = self._timed("act", lambda: self.robot.act(action))
        stats.actions.append(self._last)
        stats.ticks += 1
        stats.outcome = self.robot.outcome()
        if stats.outcome is not None:
            stats.reward += stats.outcome.reward
        for watcher in self._watchers:
            watcher.after(tick, self._last, stats.outcome)

    def _start_client(self) -> None:
        with mock.patch.object(robot_client, "make_robot_from_config", return_value=self._body):
            self._client = Client(self._client_config)
        self._client.channel.close()
        self._server = Server(self._server_config)
        self._server.lerobot_features = self._client.policy_config.lerobot_features
        self._client.server, self._client.stats = self._server, self._stats

    def _wait_for_first_chunk(self) -> None:
        """Tick 0 begins when its chunk is there, as with RobotNode."""
        self._look()
        self._send_observation()
        self._timed("link", lambda: self._link.wait(LOST_AFTER_S))
        self._exchange()
        if not self._client.actions_available():
            raise LinkError("the policy node gave no first chunk, and LeRobot's client does not ask again")

    def _next_tick(self) -> None:
        self._tick = self._clock.wait_until(self._tick + 1, lambda left_s: None)

    def _look(self) -> None:
        """Keep what the robot observes at this tick, stacked with earlier ticks if the policy wants a history."""
        if self._history and self._history[-1].tick == self._tick:
            return
        now = replace(self._timed("observe", self.robot.observe), tick=self._tick, task=self._task)
        self._history.append(now)
        self.seen, self.seen_state = now, now.arrays[STATE]
        if len(self._policy.observation_offsets) > 1:
            past = [
                next((seen for seen in reversed(self._history) if seen.tick <= self._tick + offset), self._history[0])
                for offset in self._policy.observation_offsets
            ]
            arrays = {
                name: lambda name=name: np.stack([seen.arrays[name] for seen in past]) for name in self._policy.inputs
            }
            self.seen = replace(now, arrays=LazyArrays(arrays))

    def _send_observation(self) -> None:
        """The second half of RobotClient.control_loop."""
        if self._client._ready_to_send_observation() and self._client.control_loop_observation(self._task) is None:
            raise RuntimeError("LeRobot's client failed to send an observation; its log says why")
        self._serve()

    def _serve(self) -> None:
        """The receiver's GetActions finds an observation, and the policy is asked."""
        if self._taken is not None or self._server.observation_queue.empty():
            return
        self._server.taken = None
        self._server.GetActions(None, CONTEXT)
        taken = self._taken = self._server.taken
        assert taken is not None, "GetActions failed; its log says why"
        self._taken_at = self._clock.tick
        seen, left = taken.get_observation()[OBSERVATION], len(self._client.queued)
        arrays = self._timed("observe", lambda: {name: seen.arrays[name] for name in self._policy.inputs})
        self._timed("link", lambda: self._link.request(replace(seen, arrays=arrays), left, self._merged))
        self._stats.requests += 1
        self._stats.asked.append(seen.tick)

    def _exchange(self) -> None:
        """All that arrives now, and what follows from it."""
        while replies := self._timed("link", self._link.poll):
            for reply in replies:
                self._deliver(reply)
            self._serve()
        if self._taken is not None and self._link.lost and self._clock.tick - self._taken_at >= self._rpc_timeout_ticks:
            self._taken = None  # receive_actions logs the error and calls again; must_go stays as it is
            self._stats.resends += 1
            self._serve()

    def _deliver(self, reply: Reply) -> None:
        taken, self._taken = self._taken, None
        if taken is None:
            return
        if reply.chunk is None:  # the server answers Empty, and receive_actions skips that
            self._stats.policy_errors += 1
            return
        stats, client = self._stats, self._client
        actions = torch.from_numpy(np.array(reply.chunk.actions[: self._actions_per_chunk]))
        timed = self._server._time_action_chunk(taken.get_timestamp(), list(actions), taken.get_timestep())
        queued = client.queued
        self._timed("queue", lambda: client.receive(timed))
        self._merged = max(self._merged, reply.seq)
        stats.chunks += 1
        stats.stale_actions_dropped += len(timed) - len(client.queued)
        stats.tail_lost += len(queued - client.queued)
        self._source = taken.get_observation()[
            OBSERVATION
        ].tick  # of all that is queued: nothing older outlives a merge
        stats.starts.append(self._source)
        stats.latency_ticks.append(self._clock.tick - self._source)
        stats.lengths.append(len(timed))
        stats.stale.append(len(timed) - len(client.queued))
        timings = reply.chunk.timings_ms
        stats.inference_ms.append(sum(value for key, value in timings.items() if key != "queued"))
        stats.queued_ms.append(timings.get("queued", 0.0))
        stats.round_trip_ms.append(reply.round_trip_ms)

    def _timed(self, part: str, call: Callable[[], R]) -> R:
        started_s = time.perf_counter()
        try:
            return call()
        finally:
            self._stats.spent_s[part] += time.perf_counter() - started_s


def play(
    robot: Robot,
    link: Link,
    policy_spec: PolicySpec,
    latency: str,
    aggregate: str,
    threshold: float,
    episodes: Iterable[int],
    seed: int,
    **options: Any,
) -> Iterator[tuple[int, Scene, LeRobotStats]]:
    """Run `episodes` LeRobot's way; each as it ends, for episode_row(episode, seed, scene, stats).

    policy_spec: what link.hello(robot.spec, …) gave. latency: as for `tactus eval`. options: LeRobotAsyncNode's.
    """
    clock = VirtualClock(robot.spec.fps)
    timed = ServerLink(link, clock, LatencyModel.parse(latency), LOST_AFTER_S)
    options |= {"aggregate": aggregate, "chunk_size_threshold": threshold}
    node = LeRobotAsyncNode(robot, policy_spec, timed, clock, **options)
    for episode in episodes:
        yield episode, robot.scene(episode), node.run_episode(episode, seed)


def play_ours(robot: Robot, link: Link, policy_spec: PolicySpec, latency: str, config: LoopConfig) -> EpisodeStats:
    """Episode 0, our way."""
    clock = VirtualClock(robot.spec.fps)
    timed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), LOST_AFTER_S)
    return RobotNode(robot, policy_spec, timed, clock, config).run_episode(0, 0)


def main() -> None:
    horizon, steps, aggregate = 10, 40, "latest_only"
    with contextlib.ExitStack() as stack:
        endpoint = f"ipc://{stack.enter_context(tempfile.TemporaryDirectory())}/ticker"
        command = [sys.executable, "-m", "tactus", "serve", f"--connect={endpoint}"]
        command += ["--policy.type=ticker", "--policy.width=3", f"--policy.horizon={horizon}"]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        link = stack.enter_context(contextlib.closing(Link(endpoint)))
        robot = SyntheticConfig(width=3, steps=steps, fps=20).make()
        spec = link.hello(robot.spec, timeout_s=60, real_time=False)
        print(f"chunks of {horizon}, action = its own tick, {steps} ticks, {aggregate}; what was executed ('-' held)")
        for threshold in (0.0, 0.5):
            for delay in (0, 2, 4):
                latency = f"fixed:{delay}"
                rows: dict[str, EpisodeStats] = {}
                for name, at_once in (("LeRobot", True), ("LeRobot, slow arm", False)):
                    played = play(robot, link, spec, latency, aggregate, threshold, [0], 0, acts_at_once=at_once)
                    rows[name] = next(played)[2]
                rows["ours"] = play_ours(robot, link, spec, latency, LoopConfig(aggregate, threshold))
                for name, stats in rows.items():
                    executed = [f"{a[2]:.0f}" if t == 0 or a[0] else "-" for t, a in enumerate(stats.actions)]
                    print(f"threshold {threshold:g}, {latency} {name:18s} {stats.starved_ticks:2d} starved", end="  ")
                    print(*executed[8:26])


if __name__ == "__main__":
    main()
