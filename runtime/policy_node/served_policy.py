"""A policy as its node serves it: with its spec, what chunks call it, and what calls it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tactus.hal.spec import PolicySpec
from tactus.policies.policy import Policy
from tactus.runtime.policy_node.inference import Inference


@dataclass(frozen=True, eq=False)
class ServedPolicy:
    """max_batch: as Policy's. Equal to itself alone."""

    spec: PolicySpec
    inference: Inference
    max_batch: int

    @classmethod
    def of(cls, policy: Policy, details: Mapping[str, str], allow: Collection[str]) -> ServedPolicy:
        """details: what belongs beside a result, added to the policy's spec. allow: of wire.handshake.ALLOWANCES."""
        spec = replace(policy.spec, details={**policy.spec.details, **details})
        return cls(spec, Inference(policy, frozenset(allow)), policy.max_batch)
