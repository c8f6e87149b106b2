"""What is no whole checkpoint is called what it is, with what to do: kinds of folder, and each file in each state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from safetensors.torch import load_file, save_file

from tactus.policies.lerobot import LeRobotConfig
from tactus.policies.lerobot.weights import CheckpointError

pytestmark = pytest.mark.slow

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 906712520\n"
JSONS = ["config.json", "policy_preprocessor.json", "policy_postprocessor.json"]
TENSORS = ["model.safetensors", "normalizer", "unnormalizer"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.act(tmp_path_factory.mktemp("whole") / "act", images={}, environment_state=4)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


States = dict[str, tuple[Callable[[bytes], bytes], str]]
ANY: States = {
    "pointer": (lambda content: POINTER, "is a Git-LFS pointer, not the file itself: run git lfs pull in "),
}
JSON_STATES: States = ANY | {
    "cut": (half, "is cut short or not JSON .*copy or download it again"),
    "empty": (lambda content: b"", "it is empty; copy or download it again"),
    "list": (lambda content: b"[]", "it holds list, expected keys and values"),
    "number": (lambda content: b"3", "it holds int, expected keys and values"),
    "binary": (lambda content: b"\x80\x04\x95\xff", "is cut short or not JSON"),
    "nothing": (lambda content: b"{}", "does not say which policy it is of|its steps are no list"),
    "page": (lambda content: b"<!DOCTYPE html><html>404</html>", "is cut short or not JSON"),
    "nested": (lambda content: b"[" * 100_000, "is cut short or not JSON"),
}
TENSOR_STATES: States = ANY | {
    "cut": (half, "is cut short or no safetensors"),
    "empty": (lambda content: b"", "is cut short or no safetensors"),
    "zeros": (lambda content: bytes(len(content)), "is cut short or no safetensors"),
    "pickle": (lambda content: b"\x80\x04\x95\xff", "is cut short or no safetensors"),
}


@pytest.mark.parametrize(
    ("name", "state"),
    [(name, state) for name in JSONS for state in JSON_STATES] + [(n, s) for n in TENSORS for s in TENSOR_STATES],
)
def test_a_file_that_is_not_whole(whole: Path, tmp_path: Path, name: str, state: str) -> None:
    folder = tmp_path / "it"
    shutil.copytree(whole, folder)
    [file] = [folder / name] if (folder / name).exists() else folder.glob(f"*_{name}_*.safetensors")
    change, said = (JSON_STATES if name in JSONS else TENSOR_STATES)[state]
    file.write_bytes(change(file.read_bytes()))
    refused(folder, said, file.name)


@pytest.mark.parametrize("name", [*JSONS, *TENSORS])
def test_a_file_that_is_not_there(whole: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it"
    shutil.copytree(whole, folder)
    [file] = [folder / name] if (folder / name).exists() else folder.glob(f"*_{name}_*.safetensors")
    file.unlink()
    refused(folder, f"lacks {file.name}; found |names {file.name}, which is not there; copy it too")


def config(**keys: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(keys))


def put(*files: str, content: str = "{}") -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    return write


def moved(place: str) -> Callable[[Path], object]:
    """The checkpoint lies deeper, at `place`."""

    def move(folder: Path) -> None:
        shutil.move(folder, folder.parent / "aside")
        (folder / place).parent.mkdir(parents=True)
        shutil.move(folder.parent / "aside", folder / place)

    return move


def emptied(*then: Callable[[Path], object]) -> Callable[[Path], object]:
    def empty(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for step in then:
            step(folder)

    return empty


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


LORA = {"base_model_name_or_path": "lerobot/pi0_base", "peft_type": "LORA"}
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "adapter": (
        emptied(
            put("adapter_config.json", content=json.dumps(LORA)),
            put("adapter_model.safetensors", "config.json", "policy_preprocessor.json", "policy_postprocessor.json"),
        ),
        r"is an adapter \(LoRA\) of lerobot/pi0_base, not a whole policy: merge .*merge_and_unload\(\)",
    ),
    "adapter beside weights": (put("adapter_model.safetensors"), "is an adapter .* of its base"),
    "cut adapter": (emptied(put("adapter_config.json", content='{"peft')), "adapter_config.json cannot be used"),
    "dataset": (emptied(put("meta/info.json", "data/x.parquet")), "is a dataset, not a checkpoint"),
    "training output": (moved("checkpoints/last/pretrained_model"), r"did you mean .*/checkpoints/last/pretrained_mod"),
    "without last": (moved("checkpoints/020000/pretrained_model"), "did you mean .*/020000/pretrained_model"),
    "checkpoints": (moved("020000/pretrained_model"), "did you mean .*/020000/pretrained_model"),
    "a step": (moved("pretrained_model"), "did you mean .*/pretrained_model"),
    "cache of the hub": (moved("snapshots/0a1b2c"), "did you mean .*/snapshots/0a1b2c"),
    "openpi": (
        emptied(put("params/_METADATA", "params/manifest.ocdbt", "assets/trossen/norm_stats.json")),
        "is a checkpoint of openpi .*convert_jax_model_to_pytorch",
    ),
    "transformers": (config(architectures=["LlamaForCausalLM"], model_type="llama"), r"a transformers model \(llama\)"),
    "diffusers": (config(_class_name="UNet2DModel"), "a diffusers model"),
    "pickle": (renamed("model.safetensors", "pytorch_model.bin"), "pytorch_model.bin is a pickle, which may run code"),
    "pieces": (
        renamed("model.safetensors", "model.safetensors.index.json"),
        "lacks model.safetensors; found .*its weights are in pieces",
    ),
    "before processors": (
        lambda folder: [file.unlink() for file in folder.glob("policy_*")],
        "lacks policy_preprocessor.json, .*migrate_policy_normalization",
    ),
    "empty": (emptied(), "lacks config.json, .*found nothing"),
    "config that is a folder": (lambda f: (f / "config.json").unlink() or (f / "config.json").mkdir(), "lacks config"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_something_else(whole: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "it"
    shutil.copytree(whole, folder)
    change, said = FOLDERS[kind]
    change(folder)
    refused(folder, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("policy.pt", "policy.pt is a pickle, which may run code"),
        ("latest.ckpt", "is a pickle"),
        ("model.safetensors", r"is a file; accepted: a checkpoint's directory, .*did you mean .*\?"),
        ("config.json", "did you mean "),
    ],
)
def test_a_file_instead_of_a_folder(whole: Path, tmp_path: Path, name: str, said: str) -> None:
    folder = tmp_path / "it"
    shutil.copytree(whole, folder)
    (folder / name).touch()
    refused(folder / name, said)


def test_what_was_suggested_can_be_served(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(whole, folder / "checkpoints" / "last" / "pretrained_model")
    with pytest.raises(CheckpointError) as caught:
        LeRobotConfig(path=str(folder)).make()
    said = str(caught.value).split("did you mean ")[1].rstrip("?")
    assert LeRobotConfig(path=said, threads=1).make().spec.horizon == 10


def refused(path: Path, *said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        LeRobotConfig(path=str(path), threads=1).make()
    text = str(caught.value)
    for pattern in said:
        assert caught.match(f"(?s){pattern}")
    assert "\n" not in text and len(text) < 700, text


def test_every_file_that_decides_actions_is_in_what_results_are_told_apart_by(whole: Path, tmp_path: Path) -> None:
    def told(folder: Path) -> tuple[str, object]:
        spec = LeRobotConfig(path=str(folder), threads=1).make().spec
        return spec.name, spec.details

    same = tmp_path / "same" / whole.name
    shutil.copytree(whole, same)
    (same / "README.md").write_text("of no consequence")
    (same / "train_config.json").write_text("{}")
    assert told(same) == told(whole)
    for file in sorted(same.glob("*.json")):
        if file.name == "train_config.json":
            continue
        before = file.read_bytes()
        file.write_bytes(before + b"\n")
        assert told(same) != told(whole), file.name
        file.write_bytes(before)
    [statistics] = same.glob("*unnormalizer*.safetensors")
    tensors = load_file(statistics)
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, statistics)
    assert told(same) != told(whole)
