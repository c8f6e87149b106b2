"""The whole way: a fault in a real policy's pipeline, traced, compared, named; what it costs in the actions."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import faults
import numpy as np
import pytest

from tactus.policies.tracing.trace_file import Recorder
from tactus.runtime.commands import main

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import diagnosis as bench

FRONT, STATE, TASK = "observation.images.front", "observation.state", "pick up the cube"
JOINTS = [f"joint_{index}.pos" for index in range(6)]


@pytest.mark.long
@pytest.mark.slow
def test_faults_in_act_are_named(tmp_path: Path) -> None:
    """Those of one family; all four are the next test."""
    found = list(bench.verdicts(tmp_path, 1, ("act",)))
    assert len(found) >= 30
    assert all(verdict.stage for verdict in found), [verdict for verdict in found if not verdict.stage]
    assert sum(verdict.cause for verdict in found) >= 0.9 * len(found), [v for v in found if not v.cause]


@pytest.mark.slow
@pytest.mark.long
def test_faults_are_named_and_what_is_equal_is_not_called_different(tmp_path: Path) -> None:
    found = list(bench.verdicts(tmp_path, 1))
    assert sum(verdict.stage for verdict in found) >= 0.95 * len(found), [v for v in found if not v.stage]
    assert sum(verdict.cause for verdict in found) >= 0.9 * len(found), [v for v in found if not v.cause]
    assert bench.alarms(tmp_path, 50) == 0


@pytest.mark.slow
def test_lerobots_server_resizes_on_the_way_and_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """256² in the camera, 360² in LeRobot's async server, 512² in SmolVLA; here straight to 512²."""
    folder = checkpoints.smolvla(
        tmp_path / "smolvla",
        images={FRONT: (360, 360)},
        state=6,
        action=6,
        resize_imgs_with_padding=(512, 512),
        ranges={STATE: (-90, 90), "action": (-90, 90)},
    )
    pictures, states = _observed()
    np.savez(tmp_path / "seen.npz", **{FRONT: pictures, STATE: states, "task": np.array([TASK] * len(states))})
    keys = [f"--policy.path={folder}", "--layers=none"]
    a, b = str(tmp_path / "ours.trace"), str(tmp_path / "theirs.trace")
    assert main(["trace", a, *keys, f"--observations={tmp_path}/seen.npz"]) == 0
    _trace_of_lerobots_server(folder, pictures, states).save(b)
    capsys.readouterr()
    page, told = tmp_path / "why.html", tmp_path / "why.json"
    assert main(["compare", a, b, f"--policy.path={folder}", f"--html={page}", f"--json={told}"]) == 1
    said = capsys.readouterr().out
    first = said.splitlines()[0]
    assert first.startswith(f"first difference: preprocess/0.given/{FRONT}") and "360×360" in first, said
    report = json.loads(told.read_text())
    assert report["hypotheses"][0]["confirmed"]
    equal = {stage["name"] for stage in report["stages"] if stage["ok"]}
    assert {f"raw/{FRONT}", f"raw/{STATE}", "noise", f"input/{STATE}"} <= equal
    swaps = {swap["stage"]: swap for swap in report["swaps"]}
    cost = swaps[f"image/{FRONT}"]
    assert not cost["problem"] and len(cost["moved"]) == 6 and max(cost["largest"]) > 1e-4
    assert "cannot be put in" in swaps[f"preprocess/0.given/{FRONT}"]["problem"], "of another size"
    assert "stage swap" in said and "<h2>Stage swap</h2>" in page.read_text()


def _observed() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:256, :256]
    picture = np.stack([(x + y) // 2, 255 * ((x // 16 + y // 16) % 2), 128 + 100 * np.sin(x / 9)], -1).astype(np.uint8)
    pictures = np.stack([np.roll(picture, 7 * index, 0) for index in range(3)])
    states = np.array([[10.0 * joint + index for joint in range(6)] for index in range(3)], np.float32)
    return pictures, states


def _trace_of_lerobots_server(folder: Path, pictures: np.ndarray, states: np.ndarray) -> Recorder:
    import logging
    from unittest import mock

    import torch
    from lerobot.async_inference import helpers

    with mock.patch.object(helpers, "get_logger", lambda name, log_to_file=True: logging.getLogger(name)):
        from lerobot.async_inference.configs import PolicyServerConfig
        from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
        from lerobot.async_inference.policy_server import PolicyServer

    from tactus.policies.tracing.lerobot_programs import policy_server

    features: dict[str, Any] = {
        FRONT: {"dtype": "image", "shape": (256, 256, 3), "names": ["height", "width", "channels"]},
        STATE: {"dtype": "float32", "shape": (6,), "names": JOINTS},
    }
    server: Any = PolicyServer(PolicyServerConfig())
    server.shutdown_event.clear()
    instructions = pickle.dumps(RemotePolicyConfig("smolvla", str(folder), features, 10, "cpu"))
    server.SendPolicyInstructions(SimpleNamespace(data=instructions), SimpleNamespace(peer=lambda: "a robot"))
    recorder = Recorder("LeRobot's policy server", "smolvla")
    with policy_server(recorder, server, layers="none"):
        for index, (picture, state) in enumerate(zip(pictures, states, strict=True)):
            torch.manual_seed(1000 + index)
            raw = {"front": picture, "task": TASK, **dict(zip(JOINTS, state.tolist(), strict=True))}
            server._predict_action_chunk(TimedObservation(0.0, index, raw))
    return recorder


@pytest.mark.slow
def test_what_differs_in_nothing_is_equal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    [(_, policy)] = faults.policies(tmp_path, ("smolvla",))
    seen = faults.observations(3)
    for name in ("a", "b"):
        faults.run(policy, seen, None).save(tmp_path / f"{name}.trace")
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a.trace"), str(tmp_path / "b.trace")]) == 0
    assert capsys.readouterr().out.startswith("equal through all ")
