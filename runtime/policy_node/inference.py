"""Calls the policy for its node: what goes in and comes out is checked, and what it raises becomes an error text."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.interrupts import not_swallowed
from tactus.hal.spec import Chunk, SpecError
from tactus.policies.policy import Policy, PolicyConfig, PolicyError, Prefix, Request, Session
from tactus.policies.rl.config import ExploreConfig
from tactus.runtime.wire.handshake import IMAGE_SIZE

log = logging.getLogger("tactus.inference")


def make(config: PolicyConfig) -> Policy:
    """The policy that a config describes, which knows its spec. Whatever making it raises is a SpecError."""
    with Fence(f"policy ({PolicyConfig.get_choice_name(type(config))})", "making it", SpecError), not_swallowed():
        policy = config.make()
        _ = policy.spec
    return policy


def explored(policy: Policy, config: ExploreConfig) -> Policy:
    """The policy, as it explores. Raises SpecError for one that cannot."""
    from tactus.policies.rl.explorer import exploring  # which needs torch

    return exploring(policy, config)


class Held(NamedTuple):
    """What a robot is commanded, by a person, until the answer is there. delay: in ticks."""

    command: Sequence[float]
    delay: int


class Ask(NamedTuple):
    """A request, and the episode to open before it if the policy has not been told of it yet. noise: where the
    session's noise is to go on from, opened now or before; empty: from where it stands. held: what to continue in
    place of the request's prefix, by a policy that can."""

    request: Request
    reset: Session | None = None
    noise: bytes = b""
    held: Held | None = None


class Answer(NamedTuple):
    """A chunk fit to be sent, or why there is none. opened: whether the ask's episode is open now."""

    chunk: Chunk | None = None
    error: str = ""
    opened: bool = True


class Inference:
    """Runs `policy` for the policy node; nothing that the policy does gets past it as an exception."""

    def __init__(self, policy: Policy, allow: Collection[str] = ()) -> None:
        self._policy = policy
        spec = policy.spec
        history = len(spec.observation_offsets)
        lead = (history,) if history > 1 else ()
        self._inputs = {name: ((*lead, *f.shape), np.dtype(f.dtype)) for name, f in spec.inputs.items()}
        self._any_dtype = {name for name, f in spec.inputs.items() if spec.casts and not f.is_image}
        self._any_size = {name for name, f in spec.inputs.items() if IMAGE_SIZE in allow and f.is_image}
        self._takes_prefix = spec.takes_prefix
        self._shape = (spec.horizon, *spec.action.shape)
        self._dtype = np.dtype(spec.action.dtype)
        self._told = ""

    def unusable(self, arrays: Mapping[str, np.ndarray]) -> str:
        """Why the policy cannot be given these arrays; empty if it can."""
        for name, (shape, dtype) in self._inputs.items():
            array = arrays.get(name)
            if array is None:
                return f"{name} is missing; found {', '.join(arrays) or 'nothing'}"
            found = array.shape
            if name in self._any_size and array.ndim == len(shape):
                found = (*found[:-3], *shape[-3:-1], found[-1])
            if found != shape or (array.dtype != dtype and name not in self._any_dtype):
                return f"{name}: found {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}"
        if len(arrays) > len(self._inputs):
            return f"the policy reads {', '.join(self._inputs)} and nothing else; found {', '.join(arrays)}"
        return ""

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer per ask, in order, from one batch; alone where the batch as a whole fails."""
        unopened = {}
        for ask in asks:
            if error := self._open(ask):
                unopened[ask.request.session] = Answer(error=error, opened=False)
        if not unopened:
            return self._batch(asks)
        ready = [ask for ask in asks if ask.request.session not in unopened]
        answers = dict(zip((ask.request.session for ask in ready), self._batch(ready), strict=True)) | unopened
        return [answers[ask.request.session] for ask in asks]

    def end(self, session: str) -> None:
        """As Policy.end."""
        try:
            self._policy.end(session)
        except Exception:
            log.exception("the policy could not forget session %s", session)

    def update(self, version: int, weights: Mapping[str, np.ndarray]) -> str:
        """As Policy.update; why it failed, empty if it did not."""
        try:
            self._policy.update(version, weights)
        except Exception as error:
            log.exception("the policy could not take new weights")
            return f"{type(error).__name__}: {error}"
        return ""

    def noise(self, session: str) -> bytes:
        """As Policy.noise; empty where the policy cannot say."""
        try:
            return self._policy.noise(session)
        except Exception:
            log.exception("the policy could not say where the noise of session %s stands", session)
            return b""

    def _open(self, ask: Ask) -> str:
        try:
            if ask.reset is not None:
                self._policy.reset(ask.reset)
            if ask.noise:
                self._policy.set_noise(ask.request.session, ask.noise)
        except Exception as error:
            log.exception("the policy could not open an episode")
            return f"{type(error).__name__}: {error}"
        return ""

    def _batch(self, asks: Sequence[Ask]) -> list[Answer]:
        if not asks:
            return []
        try:
            chunks = self._policy.infer([self._continuing(ask) for ask in asks])
            if len(chunks) != len(asks):
                raise SpecError(f"{len(chunks)} chunks for {len(asks)} requests")
            self._told = ""
            return [self._checked(chunk, ask.request) for chunk, ask in zip(chunks, asks, strict=True)]
        except Exception as error:
            if isinstance(error, PolicyError):
                self._tell(str(error))
            else:
                log.exception("the policy raised")
            if len(asks) == 1:
                return [Answer(error=f"{type(error).__name__}: {error}")]
            # one robot's request must not cost the others their answer
            return [self._batch([ask])[0] for ask in asks]

    def _continuing(self, ask: Ask) -> Request:
        """The request, with a prefix of what is held: once more than until the answer is there, so that the action
        which is executed first is drawn to it."""
        if ask.held is None or not self._takes_prefix:
            return ask.request
        if (len(ask.held.command),) != self._shape[1:]:
            raise PolicyError(f"found {len(ask.held.command)} numbers held; expected {self._shape[1:]}")
        delay = min(ask.held.delay, self._shape[0] - 1)
        try:
            raw = self._policy.as_raw(np.tile(np.array(ask.held.command, self._dtype), (delay + 1, 1)))
        except SpecError as error:
            self._tell(f"{error}; it begins anew after a person")
            return ask.request
        return replace(ask.request, prefix=Prefix(raw, delay))

    def _tell(self, refusal: str) -> None:
        """Once, however often a robot asks again meanwhile."""
        if refusal != self._told:
            log.warning("the policy cannot answer: %s", refusal)
        self._told = refusal

    def _checked(self, chunk: Chunk, request: Request) -> Answer:
        actions = chunk.actions
        if self._takes_prefix and (chunk.raw is None or len(chunk.raw) != self._shape[0]):
            return Answer(error="the chunk lacks its raw form, which the next one needs as its prefix")
        if actions.shape != self._shape or actions.dtype != self._dtype:
            expected = f"{self._dtype}{list(self._shape)}"
            return Answer(error=f"chunk is {actions.dtype}{list(actions.shape)}, expected {expected}")
        if not np.isfinite(actions).all():
            bad = np.argwhere(~np.isfinite(actions))[0]
            found = actions[tuple(bad)]
            return Answer(error=f"chunk has {found} at action {bad[0]}, dimension {bad[1:].tolist()}")
        if chunk.start != request.observation.tick:
            return Answer(error=f"chunk starts at tick {chunk.start}, expected {request.observation.tick}")
        return Answer(chunk)
