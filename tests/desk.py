"""The twin's world in virtual time, with a robot node's habits around it: for policies, without bus and sockets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Chunk, Observation
from tactus.hal.twin.table_world import TableWorld
from tactus.policies.policy import Policy, Request, Session

FPS = 30.0
TORQUE = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.24])


def to_rad(action: np.ndarray) -> np.ndarray:
    """Degrees and % as the arm's joints have them: zero in the middle of the travel."""
    return np.deg2rad([*action[:5], (action[5] - 50.0) * 1.1])


def to_units(angles_rad: np.ndarray) -> np.ndarray:
    degrees = np.rad2deg(angles_rad)
    return np.array([*degrees[:5], degrees[5] / 1.1 + 50.0], np.float32)


class Desk:
    """One world for many episodes; the arm stays where the last one left it.

    latency: ticks until a chunk arrives. every: ticks between requests, at least the latency.
    meddle: called with the world and the tick before each tick.
    """

    def __init__(self, policy: Policy, latency: int = 3, every: int = 15) -> None:
        self.world = TableWorld()
        self.policy = policy
        self.latency, self.every = latency, max(every, latency)
        self.actions: list[np.ndarray] = []
        self.meddle: Callable[[TableWorld, int], None] = lambda world, tick: None
        self._now_s = 0.0
        self.world.advance(0.0)

    @property
    def arm(self) -> np.ndarray:
        """Where the joints are, deg and %."""
        return to_units(self.world.arms["arm"].positions())

    def observe(self, tick: int) -> Observation:
        scene = self.world.state()
        poses = np.array([*scene["cube"], *scene["bin"]], np.float32)
        return Observation({STATE: self.arm, ENVIRONMENT_STATE: poses}, {}, tick, "")

    def episode(self, number: int, seed: int = 0, seconds: float = 30.0, after_s: float = 0.0) -> float | None:
        """Run one; the time it took to succeed, or None. `actions` holds what was sent, a row a tick."""
        assert self.world.handle({"do": "reset", "episode": number, "seed": seed})
        self.policy.reset(Session("desk", seed + number, ""))
        self.actions, queue, under_way, left = [], {}, None, None
        for tick in range(int(seconds * FPS)):
            self.meddle(self.world, tick)
            if under_way and tick >= under_way[0]:
                self._merge(queue, under_way[1], tick)
                under_way = None
            if tick % self.every == 0 and under_way is None:
                ahead = sum(at >= tick for at in queue)
                [chunk] = self.policy.infer([Request("desk", self.observe(tick), ahead)])
                under_way = (tick + (self.latency if tick else 0), chunk)
                if tick == 0:
                    self._merge(queue, chunk, tick)
                    under_way = None
            action = queue.get(tick, self.actions[-1] if self.actions else self.arm)
            self.actions.append(np.asarray(action))
            self.world.arms["arm"].drive(to_rad(action), TORQUE)
            self._now_s += 1 / FPS
            self.world.advance(self._now_s)
            if left is None and self.world.state()["done"]:
                left = tick
            if left is not None and tick >= left + after_s * FPS:
                break
        return left / FPS if left is not None and self.world.state()["success"] else None

    @staticmethod
    def _merge(queue: dict[int, np.ndarray], chunk: Chunk, tick: int) -> None:
        for i, action in enumerate(chunk.actions):
            if chunk.start + i >= tick:
                queue[chunk.start + i] = action
