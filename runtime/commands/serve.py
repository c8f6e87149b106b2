"""`tactus serve`: load a policy once and answer robots until told to stop."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tactus.hal.config import encode, received
from tactus.hal.provenance import own_code
from tactus.policies.policy import Policy, PolicyConfig
from tactus.runtime.bridges.bridge_process import Bridge, Order, reachable
from tactus.runtime.bridges.config import Listening, listening
from tactus.runtime.commands.config import Serve
from tactus.runtime.commands.monitoring import Monitoring
from tactus.runtime.logs import json_line, log_to
from tactus.runtime.policy_node.inference import explored, make
from tactus.runtime.policy_node.node import BindError, PolicyNode
from tactus.runtime.policy_node.shadow import Shadow
from tactus.runtime.policy_node.shadow_report import line, told
from tactus.runtime.policy_node.swap import Load, check_room
from tactus.runtime.wire.keys import server_keys
from tactus.runtime.wire.latency import append_trace

LOGGER = "tactus.policy_node"


def main(config: Serve, arguments: list[str]) -> int:
    """Exit status 0 when stopped by a signal, 2 if the policy or the address cannot be used."""
    log_to(sys.stderr, config.log_format, "policy node: %(message)s")
    monitoring = Monitoring(config)
    shadow: Shadow | None = None
    try:
        if config.shadow_report is not None and config.shadow is None:
            raise ValueError("shadow_report: is for a shadow; give --shadow.path too")
        monitoring.open()
        if config.shadow is not None:  # loads beside the first
            shadow = Shadow(config.shadow, config.log_format)
        logging.getLogger(LOGGER).info("loading %s", config.policy.get_choice_name(type(config.policy)))
        policy = make(config.policy)
        if config.explore is not None:
            policy = explored(policy, config.explore)
        beside = shadow.ready(policy.spec, config.allow) if shadow is not None else None
        node = PolicyNode(
            policy,
            config.connect,
            config.insecure,
            config.allow,
            config.batch_wait_ms,
            config.virtual_batch,
            _details(config),
            monitoring.timed(_trace(config)),
            server_keys(config.curve),
            config.limits,
            shadow,
            config.weights_from,
            config.swaps_from,
            _loader(config),
        )
        spec = policy.spec
        del policy  # the node's alone: it may be swapped for another
        monitoring.watch_policy(node, spec)
        bridges = _bridges(config, node)
    except (ValueError, OSError, BindError) as error:
        monitoring.close()
        if shadow is not None:
            shadow.close()
        if config.log_format == "json":
            print(json_line("error", LOGGER, str(error)), file=sys.stderr)
        else:
            print(f"tactus serve: {error}", file=sys.stderr)
        return 2

    def stop(signum: int, frame: FrameType | None) -> None:
        node.stop()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    inputs = ", ".join(spec.inputs) or "nothing"
    about = f"{spec.name} (horizon {spec.horizon}, reads {inputs}) at {node.endpoint}"
    _tell(config, about, policy=spec.name, endpoint=node.endpoint)
    if beside is not None:
        _tell(config, f"shadow {beside.name} (horizon {beside.horizon}): compared, never acted on", shadow=beside.name)
    for at, bridge in zip(config.also, bridges, strict=True):
        kind = listening(at).kind
        _tell(config, f"also answers robots of {kind} at {bridge.endpoint}", also=kind, endpoint=bridge.endpoint)
    if monitoring.url:
        _tell(config, f"metrics at {monitoring.url}", url=monitoring.url)
    with monitoring:
        node.run()
    for bridge in bridges:
        bridge.close()
    counters = node.counters
    _tell(config, f"stopped after {counters.chunks} chunks, {counters.errors} errors")
    return 0 if shadow is None else _tell_shadow(config, shadow)


def _loader(config: Serve) -> Load:
    """Makes the policy that a swap wants, of a type that this node knows: to import another would be to run it."""

    def load(keys: Mapping[str, Any]) -> tuple[Policy, Mapping[str, str]]:
        kind = str(keys.get("type", ""))
        if kind not in PolicyConfig.get_known_choices() and kind != config.policy.get_choice_name(type(config.policy)):
            raise ValueError(f"policy.type: found {kind!r:.80}; a swap takes those that ship, and the one that runs")
        wanted = received(PolicyConfig, keys)
        check_room(wanted)
        return make(wanted), _details(replace(config, policy=wanted))

    return load


def _bridges(config: Serve, node: PolicyNode) -> list[Bridge]:
    """All that are asked for, or none. Raises SpecError, ValueError."""
    if config.also_key_file is not None and not config.also:
        raise ValueError("also_key_file: is for robots of others; give --also too")
    bridges: list[Bridge] = []
    try:
        for also in config.also:
            bridges.append(Bridge(_order(config, listening(also), node)))
    except ValueError:
        for bridge in bridges:
            bridge.close()
        raise
    return bridges


def _order(config: Serve, at: Listening, node: PolicyNode) -> Order:
    """What a bridge is told."""
    return Order(
        kind=at.kind,
        host=at.host,
        port=at.port,
        node=reachable(node.endpoint),
        policy=node.spec.to_dict(),
        insecure=config.insecure,
        key=config.curve.key,
        features=config.also_features.get(at.kind, {}),
        actions=config.also_actions,
        robots_key_file=config.also_key_file,
        max_bytes=config.limits.max_bytes,
        robots=config.limits.sessions,
        log_format=config.log_format,
    )


def _tell_shadow(config: Serve, shadow: Shadow) -> int:
    """How far it would have gone elsewhere, told and written. Exit status 1 if it cannot be written."""
    report = shadow.close()
    _tell(config, f"shadow: {line(report)}", shadow=report)
    if config.log_format == "text":
        for dimension in report["dimensions"]:
            _tell(config, f"shadow:   {told(dimension)}")
    if config.shadow_report is not None:
        try:
            Path(config.shadow_report).write_text(json.dumps(report, indent=2) + "\n")
        except OSError as error:
            text = f"shadow_report: cannot write {config.shadow_report}: {error.strerror}"
            logging.getLogger(LOGGER).error(text)
            return 1
    return 0


def _tell(config: Serve, text: str, **fields: object) -> None:
    line = json_line("info", LOGGER, text, **fields) if config.log_format == "json" else f"policy node: {text}"
    print(line, flush=True)


def _trace(config: Serve) -> Callable[[float], None]:
    """Writes --latency_trace, a line at a time, so that a kill loses none."""
    if config.latency_trace is None:
        return lambda latency_ms: None
    file = Path(config.latency_trace)
    append_trace(file, [], "ms from an observation's arrival at the policy node to its answer; without the way there")
    given_up = False

    def trace(latency_ms: float) -> None:
        nonlocal given_up
        if given_up:
            return
        try:
            append_trace(file, [latency_ms])
        except OSError as error:
            given_up = True
            logging.getLogger(LOGGER).error("latency_trace: cannot write %s: %s; it ends here", file, error.strerror)

    return trace


def _details(config: Serve) -> dict[str, str]:
    """What else decides which actions the policy gives: its settings, and the versions it runs on."""
    settings = {key: value for key, value in encode(config.policy).items() if key != "path"}
    details = {"settings": json.dumps(settings, sort_keys=True), "virtual_batch": str(config.virtual_batch)}
    for package in ("torch", "lerobot", "transformers", "diffusers"):
        if package in sys.modules:
            details[package] = importlib.metadata.version(package)
    return details | own_code(config.policy)
