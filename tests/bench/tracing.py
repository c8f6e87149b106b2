"""What a trace costs: chunks of a policy without hooks, after hooks have been taken out again, and with them.

    python tests/bench/tracing.py [--turns=30]

Tiny checkpoints of four families on one thread, so that what is Python's shows most. The ways take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints

from tactus.hal.spec import Observation
from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.tracing.hooks import hooked
from tactus.policies.tracing.trace_file import Recorder

LAYERS = ("none", "blocks", "all")


def chunk_s(policy: Policy) -> float:
    spec = policy.spec
    lead = (len(spec.observation_offsets),) if len(spec.observation_offsets) > 1 else ()
    arrays = {name: np.zeros((*lead, *f.shape), f.dtype) for name, f in spec.inputs.items()}
    policy.reset(Session("bench", 0, ""))
    request = Request("bench", Observation(arrays, dict.fromkeys(arrays, 0), 0, "pick up the cube"))
    began_s = time.perf_counter()
    policy.infer([request])
    return time.perf_counter() - began_s


def traced_s(policy: Policy, layers: str) -> tuple[float, float]:
    """Of a chunk, and its megabytes."""
    recorder = Recorder("bench")
    recorder.begin()
    checkpoint = policy.checkpoint  # pyright: ignore[reportAttributeAccessIssue]
    parts = (checkpoint.policy, checkpoint.preprocessor, checkpoint.postprocessor)
    with hooked(recorder, *parts, layers, own=False):
        took_s = chunk_s(policy)
    return took_s, sum(stage.array.nbytes for stage in recorder.trace.samples[0].stages.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as scratch, checkpoints.tiny_pi0():
        for kind in ("act", "diffusion", "smolvla", "pi0"):
            folder = getattr(checkpoints, kind)(Path(scratch) / kind)
            plain, policy = (LeRobotConfig(path=str(folder), threads=1).make() for _ in range(2))
            times: dict[str, list[float]] = {name: [] for name in ("never", "off", *LAYERS)}
            sizes = {}
            for _ in range(turns):
                times["never"].append(chunk_s(plain))
                for layers in LAYERS:
                    took_s, sizes[layers] = traced_s(policy, layers)
                    times[layers].append(took_s)
                times["off"].append(chunk_s(policy))
            never = statistics.median(times["never"])
            off = statistics.median(times["off"])
            told = [f"{kind}: a chunk {never * 1000:.1f} ms; hooks taken out {off / never:.2f} x"]
            told += [f"{n} {statistics.median(times[n]) / never:.2f} x, {sizes[n]:.1f} MB" for n in LAYERS]
            print("; ".join(told), flush=True)


if __name__ == "__main__":
    main()
