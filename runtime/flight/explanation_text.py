"""The text of an explanation, as `tactus why` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tactus.hal.spec import Feature
from tactus.runtime.flight.explanation import Explanation, Request, Share
from tactus.runtime.flight.queue_replay import dimension, unlike
from tactus.runtime.flight.reader import understanding
from tactus.runtime.robot_node.watcher import PERSON

MANY = 16
"""Numbers of a vector that are shown at most."""


def explanation_lines(found: Explanation) -> list[str]:
    """From the action back to what was seen. Raises FlightError if the record does not hold what it takes."""
    with understanding(found.flight):
        return [
        *_head(found), "", *_actions(found), "", *_blend(found), "", *_seen(found), *_late(found), *_said(found),
    ]  # fmt: skip


def _head(found: Explanation) -> Iterator[str]:
    record, about = found.record, found.flight.about
    name, driver = found.robot.name, about.get("policy", {}).get("name", "?")
    at = "" if record["at"] == record["tick"] else f" (tick {record['at']} of the plan)"
    yield f"{name} with {driver}: episode {found.episode['episode']}, tick {record['tick']}{at}"
    if found.episode["task"]:
        yield f"task: {found.episode['task']}"
    late = f"it began {record['lateness_s'] * 1000:.3f} ms late; " if not about.get("virtual") else ""
    left, age_s = record["remaining"], record["age_s"]
    yield f"{late}{left} more ticks were queued; the action's observation was {age_s:.3f} s old"


def _actions(found: Explanation) -> Iterator[str]:
    requested, sent = found.requested, found.sent
    width = max((len(dimension(found.action, i)) for i in range(len(requested))), default=4)
    yield f"action         {'':{width}}      requested           sent"
    for index in range(len(requested)):
        unit = _unit(found.action, index)
        value = "never sent" if sent is None else _number(sent[index])
        name = dimension(found.action, index)
        line = f"               {name:{width}} {_number(requested[index]):>14} {value:>14} {unit}"
        yield f"{line}  {_limit(found, index)}".rstrip()
    if sent is None:
        yield "it was not sent: the robot failed, or the run ended here"
    elif not unlike(requested, sent).any():
        yield "no limit changed it"


def _limit(found: Explanation, index: int) -> str:
    """What changed this dimension on its way to the motors."""
    sent = found.sent
    if sent is None or not unlike(found.requested, sent)[index]:
        return ""
    for bounds, word in ((found.action.low, "lower"), (found.action.high, "upper")):
        if bounds and np.isclose(float(sent[index]), bounds[index], rtol=1e-6, atol=1e-9):
            return f"changed: at its {word} bound, {bounds[index]:g}"
    return "changed: velocity or another limit of the robot"


def _blend(found: Explanation) -> Iterator[str]:
    loop = found.flight.about.get("loop")
    if loop is None:
        yield "nobody queues here: a hand, or a recording, decided on the action itself"
        return
    if found.record.get("driver") == PERSON:
        yield "a person drove: what the policy had planned was dropped"
        return
    if found.record["starved"]:
        yield "starved: no chunk covered this tick, so the robot held (absolute: last command; delta: 0; binary: kept)"
    elif found.blend is None:
        yield "the chunks behind it are not in the record"
    else:
        yield f"chunks that covered it, blended by {loop['aggregate']}"
    for share in found.shares:
        yield _share(found, share)
    if found.blend is not None:
        how = "equal to the recorded action, bit for bit"
        if not found.blend_is_equal:
            how = f"DIFFERENT from the recorded action: {_vector(found.blend)}"
        yield f"played again, {'holding' if found.record['starved'] else 'the blend'} is {how}"


def _share(found: Explanation, share: Share) -> str:
    merge, row = share.merge, found.record["at"] - share.start
    return (
        f"  request {merge['seq']}: starts at {share.start}, merged at tick {merge['tick']}, its action {row}; "
        f"weight {share.weight:.6g}; {_vector(share.prediction)}"
    )


def _seen(found: Explanation) -> Iterator[str]:
    if not found.requests:
        return
    yield "observations behind it, the newest first"
    for seq in sorted(found.requests, reverse=True):
        yield from _request(found, found.requests[seq])


def _request(found: Explanation, request: Request) -> Iterator[str]:
    ago_s = (found.log_ns - request.log_ns) / 1e9
    yield f"  request {request.seq}: of tick {request.tick}, sent {ago_s:.3f} s before this action{_journey(request)}"
    message = request.observation
    if message is None:
        yield "    its pictures and numbers are not in the record"
        return
    stamps: Sequence[Any] = message.meta.get("stamps_ns", ())
    for (name, array), stamp_ns in zip(message.arrays.items(), stamps, strict=False):
        age_s = (found.log_ns - found.flight.offset_ns - stamp_ns) / 1e9
        age = f", taken {age_s:.3f} s before this action" if stamp_ns else ""
        text = f"picture {array.shape[-2]}x{array.shape[-3]}" if array.ndim >= 3 else _vector(array.reshape(-1))
        yield f"    {name}{age}: {text}"


def _journey(request: Request) -> str:
    merged = request.merged
    if merged is None:
        return ""
    spent = ", ".join(f"{name} {ms:.2f}" for name, ms in merged["timings_ms"].items())
    return (
        f"; round trip {merged['round_trip_ms']:.2f} ms: up {merged['uplink_ms']:.2f}, down "
        f"{merged['downlink_ms']:.2f}{', ' + spent if spent else ''}"
    )


def _late(found: Explanation) -> Iterator[str]:
    for request in found.under_way:
        yield f"request {request.seq}, of tick {request.tick}, had no chunk in the queue yet: {_fate(found, request)}"
    if found.record["starved"] and not found.under_way:
        yield "and no request was without its chunk"


def _fate(found: Explanation, request: Request) -> str:
    if request.merged is not None:
        merged = request.merged
        stale = f", when {merged['stale']} of its {merged['length']} actions were too late" if merged["stale"] else ""
        return f"its chunk was merged at tick {merged['tick']}{stale}"
    if request.error:
        return f"the policy answered with an error: {request.error}"
    if request.answered_ns:
        ms = (request.answered_ns - request.log_ns) / 1e6
        return f"its chunk arrived after {ms:.1f} ms, and was never merged"
    return "no answer to it is in the record"


def _said(found: Explanation) -> Iterator[str]:
    for line in found.said:
        when = f"tick {line['tick']}" if line["tick"] >= 0 else f"by the {line.get('by', 'recorder')}"
        yield f"said, {when}: {line['line']}"


def _unit(action: Feature, index: int) -> str:
    unit = action.unit if isinstance(action.unit, str) else action.unit[index]
    mode = f" ({action.mode[index]})" if action.mode else ""
    return f"{'' if unit == '1' else unit}{mode}"


def _number(value: Any) -> str:
    return f"{float(value):.6g}"


def _vector(values: np.ndarray) -> str:
    text = " ".join(_number(value) for value in values[:MANY])
    return f"[{text}{' …' if len(values) > MANY else ''}]"
