"""A policy of your own, for every `tactus` command that runs in this file's folder:

tactus serve --policy.type=own_policy:HomingConfig --policy.speed=0.4
"""

from collections.abc import Sequence

import numpy as np

from tactus import Chunk, Feature, Policy, PolicyConfig, PolicySpec, Request, Session

POSITION = Feature((1,), "float32", unit="m", names=("x",))
TARGET = Feature((1,), "float32", unit="m", names=("x",), mode=("absolute",))
SPEC = PolicySpec("homing", {"observation.state": POSITION}, TARGET, horizon=16, fps=30)


class HomingConfig(PolicyConfig):
    """Drives the cart of own_robot.py to the middle of its rail."""

    speed: float = 0.4
    """how fast, in m/s: --policy.speed=0.2"""

    def make(self) -> Policy:
        return Homing(self.speed)


class Homing(Policy):
    """One observation in, sixteen actions out: half a second at 30 Hz, to live on until the next chunk is there."""

    max_batch = 8  # so many robots' observations in one call of `infer`

    def __init__(self, speed: float) -> None:
        self.steps = (speed / 30 * np.arange(1, 17, dtype=np.float32))[:, None]

    @property
    def spec(self) -> PolicySpec:
        return SPEC

    def reset(self, session: Session) -> None:
        """A robot begins an episode: here a policy forgets what it kept, and seeds its noise with session.seed."""

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        chunks = []
        for request in requests:
            x = request.observation.arrays["observation.state"]
            actions = x - np.clip(x, -self.steps, self.steps)
            chunks.append(Chunk(request.observation.tick, actions))  # actions[i] is for tick + i
        return chunks
