"""What one denoising step saves: a chunk's time in ten steps and in one, and how it divides into prefix and expert.

python tests/bench/distill_latency.py                          our flow policy and a tiny SmolVLA, on one CPU thread
python tests/bench/distill_latency.py --full --device=cuda     SmolVLA (450 M) and PI0 (3.3 B), random weights

The prefix (pictures, text, state) is computed once a chunk whatever the number of steps: it bounds what can be saved.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
import flow_teachers
import torch
from full_size import full_pi0, full_smolvla

from tactus.hal.spec import STATE, Feature
from tactus.policies.distillation.measures import latency
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import FlowNetwork, Shape, save
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import PolicyConfig


def ours(folder: Path, device: str) -> PolicyConfig:
    """Of the size of the policies of rtc_policy.py: 1.3 million parameters."""
    state, action = Feature((44,), "float32", unit="1"), Feature((7,), "float32", unit="1")
    save(FlowNetwork(Shape({STATE: state}, action, 20)), folder)
    return FlowConfig(path=str(folder), device=device)


def tiny(folder: Path, device: str) -> PolicyConfig:
    return LeRobotConfig(path=str(checkpoints.smolvla(folder, chunk_size=50, num_steps=10)), device=device)


def full(write: Callable[[Path], Path]) -> Callable[[Path, str], PolicyConfig]:
    return lambda folder, device: LeRobotConfig(path=str(write(folder)), device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    makers = {"SmolVLA 450 M": full(full_smolvla), "PI0 3.3 B": full(full_pi0)} if arguments.full else {}
    makers = makers or {"our flow policy": ours, "tiny SmolVLA": tiny}
    print(f"{'':16} {'prefix':>9} {'a step':>9} {'ten steps':>10} {'one step':>9}")
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as scratch:
            policy = make(Path(scratch), arguments.device).make()
            flow = policy.flow
            assert flow is not None
            seen = flow_teachers.observations(policy.spec, 1, 0)
            device = next(flow.network.parameters()).device
            flow.num_steps = 10
            ten = latency(flow, seen, device)
            flow.num_steps = 1
            one = latency(flow, seen, device)
            times = f"{ten.condition_ms:6.2f} ms {ten.step_ms:6.2f} ms {ten.chunk_ms:7.2f} ms {one.chunk_ms:6.2f} ms"
            print(f"{name:16} {times}   {ten.chunk_ms / one.chunk_ms:.1f}×", flush=True)


if __name__ == "__main__":
    main()
