"""What can be said of practice: how a policy explores, and how it learns from that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tactus.hal.config import Config, Count, FilePath, NotNegative, Positive, Share

Method = Literal["filtered", "flow_noise", "flow_sde", "noise"]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

SIGMA: dict[Method, float] = {"filtered": 0.1, "flow_noise": 0.2, "flow_sde": 0.5, "noise": 1.0}
LEARNING_RATE: dict[Method, float] = {"filtered": 5e-4, "flow_noise": 1e-3, "flow_sde": 1e-3, "noise": 1e-3}


def _check_sigma(method: Method, sigma: float | None) -> None:
    """Raise ValueError for an exploration that would be none, or is another one's."""
    if method == "noise" and sigma is not None:
        raise ValueError("sigma: not used by method=noise, which learns the spread of its noise; leave it out")
    if sigma == 0 and method in ("flow_noise", "flow_sde"):
        raise ValueError(f"sigma: found 0; {method} has nothing to learn from without noise; must be positive")


class ExploreConfig(Config):
    """How a flow policy that is served explores where a learner asks it to; it also takes new weights then."""

    method: Method = "filtered"
    """filtered, flow_noise: noise after every step, none with a sigma of 0; flow_sde; noise: a learned initial noise"""
    sigma: NotNegative | None = None
    """how much: standard deviation, in the normalised actions' unit; not given: the method's own"""
    noise: FilePath | None = None
    """method=noise: folder with what has been learned of the initial noise; not given: nothing yet"""

    def __post_init__(self) -> None:
        _check_sigma(self.method, self.sigma)


class PracticeConfig(Config):
    """Practice."""

    method: Method = "filtered"
    """filtered: imitate the successes; flow_noise, flow_sde: clipped ratio; noise: learn the initial noise alone"""
    iterations: Annotated[int, Field(ge=0, le=10**6)] = 15
    """rounds of rollouts and learning; 0 evaluates alone"""
    train_states: Count = 25
    """initial states to practise on: episodes 0 … of the robot, and no others"""
    states: Count = 16
    """of them drawn in each iteration"""
    rollouts: Annotated[int, Field(ge=2, le=10**4)] = 4
    """of each of these, which differ in the policy's noise alone"""
    held_out: Count = 25
    """initial states to evaluate on: the episodes after the training ones"""
    eval_rollouts: Count = 1
    """of each of them, with noise of its own"""
    eval_every: Annotated[int, Field(ge=0, le=10**6)] = 5
    """iterations between two evaluations; 0: at the beginning and the end alone"""
    sigma: NotNegative | None = None
    """exploration, a std of normalised actions; not given: 0.1 (filtered), 0.2 (flow_noise), 0.5 (flow_sde)"""
    learning_rate: Positive | None = None
    """AdamW's, at most; not given: 5e-4 (filtered), 1e-3 (the others, which halve it until the KL limit holds)"""
    epochs: Count = 4
    """clipped ratio: passes over an iteration's decisions, at most: the KL stop may end them"""
    minibatch: Count = 256
    """decisions in an optimiser step"""
    clip: Positive = 1.0
    """clipped ratio: bound of the change of a decision's probability in a step, of its whole executed chunk"""
    kl_stop: Positive = 0.3
    """clipped ratio: nats per executed chunk that an iteration may go; a step beyond is taken back, the rate halved"""
    bc_weight: NotNegative = 0.0
    """flow_noise, flow_sde: weight of imitating the successes beside the ratio"""
    steps: Count = 300
    """filtered: optimiser steps in an iteration"""
    window: Count = 10
    """filtered: iterations whose successes are learned from"""
    average: Share = 0.98
    """filtered: share that the running average of the weights keeps at each step; it warms up"""
    overlap: bool = False
    """play the next iteration's rollouts while this one's are learned from: their weights are one version behind"""
    max_stale: Annotated[int, Field(ge=0, le=10**6)] = 0
    """versions that a rollout's weights may be behind; older ones are dropped, younger ones weighted by their ratio"""
    shuffle_rewards: bool = False
    """the control: successes are dealt out anew among an iteration's rollouts; must not improve anything"""
    seed: Seed = 0
    """of states, noises, order"""

    def __post_init__(self) -> None:
        _check_sigma(self.method, self.sigma)
        if self.bc_weight and self.method in ("filtered", "noise"):
            raise ValueError(
                f"bc_weight: is for flow_noise and flow_sde, not used by method={self.method}; leave it out"
            )
        if self.overlap and not self.max_stale:
            raise ValueError("overlap: needs a max_stale of at least 1, found 0")

    @property
    def imitates(self) -> bool:
        """Whether successes and demonstrations are imitated, alone or beside the ratio."""
        return self.method == "filtered" or self.bc_weight > 0

    @property
    def exploration(self) -> float:
        """sigma, given or the method's."""
        return SIGMA[self.method] if self.sigma is None else self.sigma

    @property
    def rate(self) -> float:
        """learning_rate, given or the method's."""
        return LEARNING_RATE[self.method] if self.learning_rate is None else self.learning_rate
