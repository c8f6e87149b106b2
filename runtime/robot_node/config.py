"""What describes the control loop: when it asks for chunks, how it joins them, and what it does without one."""

from __future__ import annotations

from typing import Literal

from tactus.hal.config import Config, Count, Seconds, SecondsOrZero, Share

Aggregation = Literal["latest_only", "weighted_average", "average", "conservative", "temporal_ensemble", "rtc"]


class LoopConfig(Config):
    """Control loop."""

    aggregate: Aggregation = "latest_only"
    """how overlapping chunks become one action"""
    chunk_size_threshold: Share = 0.5
    """ask for a new chunk when the queue holds at most this share of one (0: only when it is empty)"""
    starvation: Literal["pause", "skip"] = "pause"
    """what a tick without an action does to the plan: pause, it waits with the robot; skip, it runs on by the clock"""
    execution_horizon: Count | None = None
    """actions of a chunk to execute before the next one is asked for, at most; not given: what the policy says"""
    request_timeout_s: Seconds = 1.0
    """an unanswered request is sent again after this"""
    start_timeout_s: Seconds = 120.0
    """how long to wait for the policy node, and for an episode's first chunk"""
    policy_timeout_s: Seconds | None = None
    """how long to wait for a policy node that is still loading; start_timeout_s if not given; launch scripts: 1 h"""
    lost_after_s: Seconds = 10.0
    """give up when the policy node has been silent for this long"""
    error_retry_s: SecondsOrZero = 0.2
    """pause before the policy is asked again after an error of its own"""
    max_ticks: Count | None = None
    """end of an episode on a robot that cannot tell; not given: no limit"""

    @property
    def first_wait_s(self) -> float:
        """For the policy node to answer for the first time."""
        return self.start_timeout_s if self.policy_timeout_s is None else self.policy_timeout_s
