"""A trace: what a program computed on the way from observations to actions, stage by stage, in one safetensors file.

Any program can write one, with numpy and safetensors alone:

    tensors   "0", "1", … : one per stage, in any dtype that numpy has (bfloat16 as float32)
    metadata  {"tactus-trace": JSON}, where JSON is {"version": 1, "program": …, "policy": …, "robot": …,
              "samples": [{"task": …, "tick": …}, …],
              "stages": [{"sample": 0, "name": "raw/observation.state", "tensor": "0"}, …]}

A sample is one observation and the chunk of actions that it led to. Its stages stand in the order in which they were
computed; PARTS says what names mean. Names and units make a report readable: `names`, `unit` (one per element of the
last axis), `axes` (HWC or CHW of pictures), `dtype` (what it was, if it could not be kept).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

PARTS = {
    "raw": "raw/FEATURE: what the robot observed; pictures HWC uint8, no batch axis",
    "sent": "sent/FEATURE: the same as the policy was given it",
    "preprocess": "preprocess/N.STEP/FEATURE: what a step of the preprocessor changed; [B, …]",
    "input": "input/FEATURE: what the model is given, tokens and their mask among it; [B, …]",
    "image": "image/CAMERA: after the model's own resizing, padding and scaling; [B, C, H, W]",
    "layer": "layer/MODULE: what a module of the model returned the first time, named as in the model; #2, #3 … later",
    "prefix": "prefix: pictures, text and state as SmolVLA and the PI family embed them; [B, L, D]",
    "noise": "noise: what is denoised",
    "denoise": "denoise/K.x, denoise/K.v: a step's input, and the velocity or prediction",
    "normalised": "chunk/normalised: the model's actions, before the postprocessor; [B, H, A]",
    "actions": "chunk/actions: in the robot's units; [H, A]",
    "queue": "queue/actions: those that were to be executed; [n, A]",
    "executed": "executed/actions: what the robot says it did; [n, A]",
}
"""What stages are called, in the order of an inference."""

KEY, VERSION = "tactus-trace", 1


class TraceError(ValueError):
    """A file that is no trace, or two that cannot be compared; the message says which, and what to do."""


@dataclass
class Stage:
    """array: of any shape. names, unit: of the last axis's elements. dtype: in the program, if numpy has none such."""

    name: str
    array: np.ndarray
    names: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    axes: str = ""
    dtype: str = ""


@dataclass
class Sample:
    """One observation, and what became of it. about: task, tick, and whatever else tells samples apart."""

    stages: dict[str, Stage] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trace:
    """program: what ran. policy, robot: names; the policy's with a digest of its weights, if it can be had."""

    program: str
    policy: str = ""
    robot: str = ""
    samples: list[Sample] = field(default_factory=list)

    HEADER: ClassVar = ("program", "policy", "robot")

    def save(self, path: Path | str) -> None:
        """Raises OSError."""
        from safetensors.numpy import save

        tensors: dict[str, np.ndarray] = {}
        stages: list[dict[str, Any]] = []
        for index, sample in enumerate(self.samples):
            for stage in sample.stages.values():
                key = str(len(tensors))
                tensors[key] = np.asarray(stage.array, order="C")
                told = {name: value for name, value in asdict(stage).items() if name != "array" and value}
                stages.append({"sample": index, "tensor": key, **told})
        header = {name: getattr(self, name) for name in self.HEADER}
        about = {"version": VERSION, **header, "samples": [sample.about for sample in self.samples], "stages": stages}
        Path(path).write_bytes(save(tensors, {KEY: json.dumps(about)}))

    @classmethod
    def load(cls, path: Path | str) -> Trace:
        """Raises TraceError for a file that is none, is cut, or is of another version."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                about = cls._about(path, file.metadata() or {})
                program, policy, robot = (str(about.get(name, "")) for name in cls.HEADER)
                trace = cls(program, policy, robot)
                trace.samples = [Sample(about=dict(each)) for each in about["samples"]]
                for told in about["stages"]:
                    stage = Stage(str(told["name"]), file.get_tensor(told["tensor"]))
                    stage.names, stage.unit = tuple(told.get("names", ())), tuple(told.get("unit", ()))
                    stage.axes, stage.dtype = str(told.get("axes", "")), str(told.get("dtype", ""))
                    trace.samples[told["sample"]].stages[stage.name] = stage
        except OSError as error:
            raise TraceError(f"{path}: {str(error).removesuffix(f': {path}')}") from error
        except SafetensorError as error:
            raise TraceError(f"{path}: no trace, or one that is cut: {error}; `tactus trace` writes one") from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, TraceError):
                raise
            raise TraceError(f"{path}: its description is none of a trace: {type(error).__name__}: {error}") from error
        return trace

    @staticmethod
    def _about(path: Path | str, metadata: dict[str, str]) -> dict[str, Any]:
        if KEY not in metadata:
            raise TraceError(
                f"{path}: a safetensors file, but no trace: its metadata lacks {KEY!r}; see docs/diagnosis.md"
            )
        about = json.loads(metadata[KEY])
        if about.get("version") != VERSION:
            raise TraceError(f"{path}: a trace of version {about.get('version')}; accepted: {VERSION}")
        return about


class Recorder:
    """Collects a trace while a program runs.

    recorder = Recorder("my program", policy="act:…")
    recorder.begin(task="pick up the cube", tick=0)             # once per observation
    recorder("raw/observation.state", state, unit=["deg"] * 6)  # as often as there are stages
    recorder.save("mine.trace")
    """

    def __init__(self, program: str, policy: str = "", robot: str = "") -> None:
        self.trace = Trace(program, policy, robot)

    def begin(self, **about: Any) -> None:
        """A new observation."""
        self.trace.samples.append(Sample(about=about))

    def __call__(
        self, name: str, value: Any, names: Sequence[str] = (), unit: Sequence[str] = (), axes: str = ""
    ) -> Any:
        """Note a stage, in the place of one of that name. value: a numpy array, torch tensor, or numbers.

        A copy is kept. Returns None, by which hooks leave all as it is.
        """
        array, dtype = as_array(value)
        self.trace.samples[-1].stages[name] = Stage(name, array, tuple(names), tuple(unit), axes, dtype)

    def save(self, path: Path | str) -> None:
        """As Trace.save."""
        self.trace.save(path)


def as_array(value: Any) -> tuple[np.ndarray, str]:
    """A copy as a numpy array, and what its dtype was if numpy has none such. value: array, torch tensor, numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        kind = str(value.dtype).removeprefix("torch.")
        if kind in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            return value.float().numpy(), kind
        value = value.numpy()
    return np.array(value), ""
