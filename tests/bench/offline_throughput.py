"""What batches save `tactus offline`: frames a second within the policy, in batches and one by one, and their ratio.

    python tests/bench/offline_throughput.py [FRAMES]

Tiny checkpoints on datasets made of noise, one CPU thread; of each batch size the least of all calls counts, so that
other work on the machine does not.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
import numpy as np
from datasets_made import write

from tactus.hal.spec import STATE
from tactus.policies.lerobot.config import LeRobotConfig
from tactus.runtime.diagnosis.offline.evaluation import latency
from tactus.runtime.diagnosis.offline.predictor import Predictor
from tactus.runtime.recording.demonstrations import Demonstrations

BATCHES = (2, 4, 8, 16)
WRITERS = {
    "act, one camera": lambda folder: checkpoints.act(folder),
    "diffusion, one camera": lambda folder: checkpoints.diffusion(folder),
    "smolvla, one camera": lambda folder: checkpoints.smolvla(folder),
}


def main() -> None:
    """Print a line a policy and batch."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        for name, checkpoint in WRITERS.items():
            folder = checkpoint(Path(scratch) / "checkpoints" / name)
            policy = LeRobotConfig(path=str(folder), threads=1).make()
            spec = policy.spec
            width, state = int(np.prod(spec.action.shape)), int(np.prod(spec.inputs[STATE].shape))
            root = write(
                Path(scratch) / "data" / name,
                episodes=1,
                length=frames,
                cameras={n.rpartition(".")[2]: (f.shape[0], f.shape[1]) for n, f in spec.inputs.items() if f.is_image},
                action=lambda e, t, width=width: np.zeros(width, np.float32),
                state=lambda e, t, state=state: np.zeros(state, np.float32),
            )
            demonstrations = Demonstrations(root, spec)
            predictor, asked = Predictor(policy, demonstrations, 0), demonstrations.frames(1)
            predictor.predict(asked[:16])
            alone = latency(predictor.predict(asked, 1).calls)["min_ms"]
            print(f"{name:22} one by one  {1000 / alone:8.1f} frames/s")
            for batch in BATCHES:
                each = latency(predictor.predict(asked, batch).calls)["min_ms"] / batch
                print(f"{name:22} {batch:3} a call  {1000 / each:8.1f} frames/s, {alone / each:5.2f} times", flush=True)


if __name__ == "__main__":
    main()
