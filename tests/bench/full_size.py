"""Chunk latency of SmolVLA (450 M) and PI0 (3.3 B) with random weights: LeRobot's eager call, and ours compiled.

python tests/bench/full_size.py [--policies=smolvla,pi0] [--device=cuda] [--repeats=30]

Eager is LeRobot's preprocessor, predict_action_chunk and postprocessor on the same batch, in the same run.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
import numpy as np
import torch
from chunk_latency import CAMERAS, as_lerobot, median_ms, open_sessions, ours, raw_observations, theirs

from tactus.policies.lerobot import LeRobotConfig

Write = Callable[[Path], Path]
SETTINGS = (("none", "float32"), ("none", "bfloat16"), ("reduce-overhead", "float32"), ("reduce-overhead", "bfloat16"))
"""(policy.compile, policy.dtype)"""


def full_smolvla(folder: Path) -> Path:
    """SmolVLA at its published size (SmolVLM2-500M cut to 16 layers), random weights."""
    from transformers import SmolVLMConfig

    vlm = checkpoints.tiny_vlm(folder / "vlm")
    config: Any = SmolVLMConfig.from_pretrained(vlm)
    text = {"vocab_size": 49280, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32}
    text |= {"num_attention_heads": 15, "num_key_value_heads": 5, "head_dim": 64}
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision |= {"image_size": 512, "patch_size": 16}
    for part, sizes in ((config.text_config, text), (config.vision_config, vision)):
        for key, value in sizes.items():
            setattr(part, key, value)
    config.scale_factor = 4
    with mock.patch.object(checkpoints, "tiny_vlm", lambda _: config.save_pretrained(vlm) or vlm):
        return checkpoints.smolvla(
            folder,
            images=CAMERAS,
            chunk_size=50,
            n_action_steps=50,
            num_steps=10,
            num_vlm_layers=16,
            resize_imgs_with_padding=(512, 512),
        )


def full_pi0(folder: Path) -> Path:
    """PI0 at its published size, random weights, bfloat16 as openpi serves it."""
    with mock.patch.object(checkpoints, "tiny_pi0", nullcontext):
        return checkpoints.pi0(
            folder,
            images=CAMERAS,
            chunk_size=50,
            n_action_steps=50,
            num_inference_steps=10,
            image_resolution=(224, 224),
            dtype="bfloat16",
        )


RECIPES: dict[str, tuple[Write, tuple[tuple[str, str], ...]]] = {
    "smolvla": (full_smolvla, SETTINGS),
    "pi0": (full_pi0, (SETTINGS[0], SETTINGS[2])),  # its weights are bfloat16 already
}


def eager(policy: Any, before: Any, after: Any, rows: list[dict[str, np.ndarray]]) -> None:
    with torch.inference_mode():
        after(policy.predict_action_chunk(before(as_lerobot(rows)))).cpu()


def compare(name: str, folder: Path, device: str, batch: int, repeats: int) -> None:
    write, settings = RECIPES[name]
    if not folder.is_dir():
        write(folder)
    reference = None
    for compile_mode, dtype in settings:
        config = {"path": str(folder), "device": device, "compile": compile_mode, "dtype": dtype, "max_batch": batch}
        mine = LeRobotConfig(**config).make()  # pyright: ignore
        rows = raw_observations(mine, batch)
        open_sessions(mine, batch)
        actions = np.stack(ours(mine, rows))
        ours_ms = median_ms(functools.partial(ours, mine, rows), repeats)
        del mine
        if reference is None:
            reference = actions
            peer = theirs(folder, device)
            millions = sum(parameter.numel() for parameter in peer[0].parameters()) / 1e6
            eager_ms = median_ms(functools.partial(eager, *peer, rows), repeats)
            del peer
            print(f"{name} {millions:.0f} M, batch {batch}: LeRobot eager {eager_ms:.1f} ms")
        difference = np.abs(actions - reference).max() / reference.std()
        how = f"compile={compile_mode}, dtype={dtype}"
        figures = f"{ours_ms:9.1f} ms {eager_ms / ours_ms:6.2f}x   max difference to eager {difference:.1e} σ"
        print(f"  {how:42s}{figures}", flush=True)
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--policies", default="smolvla,pi0")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for name in options.policies.split(","):
            for batch in options.batches.split(","):
                compare(name, Path(root) / name, options.device, int(batch), options.repeats)


if __name__ == "__main__":
    main()
