"""How long one chunk takes, from observation to actions in the robot's units: LeRobot's own calls, and ours.

python tests/bench/chunk_latency.py

Small policies on one CPU thread; full_size.py does the same with large ones on a GPU. Peers, in the same run and
with the same checkpoint:
  async server   what LeRobot 0.6.1's PolicyServer does for a chunk: preprocess, predict_action_chunk, and the
                 postprocessor once for each of its actions
  select_action  what lerobot-eval does for as many steps: preprocess and postprocess at every one
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
import torch

from tactus.hal.spec import Observation
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Policy, Request, Session

TASK = "pick up the milk and place it in the basket"
CAMERAS = {"observation.images.image": (256, 256), "observation.images.image2": (256, 256)}


def median_ms(work: Callable[[], object], repeats: int, warm_up: int = 2) -> float:
    spent = []
    for repeat in range(warm_up + repeats):
        started = time.perf_counter()
        work()
        if repeat >= warm_up:
            spent.append((time.perf_counter() - started) * 1000)
    return statistics.median(spent)


def theirs(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """(policy, preprocessor, postprocessor), as lerobot-eval builds them."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import get_policy_class, make_pre_post_processors

    config: Any = PreTrainedConfig.from_pretrained(folder, cli_overrides=[f"--device={device}"])
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    overrides = {"device_processor": {"device": device}}
    pipelines = make_pre_post_processors(config, pretrained_path=str(folder), preprocessor_overrides=overrides)
    return policy, *pipelines


def raw_observations(policy: Policy, rows: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {
            name: random.integers(0, 256, f.shape, np.uint8) if f.is_image else random.random(f.shape, np.float32)
            for name, f in policy.spec.inputs.items()
        }
        for _ in range(rows)
    ]


def as_lerobot(rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """LeRobot's preprocess_observation on a batch."""
    batch: dict[str, Any] = {"task": [TASK] * len(rows)}
    for name in rows[0]:
        values = torch.from_numpy(np.stack([row[name] for row in rows]))
        batch[name] = values.permute(0, 3, 1, 2).contiguous().float() / 255 if values.ndim == 4 else values.float()
    return batch


def ours(policy: Policy, rows: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    requests = [Request(f"robot {i}", Observation(row, {}, 0, TASK)) for i, row in enumerate(rows)]
    return [chunk.actions for chunk in policy.infer(requests)]


def open_sessions(policy: Policy, rows: int) -> None:
    for i in range(rows):
        policy.reset(Session(f"robot {i}", i, TASK))


def compare(root: Path, repeats: int = 30) -> None:
    recipes: dict[str, Callable[[Path], Path]] = {
        "act, vectors, 100 actions": lambda f: checkpoints.act(
            f, images={}, environment_state=14, chunk_size=100, n_action_steps=100
        ),
        "act, 2 cameras 256², 50 actions": lambda f: checkpoints.act(
            f, images=CAMERAS, chunk_size=50, n_action_steps=50, dim_model=256, dim_feedforward=1024
        ),
        "smolvla 0.25 M, 2 cameras 256², 50 actions": lambda f: checkpoints.smolvla(
            f, images=CAMERAS, chunk_size=50, n_action_steps=50, num_steps=10
        ),
    }
    print(f"{'median ms':44s}{'ours':>8s}{'async server':>16s}{'select_action':>18s}")
    for number, (title, write) in enumerate(recipes.items()):
        folder = write(root / str(number))
        mine = LeRobotConfig(path=str(folder), threads=1).make()
        policy, before, after = theirs(folder, "cpu")
        rows = raw_observations(mine, 1)
        open_sessions(mine, 1)

        def server(policy: Any = policy, before: Any = before, after: Any = after, rows: Any = rows) -> None:
            with torch.inference_mode():
                chunk = policy.predict_action_chunk(before(as_lerobot(rows)))
                torch.stack([after(chunk[:, i]) for i in range(chunk.shape[1])], dim=1)

        def steps(policy: Any = policy, before: Any = before, after: Any = after, rows: Any = rows) -> None:
            policy.reset()
            for _ in range(policy.config.n_action_steps):
                observation = before(as_lerobot(rows))
                with torch.inference_mode():
                    action = policy.select_action(observation)
                after(action)

        ours_ms = median_ms(lambda mine=mine, rows=rows: ours(mine, rows), repeats)
        server_ms, steps_ms = median_ms(server, repeats), median_ms(steps, max(3, repeats // 5), 1)
        peers = f"{server_ms:9.2f} {server_ms / ours_ms:5.2f}x{steps_ms:11.2f} {steps_ms / ours_ms:5.1f}x"
        print(f"{title:44s}{ours_ms:8.2f}{peers}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        compare(Path(root))


if __name__ == "__main__":
    main()
