"""Tiny flow policies that have learnt something with many answers to it, to be distilled: LeRobot's families, and ours.

An observation has a state in -1 … 1 (and a picture of noise, and a task); the actions go along a wave that depends on
it, and along another one as far as the noise says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import checkpoints
import numpy as np
import torch

from tactus.hal.spec import STATE, Feature, Observation, PolicySpec
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import FlowNetwork, Shape, save
from tactus.policies.flow_model import velocity_parameters
from tactus.policies.policy import PolicyConfig

H, A = 10, 7
TASKS = ("push", "pull")


def observations(spec: PolicySpec, count: int, seed: int) -> list[Observation]:
    rng = np.random.default_rng(seed)
    seen = []
    for index in range(count):
        arrays = {
            name: rng.integers(0, 256, f.shape, np.uint8) if f.is_image else rng.uniform(-1, 1, f.shape).astype(f.dtype)
            for name, f in spec.inputs.items()
        }
        seen.append(Observation(arrays, {}, 0, TASKS[index % 2]))
    return seen


def wanted(seen: list[Observation], rng: np.random.Generator) -> np.ndarray:
    """Normalised actions, float32[N, H, A]; what of the second wave there is, is drawn."""
    states = np.stack([one.arrays[STATE][..., :3] for one in seen])
    minds = rng.normal(size=(len(seen), 1, 1))
    ticks, joints = np.arange(H)[None, :, None] / H, np.arange(A)[None, None, :]
    first = np.sin(2 * ticks + joints + 2 * states[:, :1, None]) + 0.5 * states[:, 1:2, None]
    second = np.cos(3 * ticks + joints) * (1 + 0.5 * states[:, 2:, None])
    return (first + 0.5 * minds * second).astype(np.float32)


def untrained(kind: str, folder: Path) -> PolicyConfig:
    """Of `kind` (flow, smolvla, pi0, pi05), with random weights and ten steps."""
    if kind == "flow":
        vector = Feature((4,), "float32", unit="1")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = FlowNetwork(Shape({STATE: vector}, Feature((A,), "float32", unit="1"), H, hidden=64, blocks=2))
        save(network, folder)
        return FlowConfig(path=str(folder))
    from tactus.policies.lerobot import LeRobotConfig

    more = {"num_steps" if kind == "smolvla" else "num_inference_steps": 10}
    getattr(checkpoints, kind)(folder, state=4, action=A, chunk_size=H, n_action_steps=H, **more)
    return LeRobotConfig(path=str(folder), threads=1)


def trained(kind: str, folder: Path, steps: int, batch: int = 32) -> PolicyConfig:
    """What of it LeRobot's training moves with the VLM frozen was trained, through its own forward: FOLDER/teacher."""
    config = untrained(kind, folder / "untrained")
    policy = config.make()
    flow, rng, generator = policy.flow, np.random.default_rng(0), torch.Generator().manual_seed(0)
    assert flow is not None
    weights = list(velocity_parameters(flow, observations(policy.spec, 1, 0)).values())
    optimizer = torch.optim.AdamW(weights, 3e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps) + 1e-5
        seen = observations(policy.spec, batch, step)
        chunks = torch.zeros(batch, H, flow.width)
        chunks[..., :A] = torch.from_numpy(wanted(seen, rng))
        noise = flow.noise([generator] * batch)
        t = torch.rand(batch, generator=generator) ** (2 / 3) * 0.999 + 0.001
        mix = t[:, None, None]
        v = flow.training_velocity(flow.condition(seen), mix * noise + (1 - mix) * chunks, t)
        loss = ((v - (noise - chunks))[..., :A] ** 2).mean()  # of the robot's dimensions alone, as LeRobot since #3133
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    flow.save(folder / "teacher", 10)
    return replace(config, path=str(folder / "teacher"))  # type: ignore[call-arg]
