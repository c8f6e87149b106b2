"""Tiny, complete LeRobot checkpoints, written offline through LeRobot's own classes; the same bits for the same seed.

    checkpoints.act(tmp_path / "act", images={"observation.images.image": (64, 64)}, chunk_size=10)

Every function writes what lerobot-train leaves in a `pretrained_model` folder: config.json, model.safetensors and
both processors with their statistics, for the cpu. `state`, `environment_state` and `action` are widths, 0 for none;
`ranges` gives the (low, high) of a vector's data, (-1, 1) if not named; further keywords go to LeRobot's config.

PI0's sizes are constants in LeRobot: load what `pi0` writes inside `tiny_pi0()`, or in a process of its own with
TACTUS_WITH_TINY_PI0 in front of the arguments.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

Images = Mapping[str, tuple[int, int]]
Ranges = Mapping[str, tuple[float, float]]

CAMERA: Images = {"observation.images.image": (64, 64)}
STATE, ENVIRONMENT_STATE, ACTION = "observation.state", "observation.environment_state", "action"
TACTUS_WITH_TINY_PI0 = [sys.executable, str(Path(__file__).resolve())]
IMAGE_TOKENS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
OTHER_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<video>")


def act(
    folder: Path,
    *,
    images: Images = CAMERA,
    state: int = 8,
    action: int = 7,
    environment_state: int = 0,
    chunk_size: int = 10,
    n_action_steps: int = 10,
    temporal_ensemble_coeff: float | None = None,
    ranges: Ranges | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """ACT: 50 thousand parameters, and 11 million of resnet18 if there are images."""
    tiny = {"dim_model": 32, "n_heads": 4, "dim_feedforward": 64, "n_encoder_layers": 1, "n_decoder_layers": 1}
    tiny |= {"n_vae_encoder_layers": 1, "latent_dim": 8, "pretrained_backbone_weights": None}
    steps = {"chunk_size": chunk_size, "n_action_steps": n_action_steps}
    ensemble = {"temporal_ensemble_coeff": temporal_ensemble_coeff}
    features = _features(images, state, action, environment_state)
    return _write(folder, "act", features, {**tiny, **steps, **ensemble, **config}, ranges, seed)


def diffusion(
    folder: Path,
    *,
    images: Images = CAMERA,
    state: int = 8,
    action: int = 7,
    environment_state: int = 0,
    n_obs_steps: int = 2,
    horizon: int = 16,
    n_action_steps: int = 8,
    ranges: Ranges | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Diffusion Policy with ten DDPM steps: 70 thousand parameters, and 11 million of resnet18 per camera."""
    tiny = {"down_dims": (16, 32), "kernel_size": 3, "n_groups": 4, "diffusion_step_embed_dim": 16}
    tiny |= {"num_train_timesteps": 10, "spatial_softmax_num_keypoints": 8, "drop_n_last_frames": 7}
    tiny |= {"pretrained_backbone_weights": None, "use_group_norm": True}
    steps = {"n_obs_steps": n_obs_steps, "horizon": horizon, "n_action_steps": n_action_steps}
    features = _features(images, state, action, environment_state)
    return _write(folder, "diffusion", features, {**tiny, **steps, **config}, ranges, seed)


def keypoints(
    folder: Path,
    *,
    images: Images = CAMERA,
    state: int = 8,
    action: int = 7,
    chunk_size: int = 10,
    n_action_steps: int = 10,
    ranges: Ranges | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Our own that looks, of 30 thousand parameters."""
    import tactus.policies.keypoints.configuration_keypoints  # noqa: F401 - which registers it

    tiny = {"channels": 16, "keypoints": 4, "words": 32, "width": 32, "blocks": 1}
    steps = {"chunk_size": chunk_size, "n_action_steps": n_action_steps}
    return _write(folder, "keypoints", _features(images, state, action), {**tiny, **steps, **config}, ranges, seed)


def vqbet(
    folder: Path,
    *,
    images: Images = CAMERA,
    state: int = 8,
    action: int = 7,
    n_obs_steps: int = 5,
    action_chunk_size: int = 5,
    ranges: Ranges | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """VQ-BeT whose residual VQ counts as trained: 40 thousand parameters, and 11 million of resnet18. One camera."""
    tiny = {"gpt_input_dim": 32, "gpt_output_dim": 32, "gpt_hidden_dim": 32, "gpt_n_layer": 1, "gpt_n_head": 4}
    tiny |= {"vqvae_n_embed": 8, "vqvae_embedding_dim": 16, "vqvae_enc_hidden_dim": 16, "gpt_block_size": 50}
    tiny |= {"spatial_softmax_num_keypoints": 8, "crop_shape": None, "n_vqvae_training_steps": 1}
    tiny |= {"pretrained_backbone_weights": None, "use_group_norm": True}
    steps = {"n_obs_steps": n_obs_steps, "action_chunk_size": action_chunk_size}
    features = _features(images, state, action)
    return _write(folder, "vqbet", features, {**tiny, **steps, **config}, ranges, seed)


def smolvla(
    folder: Path,
    *,
    images: Images = CAMERA,
    state: int = 8,
    action: int = 7,
    chunk_size: int = 10,
    n_action_steps: int = 10,
    num_steps: int = 3,
    ranges: Ranges | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """SmolVLA of 0.25 million parameters; config.json names the VLM in `folder`/vlm by its absolute path."""
    tiny = {"vlm_model_name": str(tiny_vlm(folder / "vlm")), "num_vlm_layers": 2, "resize_imgs_with_padding": (64, 64)}
    steps = {"chunk_size": chunk_size, "n_action_steps": n_action_steps, "num_steps": num_steps}
    features = _features(images, state, action)
    return _write(folder, "smolvla", features, {**tiny, **steps, **config}, ranges, seed)


def pi0(folder: Path, **keys: Any) -> Path:
    """PI0 of 90 thousand parameters; policy_preprocessor.json names the tokenizer in `folder`/tokenizer."""
    from lerobot.policies.pi0 import processor_pi0

    return _pi("pi0", processor_pi0, folder, **keys)


def pi05(folder: Path, **keys: Any) -> Path:
    """PI05 of 90 thousand parameters; as pi0, but that its state is text."""
    from lerobot.policies.pi05 import processor_pi05

    return _pi("pi05", processor_pi05, folder, **keys)


def _pi(
    kind: str,
    module: Any,
    folder: Path,
    *,
    images: Images = CAMERA,
    state: int = 8,
    action: int = 7,
    chunk_size: int = 10,
    n_action_steps: int = 10,
    num_inference_steps: int = 3,
    ranges: Ranges | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    steps = {"chunk_size": chunk_size, "n_action_steps": n_action_steps, "num_inference_steps": num_inference_steps}
    settings = {"image_resolution": (56, 56), **steps, **config}
    with tiny_pi0(), _own_tokenizer(module, folder / "tokenizer"):
        return _write(folder, kind, _features(images, state, action), settings, ranges, seed)


@contextmanager
def _own_tokenizer(module: Any, folder: Path) -> Iterator[None]:
    """Within it, the processors that `module` makes have our tokenizer."""
    tokenizer().save_pretrained(folder)

    def step(tokenizer_name: str, **rest: Any) -> Any:
        return original(tokenizer_name=str(folder.resolve()), **rest)

    original = module.TokenizerProcessorStep
    with mock.patch.object(module, "TokenizerProcessorStep", step):
        yield


@contextmanager
def tiny_pi0() -> Iterator[None]:
    """Within it, every PI0 and PI05 that LeRobot builds is tiny; may be nested."""
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi05 import modeling_pi05

    def paligemma(make: Any, config: Any) -> Any:
        text, vision = config.text_config, config.vision_config
        config._vocab_size = config.image_token_index = text.vocab_size = len(tokenizer())
        vision.hidden_size, vision.intermediate_size, vision.projection_dim = 32, 48, text.hidden_size
        vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size = 1, 2, 14
        return make(config=config)

    def expert(make: Any, config: Any) -> Any:
        config.vocab_size = len(tokenizer())
        return make(config=config)

    makers = {"PaliGemmaForConditionalGenerationWithPiGemma": paligemma, "PiGemmaForCausalLM": expert}
    with ExitStack() as stack:
        for module in (modeling_pi0, modeling_pi05):

            def gemma(variant: str, module: Any = module) -> Any:
                width = {"gemma_2b": 32, "gemma_300m": 24}[variant]
                # compute_layer_complete, which training uses, expects 8 heads
                return module.GemmaConfig(width, depth=2, mlp_dim=48, num_heads=8, num_kv_heads=1, head_dim=8)

            shrink = {name: functools.partial(how, getattr(module, name)) for name, how in makers.items()}
            stack.enter_context(mock.patch.multiple(module, get_gemma_config=gemma, **shrink))
        yield


def tokenizer() -> Any:
    """A byte-level BPE without merges: one token per byte, and those that SmolVLM needs; 265 in all."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *IMAGE_TOKENS, *OTHER_TOKENS]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ("image_token", "fake_image_token", "global_image_token", "end_of_utterance_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=dict(zip(names, IMAGE_TOKENS, strict=True)),
    )


def tiny_vlm(folder: Path) -> Path:
    """The parts of a SmolVLM without its weights, for `vlm_model_name`; returns the absolute folder."""
    from transformers import SmolVLMConfig, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    words = tokenizer()
    text = {"model_type": "llama", "vocab_size": len(words), "hidden_size": 64, "intermediate_size": 128}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    text |= {"pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id}
    text |= {"eos_token_id": words.eos_token_id}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 64, "patch_size": 16}
    config = SmolVLMConfig(
        text_config=text,
        vision_config=vision,
        scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=words.pad_token_id,
    )
    size = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}
    processor = SmolVLMProcessor(SmolVLMImageProcessor(**size), words, SmolVLMVideoProcessor(**size), image_seq_len=4)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder.resolve()


def _features(images: Images, state: int, action: int, environment_state: int = 0) -> dict[str, Any]:
    from lerobot.configs import FeatureType, PolicyFeature

    found = {name: PolicyFeature(FeatureType.VISUAL, (3, *size)) for name, size in images.items()}
    vectors = ((STATE, FeatureType.STATE, state), (ENVIRONMENT_STATE, FeatureType.ENV, environment_state))
    vectors += ((ACTION, FeatureType.ACTION, action),)
    return found | {name: PolicyFeature(kind, (width,)) for name, kind, width in vectors if width}


def _write(
    folder: Path, kind: str, features: dict[str, Any], settings: dict[str, Any], ranges: Ranges | None, seed: int
) -> Path:
    import torch
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import get_policy_class, make_pre_post_processors

    inputs = {name: feature for name, feature in features.items() if name != ACTION}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config: Any = PreTrainedConfig.get_choice_class(kind)(
            input_features=inputs,
            output_features={ACTION: features[ACTION]},
            device="cpu",
            push_to_hub=False,
            **settings,
        )
        policy: Any = get_policy_class(kind)(config)
        if kind == "vqbet":
            policy.eval()  # in training mode one step divides the codes nobody uses by nearly nothing
            policy.vqbet.action_head.discretize(1, torch.rand(4, config.action_chunk_size, *features[ACTION].shape))
        processors = make_pre_post_processors(config, dataset_stats=_statistics(features, ranges or {}))
    policy.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def _statistics(features: dict[str, Any], ranges: Ranges) -> dict[str, dict[str, Any]]:
    """Another mean, spread and range for each element of a vector and each colour of an image."""
    import torch

    found = {}
    for name, feature in features.items():
        picture = feature.type.value == "VISUAL"
        shape = (3, 1, 1) if picture else feature.shape
        low, high = (0.0, 1.0) if picture else ranges.get(name, (-1.0, 1.0))
        minimum = low + 0.2 * (high - low) * torch.rand(shape)
        maximum = high - 0.2 * (high - low) * torch.rand(shape)
        found[name] = {
            "min": minimum,
            "max": maximum,
            "mean": minimum + (maximum - minimum) * (0.4 + 0.2 * torch.rand(shape)),
            "std": (maximum - minimum) * (0.15 + 0.15 * torch.rand(shape)),
            "q01": minimum + 0.01 * (maximum - minimum),
            "q99": maximum - 0.01 * (maximum - minimum),
        }
    return found


if __name__ == "__main__":
    from tactus.runtime.commands import main

    with tiny_pi0():
        sys.exit(main())
