"""Sweeps as the lab leaves them: made-up policies, but the real queue, delays, rows and folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from tactus.hal.robot import Outcome, Scene
from tactus.hal.spec import Feature
from tactus.runtime.evaluation.results import Results
from tactus.runtime.lab.sweep_folder import SweepFolder
from tactus.runtime.lab.sweep_settings import SYNCHRONOUS, Cell
from tactus.runtime.robot_node.action_queue import ActionQueue, hold
from tactus.runtime.robot_node.episode import EpisodeStats, episode_row, episode_timing
from tactus.runtime.wire.latency import LatencyModel

FPS, HORIZON, TASKS, SEED = 20.0, 12, 5, 1000
ACTION = Feature((3,), "float32", mode=("delta", "delta", "binary"))
WEAKNESS = {"latest_only": 0.045, "weighted_average": 0.035, "temporal_ensemble": 0.06, "rtc": 0.012}
"""Chance of success lost per tick of delay."""
CHUNK_MS = {"": 9.0, "teacher": 290.0, "student": 31.0}
SKILL = {"student": -0.08}
"""Of policies in a sweep of several: what a chunk takes them, and chance of success gained."""


def play(cell: Cell, episode: int, horizon: int = HORIZON, weakness: float | None = None) -> EpisodeStats:
    """An episode: the same luck in every cell, chunks that disagree where they meet."""
    luck = np.random.default_rng([SEED, episode, 1]).random()
    rng = np.random.default_rng([SEED, episode, 2])
    loss = WEAKNESS.get(cell.aggregate, 0.03) if weakness is None else weakness
    queue, stats = ActionQueue(ACTION, cell.aggregate), EpisodeStats()
    draw = LatencyModel.parse(cell.latency).sampler(FPS, SEED, episode)
    unused = horizon - (cell.execution_horizon or horizon)
    ask_at = max(cell.chunk_size_threshold * horizon, unused)
    phase, last, due, tick, delays = rng.random(3) * 6, None, None, 0, []
    length, success = 0, False
    while not length or tick < length:
        if due and tick >= due[1]:
            merge(queue, stats, due[0], tick, horizon, phase, rng, CHUNK_MS[cell.policy])
            due = None
        if due is None and queue.remaining(tick) <= ask_at:
            inference_ms = float(rng.normal(CHUNK_MS[cell.policy], 1))
            delivery = draw.draw(inference_ms)
            delays.append(delivery.ticks)
            stats.requests += 1
            stats.asked.append(tick)
            due = (tick, tick + (delivery.ticks if tick else 0) if not delivery.dropped else tick + 20)
            if due[1] <= tick:
                merge(queue, stats, tick, tick, horizon, phase, rng, CHUNK_MS[cell.policy])
                due = None
        stats.sources.append(queue.source(tick))
        action = queue.pop(tick)
        stats.starved_ticks += action is None
        last = hold(last, ACTION) if action is None else action
        stats.actions.append(last)
        tick += 1
        if not length and tick == 40:  # as clear by now as it will be
            starving = 0.5 * stats.starved_ticks / tick
            success = bool(luck < 0.94 + SKILL.get(cell.policy, 0.0) - loss * float(np.mean(delays)) - starving)
            length = int(rng.integers(60, 90)) if success else 140
    stats.ticks = tick
    stats.outcome = Outcome(success, True, float(success))
    stats.reward = float(success)
    stats.renders = 2 * stats.requests
    stats.spent_s = {
        "reset": 0.6,
        "observe": 0.021 * stats.requests,
        "act": 0.0095 * tick,
        "link": 0.012 * stats.requests,
        "queue": 0.0004 * tick,
    }
    stats.wall_s = sum(stats.spent_s.values()) + 0.001 * tick
    return stats


def merge(
    queue: ActionQueue,
    stats: EpisodeStats,
    start: int,
    now: int,
    horizon: int,
    phase: np.ndarray,
    rng: np.random.Generator,
    chunk_ms: float,
) -> None:
    when = (start + np.arange(horizon))[:, None] / 9 + phase
    wander = 0.15 * rng.normal(size=3) if queue._aggregate != "rtc" else 0.04 * rng.normal(size=3)
    actions = (np.sin(when) + wander).astype(np.float32)
    actions[:, 2] = actions[:, 2] > 0
    merged = queue.merge(actions, start, now)
    stats.chunks += 1
    stats.stale_actions_dropped += merged.stale
    stats.latency_ticks.append(now - start)
    stats.starts.append(start)
    stats.lengths.append(horizon)
    stats.stale.append(merged.stale)
    inference_ms = float(rng.normal(chunk_ms, 1))
    stats.inference_ms.append(inference_ms)
    stats.queued_ms.append(float(rng.exponential(1)))
    stats.round_trip_ms.append(inference_ms + float(rng.normal(3, 0.2)) + (now - start) * 50)


def make_sweep(
    folder: Path,
    cells: Sequence[Cell],
    episodes: int = 20,
    others: Sequence[tuple[str, Cell]] = (),
    played: Mapping[str, int] | None = None,
    failures: int = 0,
) -> Path:
    """cells: with the references; of several policies, those of CHUNK_MS. others: another lab's, under their label.
    played: fewer episodes, by a cell's name."""
    robot = {"name": "libero:libero_object", "fps": FPS, "details": {"assets": "primitive (drawn by tactus)"}}
    policy: dict[str, object] = {"name": "act:libero_object_act:b753d27c", "horizon": HORIZON, "n_action_steps": None}
    names = dict.fromkeys(cell.policy for cell in cells if cell.policy)
    which = (
        {"policies": {name: {**policy, "name": f"flow {name} 0815"} for name in names}} if names else {"policy": policy}
    )
    about = {
        "robot": robot,
        **which,
        "seed": SEED,
        "episodes": episodes,
        "versions": {"python": "3.12.0", "tactus": "0.1.0", "numpy": "2.2.6"},
        "command": "tactus eval --sweep --policy.path=policies/checkpoints/libero_object_act --episodes=20",
    }
    sweep = SweepFolder(folder, {"robot": robot, **which, "seed": SEED}, cells, about, resume=False)
    for cell, results in zip(cells, sweep.results, strict=True):
        count = episodes if played is None else played.get(cell.name, episodes)
        fill(results, cell, count)
    for label, cell in others:
        name = f"{label}_{cell.name}".lower().replace(" ", "-")
        results = Results(folder / "cells" / name, {**cell.to_dict(), "label": label}, resume=False)
        fill(results, cell, episodes, weakness=0.075)
    if failures:
        add_failures(folder, cells[-1], failures)
    return folder


def fill(results: Results, cell: Cell, episodes: int, weakness: float | None = None) -> None:
    for episode in range(episodes):
        task = episode % TASKS
        scene = Scene(f"pick up thing {task} and place it in the basket", f"libero_object/{task}", {"task_id": task})
        stats = play(cell, episode, weakness=weakness)
        if weakness is not None:
            stats.sources = [-1] * len(stats.sources)  # another lab's node knows no sources
        results.add(episode_row(episode, SEED, scene, stats), episode_timing(episode, stats))


def add_failures(folder: Path, cell: Cell, count: int) -> None:
    (folder / "failures").mkdir()
    entries = []
    for number in range(count):
        image = np.full((180, 240, 3), (40 + 30 * number % 200, 90, 120), np.uint8)
        cv2.circle(image, (60 + 20 * number, 90), 30, (230, 230, 230), -1)
        file = f"{cell.name}_{number:05d}.jpg"
        cv2.imwrite(str(folder / "failures" / file), image)
        entry = {"file": file, "cell": cell.name, "episode": number, "task": "pick up <the> thing", "ticks": 140}
        entries.append({**entry, "repeated": number % 2 == 0})
    (folder / "failures" / "index.json").write_text(json.dumps(entries))


def grid(
    latencies: Sequence[str] = ("fixed:0", "fixed:2", "fixed:4", "fixed:6", "fixed:8"),
    aggregations: Sequence[str] = ("latest_only", "weighted_average", "temporal_ensemble", "rtc"),
    thresholds: Sequence[float] = (0.5,),
    policies: Sequence[str] = ("",),
) -> list[Cell]:
    """The references and every combination."""
    cells = [
        Cell(latency, aggregate, threshold, policy=policy)
        for policy in policies
        for threshold in thresholds
        for aggregate in aggregations
        for latency in latencies
    ]
    return [*(replace(SYNCHRONOUS, policy=policy) for policy in policies), *cells]
