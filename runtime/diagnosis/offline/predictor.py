"""Asks a policy for its chunk at frames of a dataset: in batches, each frame an episode with noise of its own.

What a frame is answered depends on the frame and the seed alone, not on which others were asked, or with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import batched
from typing import NamedTuple

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy, Request, Session
from tactus.runtime.recording.demonstrations import Demonstrations, Frame

ALONE = 32
"""Frames that are asked once more, one by one, to measure what batches save."""


class Call(NamedTuple):
    """One call of Policy.infer: how many frames it had, and how long it took."""

    frames: int
    ms: float


class Predictions(NamedTuple):
    """frames: [N] that were asked. chunks: [N, H, A]. calls: in order. reading_s: until observations were there."""

    frames: list[Frame]
    chunks: np.ndarray
    calls: list[Call]
    reading_s: float

    @property
    def predicting_s(self) -> float:
        """Within the policy."""
        return sum(call.ms for call in self.calls) / 1000

    @property
    def throughput_hz(self) -> float:
        """Frames a second within the policy."""
        return sum(call.frames for call in self.calls) / max(self.predicting_s, 1e-9)


class Predictor:
    """seed: of the run; a frame's is that plus its number in the dataset."""

    def __init__(self, policy: Policy, demonstrations: Demonstrations, seed: int) -> None:
        self._policy = policy
        self._demonstrations = demonstrations
        self._seed = seed
        spec = policy.spec
        self._shape = (spec.horizon, *spec.action.shape)
        self._fence = f"policy {spec.name}"

    def predict(
        self, frames: Sequence[Frame], batch: int | None = None, done: Callable[[int], object] = lambda frames: None
    ) -> Predictions:
        """batch: frames in one call at most; None for as many as the policy takes. done: told how many more are.

        Raises SpecError: a frame cannot be read, the policy raises, or answers something else than its chunks.
        """
        chunks, calls, reading_s = [], [], 0.0
        for some in batched(frames, batch or self._policy.max_batch):
            begun = time.perf_counter()
            requests = [
                Request(f"frame {self._demonstrations.row(frame)}", self._demonstrations.observation(frame))
                for frame in some
            ]
            reading_s += time.perf_counter() - begun
            found, ms = self._ask(requests, some)
            chunks += found
            calls.append(Call(len(some), ms))
            done(len(some))
        width = int(np.prod(self._shape[1:]))
        whole = np.stack(chunks) if chunks else np.zeros((0, *self._shape))
        return Predictions([*frames], whole.reshape(-1, self._shape[0], width), calls, reading_s)

    def _ask(self, requests: Sequence[Request], frames: Sequence[Frame]) -> tuple[list[np.ndarray], float]:
        with Fence(self._fence, f"predicting {requests[0].session}", SpecError):
            for request, frame in zip(requests, frames, strict=True):
                seed = self._seed + self._demonstrations.row(frame)
                self._policy.reset(Session(request.session, seed, request.observation.task))
            begun = time.perf_counter()
            answers = self._policy.infer(requests)
            ms = 1000 * (time.perf_counter() - begun)
            for request in requests:
                self._policy.end(request.session)
        if len(answers) != len(requests):
            raise SpecError(f"{self._fence} gave {len(answers)} chunks for {len(requests)} frames")
        for answer, request in zip(answers, requests, strict=True):
            if answer.actions.shape != self._shape:
                found = list(answer.actions.shape)
                raise SpecError(f"{self._fence} gave a chunk of {found} at {request.session}, not {list(self._shape)}")
            if not np.isfinite(answer.actions).all():
                raise SpecError(f"{self._fence} gave a chunk that is not finite at {request.session}")
        return [answer.actions for answer in answers], ms


def spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    """So many of them at most, evenly spread, the first and the last among them."""
    places = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    return [frames[place] for place in places]
