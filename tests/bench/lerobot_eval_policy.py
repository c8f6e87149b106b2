"""A small ACT that looks, for lerobot_eval.py: two pictures and a state in, 50 actions out; LeRobot's own ACTPolicy.

It learns a few episodes of the scripted expert by heart, so that some of what lerobot_eval.py compares are successes.
The resnet18 keeps its random weights, only scaled to the pictures it sees, and so has to run over each frame once; what
follows it is trained. That takes minutes on one core, and costs what any ACT of this size does when it is evaluated.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot_eval import ROOT, environment, tactus
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from tactus.hal.spec import STATE

FOLDER = ROOT / "outputs" / "bench" / "lerobot_eval"
CAMERAS = ("observation.images.image", "observation.images.image2")
HORIZON = 50
LEARNT = (0, 1)
"""Init states of the demonstrations."""
STEPS, BATCH, RATE = 5000, 16, 1e-3
BLUR = 0.03
"""Noise on the state in training, in standard deviations: nobody gets back to exactly where the expert was."""
FLOOR = {STATE: 0.01, "action": 0.05}
"""Smallest standard deviations: what hardly moves is not blown up."""


def trained(suite: str, tasks: list[int], assets: str) -> Path:
    """The checkpoint's folder; demonstrations and weights are made if they are not there."""
    name = f"{suite}_{'-'.join(map(str, tasks))}_{Path(assets).name}"
    folder = FOLDER / name / "policy"
    if not (folder / "model.safetensors").is_file():
        demos = _record(FOLDER / name / "demos", suite, tasks, assets)
        started_s = time.process_time()
        _train(demos, folder)
        print(f"training: {time.process_time() - started_s:.0f} s of one core", flush=True)
    return folder


def _record(root: Path, suite: str, tasks: list[int], assets: str) -> Path:
    """The expert, asked anew at every tick, on LEARNT."""
    if root.exists():
        return root
    print(f"recording {root.name}", flush=True)
    episodes = len(tasks) * len(LEARNT)
    with tempfile.TemporaryDirectory() as scratch:
        common = [f"--connect=ipc://{scratch}/expert"]
        serve = subprocess.Popen(
            tactus("serve", *common, "--policy=expert", "--policy.commit=0"),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            subprocess.run(
                tactus(
                    "record",
                    *common,
                    f"--robot.suite={suite}",
                    f"--robot.tasks={tasks}".replace(" ", ""),
                    f"--robot.init_states={[*LEARNT]}".replace(" ", ""),
                    f"--robot.assets={assets}",
                    "--latency=fixed:0",
                    "--chunk_size_threshold=1",
                    f"--episodes={episodes}",
                    "--successful_only",
                    "--dataset_video=false",
                    f"--dataset_root={root}",
                    f"--output_dir={scratch}/run",
                ),
                cwd=ROOT,
                env=environment(),
                check=True,
            )
        finally:
            serve.terminate()
            serve.wait()
    return root


def _frames(root: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Every frame of the recording by feature, and the frame after the last of its episode for each."""
    dataset = LeRobotDataset(f"tactus/{root.name}", root)
    items = [dataset[index] for index in range(len(dataset))]
    frames = {name: torch.stack([item[name] for item in items]) for name in (*CAMERAS, STATE, "action")}
    frames |= {name: (frames[name] * 255).round().to(torch.uint8) for name in CAMERAS}
    last = {int(item["episode_index"]): frame for frame, item in enumerate(items)}
    return frames, torch.tensor([last[int(item["episode_index"])] + 1 for item in items])


def _statistics(frames: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found = {}
    for name, values in frames.items():
        picture = name in CAMERAS
        values = values.float() / 255 if picture else values
        axes = (0, 2, 3) if picture else (0,)
        mean, std = values.mean(axes, keepdim=picture), values.std(axes, keepdim=picture)
        mean, std = (mean[0], std[0]) if picture else (mean, std.clamp(min=FLOOR[name]))
        found[name] = {"mean": mean, "std": std}
    return found


def _policy() -> ACTPolicy:
    pictures = {name: PolicyFeature(FeatureType.VISUAL, (3, 256, 256)) for name in CAMERAS}
    config = ACTConfig(
        input_features=pictures | {STATE: PolicyFeature(FeatureType.STATE, (8,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
        device="cpu",
        push_to_hub=False,
        pretrained_backbone_weights=None,
        use_vae=False,
        dropout=0.0,
        dim_model=64,
        n_heads=4,
        dim_feedforward=256,
        n_encoder_layers=2,
        chunk_size=HORIZON,
        n_action_steps=HORIZON,
    )
    return ACTPolicy(config)


def _scale(backbone: nn.Module, pictures: Tensor) -> None:
    """Give every normalisation of the frozen backbone the statistics of what it sees."""

    def look(layer: Any, inputs: tuple[Tensor]) -> None:
        layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        layer.running_var.copy_(inputs[0].var((0, 2, 3)))

    layers = [layer for layer in backbone.modules() if isinstance(layer, FrozenBatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    backbone(pictures)
    for hook in hooks:
        hook.remove()


class _Seen(nn.Module):
    """Stands in for the backbone where it has already been run."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"feature_map": features}


def _train(demos: Path, folder: Path) -> None:
    torch.manual_seed(0)
    frames, ends = _frames(demos)
    policy = _policy()
    processors = make_pre_post_processors(policy.config, dataset_stats=_statistics(frames))
    print(f"{len(ends)} frames; the backbone over all of them", flush=True)
    backbone = policy.model.backbone
    seen = _through(backbone, processors[0], frames)
    policy.model.backbone = _Seen()
    _fit(policy, seen, ends)
    policy.model.backbone = backbone
    policy.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)


@torch.no_grad()
def _through(backbone: nn.Module, before: Any, frames: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every frame as the preprocessor makes it, pictures as what the backbone makes of them."""

    def batch(rows: Any) -> dict[str, Any]:
        pictures = {name: frames[name][rows].float() / 255 for name in CAMERAS}
        return before({**pictures, STATE: frames[STATE][rows], "action": frames["action"][rows]})

    count = len(frames["action"])
    sample = batch(torch.linspace(0, count - 1, 24).long())
    _scale(backbone, torch.cat([sample[name] for name in CAMERAS]))
    parts = []
    for start in range(0, count, 16):
        ready = batch(slice(start, start + 16))
        parts.append({name: backbone(ready[name])["feature_map"] for name in CAMERAS})
        parts[-1] |= {name: ready[name] for name in (STATE, "action")}
    return {name: torch.cat([part[name] for part in parts]) for name in frames}


def _fit(policy: ACTPolicy, seen: dict[str, Tensor], ends: Tensor) -> None:
    policy.train()
    beginnings = torch.cat([torch.tensor([0]), ends.unique()[:-1]])
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=1e-4)
    losses, started_s = [], time.monotonic()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / STEPS))
        rows = torch.randint(len(ends), (BATCH,))
        first = torch.randint(len(beginnings), (BATCH // 4,))
        rows[: BATCH // 4] = beginnings[first]  # what goes wrong there nothing makes good, and they are few
        wanted = rows[:, None] + torch.arange(HORIZON)
        last = ends[rows][:, None] - 1
        loss, _ = policy.forward(
            {
                **{name: seen[name][rows] for name in CAMERAS},
                STATE: seen[STATE][rows] + BLUR * torch.randn(BATCH, 8),
                "action": seen["action"][torch.minimum(wanted, last)],
                "action_is_pad": wanted > last,
            }
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 250 == 0:
            print(
                f"step {step + 1}: loss {np.mean(losses[-250:]):.3f}, {time.monotonic() - started_s:.0f} s", flush=True
            )


def main() -> None:
    torch.set_num_threads(1)
    suite, assets, *tasks = sys.argv[1:]
    print(trained(suite, [int(task) for task in tasks], assets))


if __name__ == "__main__":
    main()
