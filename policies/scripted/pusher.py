"""A scripted policy for the planar push: around the block to the side away from the goal, and on to the goal."""

from __future__ import annotations

import numpy as np

from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Chunk, Feature, Observation, PolicySpec
from tactus.policies.policy import Request, Session
from tactus.policies.scripted.config import PusherConfig
from tactus.policies.scripted.policy import ScriptedPolicy

POSITION = Feature((2,), "float32", unit="m", names=("pusher.x", "pusher.y"))
PLACES = Feature(
    (6,),
    "float32",
    unit=("m", "m", "1", "1", "m", "m"),
    names=("block.x", "block.y", "block.sin", "block.cos", "goal.x", "goal.y"),
)
ACTION = Feature((2,), "float32", unit="1", names=("x", "y"), low=(-1.0,) * 2, high=(1.0,) * 2, mode=("delta",) * 2)
FPS = 20.0
STEP_M = 0.015
"""How far the pusher moves in a tick at an action of 1."""
HALF_M, RADIUS_M = 0.04, 0.02
"""Half a side of the block; the pusher's radius."""
AROUND_M = 0.095
"""From the block's centre: the circle on which the pusher goes around it."""
STRAIGHT = 0.25
"""In radians: a pusher this close to straight behind the block, seen from the goal, pushes; others go there first."""

MISTAKES = ("missed", "past", "stalled")
MISSED_M, PAST_M, STALLED = 0.07, 0.08, 0.1
"""How far beside the block, or beside the goal, an episode aims that misses or pushes past; how much is left of the
actions of one that stalls behind the block."""


class PusherPolicy(ScriptedPolicy[int]):
    """Plans each chunk from one observation alone, by where a push takes the block; of a session it keeps the seed."""

    remembers = False
    max_batch = 8

    def __init__(self, config: PusherConfig) -> None:
        inputs = {STATE: POSITION, ENVIRONMENT_STATE: PLACES}
        super().__init__(PolicySpec("pusher", inputs, ACTION, config.horizon, fps=FPS), int)
        self._noise, self._mistakes = config.noise, config.mistakes

    def reset(self, session: Session) -> None:
        self._memories[session.id] = session.seed % 2**63

    def noise(self, session: str) -> bytes:
        return self._memories[session].to_bytes(8)

    def set_noise(self, session: str, state: bytes) -> None:
        self._memories[session] = int.from_bytes(state)

    def _chunk(self, request: Request, memory: int) -> Chunk:
        tick = request.observation.tick
        actions = plan(request.observation, self._spec.horizon, *self._mind(memory))
        if self._noise:
            actions += self._noise * np.random.default_rng([memory, tick]).normal(size=actions.shape)
        return Chunk(tick, np.clip(actions, -1, 1).astype(np.float32))

    def _mind(self, seed: int) -> tuple[str, float]:
        """What an episode does wrong, "" if nothing, and to which side, -1 or 1."""
        rng = np.random.default_rng(seed)
        wrong, side = rng.random() < self._mistakes, rng.choice((-1.0, 1.0))
        return (MISTAKES[rng.integers(len(MISTAKES))] if wrong else ""), float(side)


def plan(observation: Observation, horizon: int, mistake: str = "", side: float = 1.0) -> np.ndarray:
    """float64[horizon, 2]: each action from where the ones before it should have brought pusher and block."""
    pusher = np.array(observation.arrays[STATE], np.float64)
    x, y, sine, cosine, *to = np.asarray(observation.arrays[ENVIRONMENT_STATE], np.float64).tolist()
    block, yaw, goal = np.array([x, y]), float(np.arctan2(sine, cosine)), np.array(to)
    aside = side * across(unit(goal - block))
    if mistake == "missed":
        block = block + MISSED_M * aside
    elif mistake == "past":
        goal = goal + PAST_M * aside
    actions = np.empty((horizon, 2))
    for action in actions:
        action[:] = step(pusher, block, yaw, goal)
        if mistake == "stalled" and np.hypot(*(pusher - block)) < AROUND_M + 0.01:
            action[:] *= STALLED
        pusher = pusher + STEP_M * action
        away = block - pusher
        gap = contact(away, yaw) - float(np.hypot(*away))
        if gap > 0:
            block = block + gap * unit(away)
    return actions


def step(pusher: np.ndarray, block: np.ndarray, yaw: float, goal: np.ndarray) -> np.ndarray:
    """One action, each axis in -1 … 1."""
    ahead, from_block = unit(goal - block), pusher - block
    far = float(np.hypot(*from_block))
    off = float(np.arctan2(across(ahead) @ -from_block, ahead @ -from_block))
    if abs(off) < STRAIGHT and far < AROUND_M + 0.01:
        # Behind it: through the centre, a little to the side that turns the push towards the goal.
        aside = across(ahead)
        left = float(np.hypot(*(goal - block)))
        return bounded((left + far - contact(-from_block, yaw)) * ahead - 1.5 * float(aside @ from_block) * aside)
    way = block - AROUND_M * ahead - pusher
    nearest = pusher + way * np.clip(-(from_block @ way) / max(float(way @ way), 1e-9), 0, 1)
    if np.hypot(*(nearest - block)) > AROUND_M - 0.015:
        return bounded(way)
    # Around it on the shorter side, staying out as far as the circle.
    radial = unit(from_block)
    return bounded(-(np.sign(off) or 1.0) * STEP_M * across(radial) + (AROUND_M - far) * radial)


def across(direction: np.ndarray) -> np.ndarray:
    """The direction a quarter turn to the left."""
    return np.array([-direction[1], direction[0]])


def contact(away: np.ndarray, yaw: float) -> float:
    """Distance of the centres, in m, at which the pusher touches the block, which lies in the direction `away`."""
    angle = np.arctan2(*away[::-1]) - yaw
    return HALF_M / max(abs(np.cos(angle)), abs(np.sin(angle))) + RADIUS_M


def bounded(move: np.ndarray) -> np.ndarray:
    """An action that goes along `move`, in m, no faster than 1."""
    action = move / STEP_M
    return action / max(1.0, float(np.abs(action).max()))


def unit(vector: np.ndarray) -> np.ndarray:
    """The same direction, 1 long; of no length, itself."""
    return vector / max(float(np.hypot(*vector)), 1e-9)
