"""The Prometheus metrics of a policy node: its counters, read at each scrape."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tactus.hal.spec import PolicySpec
from tactus.runtime.metrics.histogram import Histogram
from tactus.runtime.policy_node.node import PolicyNode


def _shadow(report: Mapping[str, Any]) -> Iterator[Metric]:
    """What a shadow policy has reported, at most a second old."""
    for name, text in (("compared", "that a shadow was compared in"), ("skipped", "that no shadow was compared in")):
        yield CounterMetricFamily(f"tactus_policy_shadow_{name}", f"Answers {text}.", report[name])
    yield CounterMetricFamily("tactus_policy_shadow_errors", "Answers that the shadow had none to.", report["errors"])
    for name, key, text in (
        ("difference", None, "in the action's units"),
        ("share", "share", "as a share of the scale"),
    ):
        labels = ["dimension", "statistic"]
        family = GaugeMetricFamily(f"tactus_policy_shadow_{name}", f"|shadow - first|, {text}.", labels=labels)
        for each in report["dimensions"]:
            for statistic in ("mean", "p95", "max"):
                if (values := each if key is None else each[key]) is not None:
                    family.add_metric([each["name"], statistic], values[statistic])
        yield family
    latency = GaugeMetricFamily(
        "tactus_policy_shadow_latency_seconds", "Of the shadow's answers, while it ran.", labels=["quantile"]
    )
    for name, quantile in (("p50", "0.5"), ("p95", "0.95"), ("max", "1")):
        if (value := report.get("latency_ms", {}).get(name)) is not None:
            latency.add_metric([quantile], value / 1000)
    yield latency


class PolicyMetrics:
    """Every integer in `node.counters` is exported as tactus_policy_NAME_total, of `node.refusals` as
    tactus_policy_refused_NAME_total. latency: of answers, in s.
    """

    def __init__(self, node: PolicyNode, policy: PolicySpec, latency: Histogram) -> None:
        self._node = node
        self._policy = policy
        self._latency = latency

    def collect(self) -> Iterator[Metric]:
        counters = self._node.counters
        for field in dataclasses.fields(counters):
            value = getattr(counters, field.name)
            if isinstance(value, int):
                documentation = f"{field.name.replace('_', ' ').capitalize()} since the policy node started."
                yield CounterMetricFamily(f"tactus_policy_{field.name}", documentation, value)
        refusals = self._node.refusals
        unlisted = "Connections under a key that is not authorized."
        yield CounterMetricFamily("tactus_policy_refused_unlisted", unlisted, refusals.unlisted)
        failed = "Handshakes that failed: another key, none, a replay, or something that is not ZeroMQ."
        yield CounterMetricFamily("tactus_policy_refused_handshakes", failed, refusals.handshakes)
        yield GaugeMetricFamily("tactus_policy_sessions", "Robots that are served now.", self._node.sessions)
        yield self._latency.family(
            "tactus_policy_latency_seconds", "From an observation's arrival at the policy node to its answer."
        )
        if self._node.shadow is not None:
            yield from _shadow(self._node.shadow.report())
        about = GaugeMetricFamily("tactus_policy_info", "Always 1.", labels=["policy", "horizon"])
        about.add_metric([self._policy.name, str(self._policy.horizon)], 1)
        yield about
