"""The training card of a checkpoint: what it reads and gives, how it was made, how it fared. README.md beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tactus.hal.spec import SpecError
from tactus.runtime.evaluation.results import ResultsError, versions, write_whole

CARD, TRAINED = "README.md", "train_config.json"
MADE = "training.json"
"""What `tactus train` leaves in its output_dir: how it was called, on which recordings, and how long it took."""


def write_card(checkpoint: Path, results: Sequence[Path]) -> Path:
    """In the place of the one before. checkpoint: of `tactus train`, in its output_dir. results: folders of evaluations
    of that very checkpoint. Raises SpecError for what is no such checkpoint, ResultsError for another's results."""
    made_file = next((place / MADE for place in checkpoint.resolve().parents if (place / MADE).is_file()), Path(MADE))
    if not (checkpoint / TRAINED).is_file() or not made_file.is_file():
        raise SpecError(f"{checkpoint} is no checkpoint in an output_dir of tactus train, which has {MADE}")
    made, trained = json.loads(made_file.read_text()), json.loads((checkpoint / TRAINED).read_text())
    name = made_file.parent.name
    lines = [f"# {name}", "", *_what(checkpoint, trained), "", *_measured(results, checkpoint)]
    lines += ["## How it was made", "", *_how(made, trained)]
    write_whole(checkpoint / CARD, "\n".join(lines) + "\n")
    return checkpoint / CARD


def _what(checkpoint: Path, trained: Mapping[str, Any]) -> Iterator[str]:
    policy, file = trained["policy"], checkpoint / "model.safetensors"
    with safe_open(file, "pt") as weights:
        count = sum(weights.get_tensor(key).numel() for key in weights.keys())  # noqa: SIM118 - it is no mapping
    yield f"A {policy['type']} policy of {count / 1e6:.2g} million parameters, {file.stat().st_size / 1e6:.1f} MB."
    yield from ("", "| in, out | |", "|---|---|")
    features = {**policy["input_features"], **policy["output_features"]}
    yield from (f"| `{key}` | {one['type'].lower()} {one['shape']} |" for key, one in features.items())
    steps = ", ".join(f"{key} {policy[key]}" for key in ("chunk_size", "n_action_steps") if key in policy)
    yield from ("", f"A chunk: {steps}.") if steps else ()


def _measured(results: Sequence[Path], checkpoint: Path) -> Iterator[str]:
    if not results:
        return
    from tactus.policies.lerobot.weights import digest  # which needs torch

    yield from ("## Measured", "", "| robot | latency | episodes | success [95 %] |", "|---|---|---|---|")
    for folder in results:
        file = folder / "summary.json"
        if not file.is_file():
            raise ResultsError(f"results: {folder} has no summary.json; accepted: an output_dir of tactus eval or run")
        found = json.loads(file.read_text())
        name, own = found["policy"]["name"], digest(checkpoint / "model.safetensors")
        if not name.endswith(own):
            raise ResultsError(f"results: {folder} is of the policy {name}; this checkpoint's name ends in {own}")
        low, high = found["success_ci95"]
        robot = found["robot"]["name"] + "".join(
            f", {key} {found['robot'][key]}" for key in ("init_states", "assets", "looks") if found["robot"].get(key)
        )
        yield (
            f"| {robot} | {found.get('latency', 'real time')} | {found['episodes']} "
            f"| {found['successes']} of {found['episodes']} [{100 * low:.0f} %, {100 * high:.0f} %] |"
        )
    yield ""


def _how(made: Mapping[str, Any], trained: Mapping[str, Any]) -> Iterator[str]:
    yield from ("```bash", "tactus train " + " \\\n  ".join(made["arguments"]), "```", "")
    yield from ("| recording | episodes | frames | tasks |", "|---|---|---|---|")
    for one in made["recordings"]:
        yield f"| {one['name']} | {one['episodes']} | {one['frames']} | {one['tasks']} |"
    optimizer = trained["optimizer"]
    yield ""
    yield (
        f"{trained['steps']} steps of {trained['batch_size']}, {optimizer['type']} with a learning rate of "
        f"{optimizer['lr']:g}, seed {trained['seed']}, {made['precision']}, {made['seconds'] / 60:.0f} minutes on "
        f"{made['cores']} cores, {trained['policy']['device']}."
    )
    yield ""
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "."
