"""Runs a policy on observations and shows a tap every stage on the way: `tactus trace`, and what is replaced in one.

observation ─▶ raw/… ─▶ sent/… ─▶ Policy.infer, with hooks in it ─▶ chunk/actions ─▶ queue/actions ─▶ executed/…
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import Chunk, Feature, Observation
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.tracing.trace_file import Recorder
from tactus.runtime.diagnosis.sources import Seen, as_sent
from tactus.runtime.robot_node.action_queue import ActionQueue

SESSION = "trace"


def trace_recorded(
    tap: Any, policy: Policy, seen: Iterable[Seen], seed: int, layers: str, fresh: bool = True
) -> Iterator[Chunk]:
    """A chunk per observation, each as the first of an episode of its own (fresh) or as those of one.

    tap: a Recorder, or what takes the place of stages. Raises SpecError for observations that do not fit.
    """
    with _hooks(tap, policy, layers):
        for index, each in enumerate(seen):
            if fresh or index == 0:
                policy.reset(Session(SESSION, seed + index, str(each.about.get("task", ""))))
            yield _inferred(tap, policy, each)
    policy.end(SESSION)


def trace_robot(tap: Any, policy: Policy, robot: Robot, count: int, episode: int, seed: int, layers: str) -> None:
    """`count` chunks of one episode, each executed whole (n_action_steps of it) before the next is asked for: as
    lerobot-eval does, and `tactus eval --latency=fixed:0 --chunk_size_threshold=0`."""
    spec = policy.spec
    steps = spec.n_action_steps or spec.horizon
    queue = ActionQueue(robot.spec.action)
    past: deque[dict[str, np.ndarray]] = deque(maxlen=1 - spec.observation_offsets[0])
    robot.reset(episode, seed)
    task = robot.scene(episode).task
    policy.reset(Session(SESSION, seed + episode, task))
    tick, over = 0, False
    past.append(_observed(robot, spec.inputs))
    with _hooks(tap, policy, layers):
        while count > 0 and not over:
            count -= 1
            arrays = history(past, spec.observation_offsets)
            chunk = _inferred(tap, policy, Seen(arrays, {"task": task, "tick": tick, "episode": episode}))
            queue.merge(chunk.actions, tick, tick)
            wanted, done = [], []
            while len(done) < steps and not over:
                action = queue.pop(tick)
                assert action is not None, "a chunk covers the steps that are executed of it"
                wanted.append(action)
                done.append(robot.act(action))
                tick += 1
                outcome = robot.outcome()
                over = outcome is not None and outcome.done
                if len(done) == steps or past.maxlen != 1:
                    past.append(_observed(robot, spec.inputs))
            _show(tap, "queue/actions", np.stack(wanted), robot.spec.action)
            _show(tap, "executed/actions", np.stack(done), robot.spec.action)
    policy.end(SESSION)


def _observed(robot: Robot, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    arrays = robot.observe().arrays
    return {name: np.array(arrays[name]) for name in wanted}


def history(past: Sequence[dict[str, np.ndarray]], offsets: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What a policy with these offsets reads at the newest of them."""
    if len(offsets) == 1:
        return past[-1]
    rows = [past[max(0, len(past) - 1 + offset)] for offset in offsets]
    return {name: np.stack([row[name] for row in rows]) for name in past[-1]}


def _inferred(tap: Any, policy: Policy, seen: Seen) -> Chunk:
    spec = policy.spec
    tap.begin(**seen.about)
    arrays = {name: _show(tap, f"raw/{name}", array, spec.inputs.get(name)) for name, array in seen.arrays.items()}
    sent = as_sent(Seen(arrays, seen.about), spec.inputs, len(spec.observation_offsets))
    sent = {name: _show(tap, f"sent/{name}", array, spec.inputs[name]) for name, array in sent.items()}
    task, tick = str(seen.about.get("task", "")), int(seen.about.get("tick", 0))
    observation = Observation(sent, dict.fromkeys(sent, 0), tick, task)
    [chunk] = policy.infer([Request(SESSION, observation)])
    actions = _show(tap, "chunk/actions", chunk.actions, spec.action)
    return Chunk(chunk.start, actions, chunk.timings_ms, chunk.raw)


def _show(tap: Any, name: str, array: np.ndarray, feature: Feature | None) -> np.ndarray:
    """The array, or what is to take its place."""
    if isinstance(tap, Recorder) and feature is not None:
        unit = (feature.unit,) if isinstance(feature.unit, str) else feature.unit
        unit = unit * (feature.shape[-1] if len(unit) == 1 else 1) if any(unit) and not feature.is_image else ()
        answer = tap(name, array, feature.names, unit, "HWC" if feature.is_image else "")
    else:
        answer = tap(name, array)
    return array if answer is None else answer


def _hooks(tap: Any, policy: Policy, layers: str) -> AbstractContextManager[None]:
    """Into a policy whose inside can be seen: a LeRobot checkpoint, or one that has a PyTorch network."""
    checkpoint = getattr(policy, "checkpoint", None)
    network = policy.flow.network if policy.flow else getattr(policy, "network", None)
    if checkpoint is not None:
        from tactus.policies.tracing.hooks import hooked

        history, processors = len(policy.spec.observation_offsets), (checkpoint.preprocessor, checkpoint.postprocessor)
        return hooked(tap, checkpoint.policy, *processors, layers, own=False, history=history)
    if network is not None:
        from tactus.policies.tracing.hooks import hooked_module

        return hooked_module(tap, network, layers)
    return nullcontext()
