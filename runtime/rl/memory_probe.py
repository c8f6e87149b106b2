"""What a policy's passes take: loads it in a process of its own, and measures there. JSON in, JSON out.

`python -m tactus.runtime.rl.memory_probe`: standard input has {"policy": encoded, "learner": …, "minibatch": …}; with
no policy, only the GPU is asked. On the CPU a pass is measured by the process's peak, on a GPU by torch's allocator:

    loaded ──┬── a pass of 1 ──┬── a full batch ──┬── forward and backward of 1, 2, 4 … a minibatch
             └ weights         └ batch_1          └ batch                    └ training (gradients in it)
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tactus.policies.builtin
from tactus.hal.config import decode
from tactus.hal.spec import Observation, PolicySpec
from tactus.policies.policy import Policy, PolicyConfig, Request, Session
from tactus.runtime.lab.worker_limit import free_bytes, private_bytes
from tactus.runtime.policy_node.inference import make
from tactus.runtime.rl.placement import Bytes

REGISTERED = (tactus.policies.builtin,)
CAREFUL = 4
"""A batch is tried if twice what the last one took is less than this part of what is free; else it is extrapolated."""


def main() -> None:
    """The process."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.read())
    try:
        found = probe(asked) if "policy" in asked else {"gpu_free": gpu_free(asked["device"])}
    except ValueError as error:
        found = {"error": str(error)}
    out.write(json.dumps(found) + "\n")
    out.flush()


def gpu_free(device: str) -> int:
    """What can be taken on the GPU now, beside this process's own context; 0 without one."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else 0


def probe(asked: dict[str, Any]) -> dict[str, Any]:
    """Bytes as [memory, GPU]. Raises SpecError for a policy that cannot be made, or not be trained."""
    import torch

    policy = make(decode(PolicyConfig, asked["policy"]))
    if asked["learner"] and policy.flow is None:
        raise ValueError(
            f"learner: {policy.spec.name} is no flow policy, which is all that a learner trains; "
            "--learner=false plans its rollouts alone"
        )
    found: dict[str, Any] = {"max_batch": policy.max_batch, "name": policy.spec.name, "horizon": policy.spec.horizon}
    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        torch.cuda.empty_cache()
    if policy.max_batch > 1 or policy.flow is not None:
        found |= _passes(policy)
    if asked["learner"]:
        assert policy.flow is not None
        found |= _training(policy, asked["minibatch"])
    return found


def _passes(policy: Policy) -> dict[str, Any]:
    """Of one robot's observation and of a full batch, as the policy node infers: bytes beside the weights, seconds."""
    measured: dict[str, Any] = {"weights": [0, _allocated()]}
    before = _now()
    _infer(policy, 1)  # what is made once, at the first pass, is no batch's
    for name, count in (("batch_1", 1), ("batch", policy.max_batch)):
        taken = peak(lambda count=count: _infer(policy, count), before)
        start_s = time.perf_counter()
        _infer(policy, count)
        measured |= {name: list(taken), f"{name}_s": time.perf_counter() - start_s}
    return measured


def _infer(policy: Policy, count: int) -> None:
    sessions = [f"probe {index}" for index in range(count)]
    for session in sessions:
        policy.reset(Session(session, 0, ""))
    seen = observations(policy.spec, count)
    policy.infer([Request(session, one) for session, one in zip(sessions, seen, strict=True)])
    for session in sessions:
        policy.end(session)


def _training(policy: Policy, minibatch: int) -> dict[str, Any]:
    """trainable: bytes of what training moves. training: of forward and backward for a minibatch, gradients among them.
    process: of this one, with the weights and without a pass."""
    import torch

    from tactus.policies.flow_model import velocity_parameters

    flow = policy.flow
    assert flow is not None
    before = _now()
    process = private_bytes(os.getpid())
    moved = velocity_parameters(flow, observations(policy.spec, 1))
    size = sum(tensor.numel() * tensor.element_size() for tensor in moved.values())
    everything = sum(tensor.numel() * tensor.element_size() for tensor in flow.network.parameters())
    device = next(flow.network.parameters()).device

    def learn(count: int) -> None:
        x = flow.noise([torch.Generator().manual_seed(index) for index in range(count)]).to(device)
        condition = flow.condition(observations(policy.spec, count))
        flow.training_velocity(condition, x, torch.rand(count, device=device)).square().mean().backward()
        for tensor in flow.network.parameters():
            tensor.grad = None

    count, taken = 1, peak(lambda: learn(1), before)
    while count < minibatch and _room(taken, device.type):
        count = min(2 * count, minibatch)
        taken = peak(lambda count=count: learn(count), before)
    training = [taken.ram * minibatch // count, taken.gpu * minibatch // count]
    on_gpu = device.type == "cuda"
    return {
        "process": [process, before.gpu],
        "trainable": [0, size] if on_gpu else [size, 0],
        "model": everything,
        "training": [max(training[0], 0 if on_gpu else size), max(training[1], size if on_gpu else 0)],
        "tried": count,
    }


def _room(taken: Bytes, device: str) -> bool:
    if device == "cuda" and 2 * taken.gpu * CAREFUL > gpu_free(device):
        return False
    return 2 * taken.ram * CAREFUL < free_bytes()


def peak(work: Callable[[], object], before: Bytes) -> Bytes:
    """What the process has at its most during `work`, beyond what it had before: what an earlier pass has freed, and
    the allocator keeps, is the next one's."""
    import torch

    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    work()
    most = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Bytes(max(0, _kilobytes("VmHWM") * 1024 - before.ram), max(0, most - before.gpu))


def _now() -> Bytes:
    """What the process has; what loading has freed, and the C library keeps for later, is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return Bytes(_kilobytes("VmRSS") * 1024, _allocated())


def _allocated() -> int:
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def observations(spec: PolicySpec, count: int) -> Sequence[Observation]:
    """Of the right shapes: what is in them changes no size."""
    rng = np.random.default_rng(0)
    lead = (len(spec.observation_offsets),) if len(spec.observation_offsets) > 1 else ()
    seen = []
    for _ in range(count):
        arrays = {
            name: rng.integers(0, 256, (*lead, *feature.shape), np.uint8)
            if feature.is_image
            else rng.uniform(-0.2, 0.2, (*lead, *feature.shape)).astype(feature.dtype)
            for name, feature in spec.inputs.items()
        }
        seen.append(Observation(arrays, {}, 0, "do it"))
    return seen


if __name__ == "__main__":
    main()
