"""Hooks that show a trace what a PyTorch policy computes: LeRobot's, in whichever program runs it, or a bare module.

    recorder = Recorder("lerobot-eval", policy="act")
    with hooked(recorder, policy, preprocessor, postprocessor):
        rollout(env, policy, …)
    recorder.save("theirs.trace")

A tap is called with each stage's name and value; what it returns, if it is not None, takes the value's place. A
Recorder keeps, an Injection replaces. Nothing is changed in the policy's code, and nothing remains after the block.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

CHUNKERS = {"act": "predict_action_chunk", "smolvla": "_get_action_chunk", "pi0": "predict_action_chunk"}
"""By policy type, the method that every way of asking it goes through; others: predict_action_chunk."""
PICTURES = ("prepare_images", "_preprocess_images")
"""What SmolVLA and the PI family call their own resizing, padding and scaling."""
LAYERS = ("none", "blocks", "all")


class Tap(Protocol):
    """Told of every stage; an answer other than None takes the value's place."""

    def begin(self, **about: Any) -> None: ...
    def __call__(self, name: str, value: Any) -> Any: ...


class Injection:
    """A tap that puts arrays in the place of stages, by name, in every sample. `done`: which it could.

    Raises ValueError for an array of another size than the stage's.
    """

    def __init__(self, stages: Mapping[str, np.ndarray]) -> None:
        self._stages = dict(stages)
        self.done: set[str] = set()

    def begin(self, **about: Any) -> None:
        """A new observation: nothing changes."""

    def __call__(self, name: str, value: Any) -> Any:
        if name not in self._stages:
            return None
        array = self._stages[name]
        if np.size(array) != (value.numel() if isinstance(value, Tensor) else np.size(value)):
            raise ValueError(f"{list(np.shape(array))} cannot take the place of {list(np.shape(value))}")
        self.done.add(name)
        return like(value, array)


def like(value: Any, array: np.ndarray) -> Any:
    """An array in the shape, dtype and place of a value: tensor or array."""
    if isinstance(value, Tensor):
        return torch.as_tensor(np.ascontiguousarray(array)).reshape(value.shape).to(value.device, value.dtype)
    return np.asarray(array).reshape(np.shape(value)).astype(np.asarray(value).dtype)


@contextmanager
def hooked(
    tap: Tap,
    policy: Any,
    preprocessor: Any = None,
    postprocessor: Any = None,
    layers: str = "blocks",
    own: bool = True,
    history: int = 1,
    raw: Callable[[], Mapping[str, np.ndarray]] = dict,
) -> Iterator[None]:
    """A LeRobot policy with its processors.

    layers: none, blocks (numbered ones and the model's parts), all, or a regular expression of module paths. own: the
    preprocessor's passes that lead to a chunk are the observations; False where the caller says when one begins.
    history: rows that the preprocessor gets for one observation, of which the newest is shown. raw: the observation
    that begins, by name.
    """
    hooks = _Hooks(tap, own, history, raw)
    with ExitStack() as stack:
        if preprocessor is not None:
            stack.enter_context(hooks.preprocessor(preprocessor))
        stack.enter_context(hooks.modules(policy, layers))
        stack.enter_context(hooks.model(policy))
        if postprocessor is not None:
            stack.enter_context(hooks.postprocessor(postprocessor))
        yield


@contextmanager
def hooked_module(tap: Tap, module: nn.Module, layers: str = "all") -> Iterator[None]:
    """A bare PyTorch module: `layer/…` of what its modules return. The caller says when an observation begins."""
    hooks = _Hooks(tap, own=False, history=1, raw=dict)
    with hooks.modules(module, layers):
        yield


class _Hooks:
    def __init__(self, tap: Tap, own: bool, history: int, raw: Callable[[], Mapping[str, np.ndarray]]) -> None:
        self._tap, self._own, self._history, self._raw = tap, own, history, raw
        self._calls: Counter[str] = Counter()
        self._actions: list[Tensor] = []
        self._before: list[tuple[str, Any]] = []  # what is not shown yet: it may be that no chunk is asked for

    def _prepared(self, name: str, value: Tensor) -> Tensor:
        """What comes before the model: shown when the model is asked, which it is not at every observation."""
        if not self._own:
            return self.show(name, value)
        self._before.append((name, value.clone()))
        return value

    def begin(self) -> None:
        """An observation is prepared."""
        if self._own:
            self._before = [(f"raw/{name}", array) for name, array in self._raw().items()]
        else:
            self._calls.clear()

    def show(self, name: str, value: Tensor, often: bool = True) -> Tensor:
        """The value, or what is to take its place. often: the second time in an observation it is `name#2`."""
        if self._before:
            self._tap.begin()
            self._calls.clear()
            for each in self._before:
                self._tap(*each)
            self._before = []
        self._calls[name] += 1
        count = self._calls[name]
        answer = self._tap(name if count == 1 or not often else f"{name}#{count}", value)
        return value if answer is None else answer

    def _newest(self, name: str, value: Tensor) -> Tensor:
        """As `show`, of the newest of a history's rows."""
        if self._history == 1 or len(value) != self._history:
            return self._prepared(name, value)
        seen = value[-1:]
        shown = self._prepared(name, seen)
        return value if shown is seen else torch.cat([value[:-1], shown])

    @contextmanager
    def preprocessor(self, pipeline: Any) -> Iterator[None]:
        from lerobot.lerobot_types import TransitionKey

        steps = [_step_name(step) for step in pipeline.steps]
        known: dict[str, Tensor] = {}

        def entries(transition: Any) -> Any:
            return transition.get(TransitionKey.OBSERVATION) or {}

        def before(index: int, transition: Any) -> None:
            if index == 0:
                self.begin()
                known.clear()
                show(transition, "preprocess/0.given")

        def after(index: int, transition: Any) -> None:
            show(transition, f"preprocess/{index + 1}.{steps[index]}")
            if index == len(steps) - 1:
                entry = entries(transition)
                for name, value in entry.items():
                    if isinstance(value, Tensor):
                        entry[name] = self._newest(f"input/{name}", value)

        def show(transition: Any, stage: str) -> None:
            entry = entries(transition)
            for name, value in entry.items():
                if isinstance(value, Tensor) and not (name in known and _same(known[name], value)):
                    known[name] = entry[name] = self._newest(f"{stage}/{name}", value)

        pipeline.register_before_step_hook(before)
        pipeline.register_after_step_hook(after)
        try:
            yield
        finally:
            pipeline.unregister_before_step_hook(before)
            pipeline.unregister_after_step_hook(after)

    @contextmanager
    def postprocessor(self, pipeline: Any) -> Iterator[None]:
        """A chunk at once, or its actions one by one: those that were asked for, in order, are the chunk's stage."""
        from lerobot.lerobot_types import TransitionKey

        last = len(pipeline.steps) - 1

        def after(index: int, transition: Any) -> None:
            action = transition.get(TransitionKey.ACTION)
            if index != last or not isinstance(action, Tensor):
                return
            if action.ndim > 2:
                transition[TransitionKey.ACTION] = self.show("chunk/actions", action, often=False)
                return
            self._actions.append(action)
            self._tap("chunk/actions", torch.stack(self._actions, dim=1))

        pipeline.register_after_step_hook(after)
        try:
            yield
        finally:
            pipeline.unregister_after_step_hook(after)

    @contextmanager
    def modules(self, module: nn.Module, layers: str) -> Iterator[None]:
        handles = []
        for path, each in module.named_modules():
            if path and _chosen(path, each, layers):
                handles.append(each.register_forward_hook(self._layer(f"layer/{path}")))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _layer(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            first, put = _first_tensor(output)
            if first is None:
                return None
            shown = self.show(name, first)
            return None if shown is first else put(shown)

        return hook

    @contextmanager
    def model(self, policy: Any) -> Iterator[None]:
        """A policy's own picture steps, its denoising, and the chunk that comes of it."""
        with ExitStack() as stack:
            for name in PICTURES:
                if hasattr(policy, name):
                    stack.enter_context(wrapped(policy, name, lambda call: self._pictures(call, policy)))
            model = getattr(policy, "model", None)
            if hasattr(model, "embed_prefix"):
                stack.enter_context(wrapped(model, "embed_prefix", self._prefix))
            if hasattr(model, "denoise_step"):
                stack.enter_context(wrapped(model, "denoise_step", self._velocity))
            diffusion: Any = getattr(policy, "diffusion", None)
            if hasattr(diffusion, "conditional_sample"):
                first = policy.config.n_obs_steps - 1
                stack.enter_context(wrapped(diffusion.unet, "forward", self._prediction))
                stack.enter_context(wrapped(diffusion, "conditional_sample", lambda call: self._chunk(call, first)))
            else:
                name = CHUNKERS.get(getattr(policy.config, "type", ""), "predict_action_chunk")
                stack.enter_context(wrapped(policy, name, lambda call: self._chunk(call, 0)))
            yield

    def _pictures(self, call: Callable[..., Any], policy: Any) -> Callable[..., Any]:
        def pictures(batch: Any) -> Any:
            images, masks = call(batch)
            cameras = [key for key in policy.config.image_features if key in batch]
            cameras += [key for key in policy.config.image_features if key not in batch]
            return [self.show(f"image/{c}", image) for c, image in zip(cameras, images, strict=False)], masks

        return pictures

    def _prefix(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def prefix(*args: Any, **kwargs: Any) -> Any:
            embedded, *masks = call(*args, **kwargs)
            return self.show("prefix", embedded), *masks

        return prefix

    def _velocity(self, call: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(call)

        def velocity(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            step, x = self._step(bound.arguments["x_t"])
            bound.arguments["x_t"] = x
            return self.show(f"denoise/{step}.v", call(*bound.args, **bound.kwargs))

        return velocity

    def _prediction(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def prediction(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            step, x = self._step(x)
            return self.show(f"denoise/{step}.v", call(x, *args, **kwargs))

        return prediction

    def _step(self, x: Tensor) -> tuple[int, Tensor]:
        """Which denoising step this is, and what it begins from; the first begins from the noise."""
        step = self._calls["denoise"]
        self._calls["denoise"] += 1
        return step, self.show("noise" if step == 0 else f"denoise/{step}.x", x)

    def _chunk(self, call: Callable[..., Any], first: int) -> Callable[..., Any]:
        def chunk(*args: Any, **kwargs: Any) -> Any:
            actions = call(*args, **kwargs)
            self._actions.clear()
            seen = actions[:, first:]
            shown = self.show("chunk/normalised", seen, often=False)
            return actions if shown is seen else torch.cat([actions[:, :first], shown], dim=1)

        return chunk


@contextmanager
def wrapped(owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """owner.name as `around` makes it, on this one object."""
    own = vars(owner).get(name)
    setattr(owner, name, around(getattr(owner, name)))
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)


def _chosen(path: str, module: nn.Module, layers: str) -> bool:
    if layers == "none":
        return False
    last = path.rpartition(".")[2]
    if layers == "blocks":
        return last.isdecimal() or path.count(".") <= 1
    if layers == "all":
        return not any(True for _ in module.children()) or last.isdecimal()
    return re.search(layers, path) is not None


def _first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """The tensor in what a module returns, and how another one is put in its place."""
    if isinstance(output, Tensor):
        return output, lambda new: new
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0], lambda new: (new, *output[1:])
    if isinstance(output, dict):
        for key, value in output.items():
            if isinstance(value, Tensor):
                return value, lambda new, key=key: type(output)(**{**output, key: new})
    return None, lambda new: output


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and bool(torch.equal(a, b)))


def _step_name(step: Any) -> str:
    return getattr(type(step), "_registry_name", None) or type(step).__name__
