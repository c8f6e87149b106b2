"""`tactus eval` with --workers, --engine or --sweep: robot nodes in processes of their own share the episodes."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tactus.hal.config import encode
from tactus.hal.interrupts import interrupted_by
from tactus.hal.spec import PolicySpec, RobotSpec
from tactus.runtime.commands.arguments import is_given
from tactus.runtime.commands.config import Eval
from tactus.runtime.commands.episodes import (
    FAILED,
    INTERRUPTED,
    USAGE,
    describe,
    fingerprint,
    progress_bar,
    show,
    with_interval,
)
from tactus.runtime.commands.keys import keys_of
from tactus.runtime.commands.report_writer import SWEEP_REPORT, load_writer
from tactus.runtime.evaluation.results import Results, ResultsError, versions, write_whole, writing
from tactus.runtime.lab.coordinator import Coordinator, FilmRequest, WorkersFailed
from tactus.runtime.lab.episode_runner import WorkerConfig
from tactus.runtime.lab.measures import measure
from tactus.runtime.lab.pool import Pool, ProcessPool
from tactus.runtime.lab.recommend import recommend
from tactus.runtime.lab.sweep_folder import SWEEP, SweepFolder, read_sweep
from tactus.runtime.lab.sweep_settings import POLICY_NAME, Cell
from tactus.runtime.lab.sweep_settings import cells as cells_of


def run_workers(config: Eval, arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 when every episode ran, whatever its success."""
    interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    folder = Path(
        config.output_dir or f"outputs/{'sweep' if config.sweep else 'eval'}_{time.strftime('%Y%m%d_%H%M%S')}"
    )
    try:
        _check(config, arguments, folder)
        pool = _pool(config, folder)
        with contextlib.closing(pool):
            return _run(config, arguments, folder, pool)
    except WorkersFailed as error:
        print(f"tactus eval: {error}\nfinished episodes are kept in {folder}, --resume goes on", file=sys.stderr)
        return error.status
    except (ValueError, ResultsError, ModuleNotFoundError) as error:
        print(f"tactus eval: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"tactus eval: interrupted; finished episodes are kept in {folder}, --resume goes on", file=sys.stderr)
        return INTERRUPTED


def _check(config: Eval, arguments: Sequence[str], folder: Path) -> None:
    """What can be known before anything is started."""
    if config.sweep.policy and is_given(arguments, "connect"):
        raise ValueError(
            "connect: sweep.policy has the addresses of this sweep's policy nodes; leave out one of the two "
            "(launch/sim.sh gives connect itself: here start each policy with `tactus serve`, then `tactus eval`)"
        )
    for key in ("video", "record_actions", "metrics_port", "view", "page", "foxglove"):
        if getattr(config, key) is not None and getattr(config, key) is not False:  # port 0 is a port too
            raise ValueError(f"{key}: is for one worker without a sweep")
    if config.log_format != "text":
        raise ValueError("log_format: json is for one worker without a sweep")
    if not config.resume:
        for name in (SWEEP, "episodes.jsonl"):
            if (folder / name).exists():
                raise ResultsError(f"{folder} already holds results; give another --output_dir, or --resume to go on")
    if config.sweep:
        load_writer(SWEEP_REPORT)  # a sweep ends with a report: better to know now whether it can be written


def _pool(config: Eval, folder: Path) -> Pool:
    player = WorkerConfig(
        robot=config.robot,
        loop=config.loop,
        seed=config.seed,
        episodes=config.episodes,
        disturbance=config.disturbance,
        curve=config.curve,
        insecure=config.insecure,
        wire=config.wire,
    )
    encoded = encode(player)
    nodes = config.sweep.nodes or {"": config.endpoints}
    if config.engine == "ray":
        from tactus.runtime.lab.ray_pool import RayPool

        return RayPool(encoded, nodes, config.ray_address)
    return ProcessPool(encoded, nodes, folder / "workers")


def _run(config: Eval, arguments: Sequence[str], folder: Path, pool: Pool) -> int:
    console = Console(highlight=False)
    started_s = time.monotonic()
    with progress_bar(console) as bar:

        def say(line: str) -> None:
            bar.console.print(line, markup=False)

        coordinator = Coordinator(pool, None if config.workers == "auto" else int(config.workers), say)
        hello = coordinator.start(config.episodes if not config.sweep else sys.maxsize)
        robot = RobotSpec.from_dict(hello["robot"])
        policies = {name: PolicySpec.from_dict(policy) for name, policy in hello["policies"].items()}
        for key, value in robot.details.items():
            say(f"{key}: {value}")
        _say_policies(config, policies, say)
        cells, results = _open(config, arguments, folder, robot, policies)
        done = sum(len(one.finished & {*range(config.episodes)}) for one in results)
        total = bar.add_task("episodes", total=len(cells) * config.episodes, completed=done)
        cell_width = max(len(cell.name) for cell in cells)

        def progress(cell: Cell, row: dict[str, Any]) -> None:
            one = results[cells.index(cell)]
            rate = with_interval(one.successes, len(one.finished))
            bar.update(total, advance=1, description=f"{cell.name} {rate}" if config.sweep else f"success {rate}")
            if not config.sweep:
                verdict = "success" if row["success"] else "failure"
                say(f"episode {row['episode']:3d}  {verdict}  {row['ticks']:4d} ticks  {row['task']}")
            elif len(one.finished) >= config.episodes:
                say(f"{cell.name:{cell_width}s}  {rate}")

        try:
            given_up = coordinator.play(results, cells, hello["groups"], progress)
            if config.sweep:
                _film(config, folder, coordinator, cells, results, say)
        finally:
            about = {"workers": coordinator.workers, "engine": config.engine}
            about["elapsed_s"] = round(time.monotonic() - started_s, 1)
            summaries = [
                one.summary({**describe(config, robot, policies[cell.policy]), **about, **cell.to_dict()})
                for cell, one in zip(cells, results, strict=True)
                if one.finished or not config.sweep
            ]
    if config.sweep:
        _show_sweep(console, summaries)
        _report(console, folder)
    else:
        show(console, summaries[0], folder)
    return FAILED if given_up else 0


def _say_policies(config: Eval, policies: Mapping[str, PolicySpec], say: Callable[[str], None]) -> None:
    """Who plays, where there are several; what of the config is not used; and who is the same as whom."""
    if not config.sweep.policy:
        return
    if config.connect != keys_of(Eval)["connect"].default:
        say(f"connect: {config.connect} of the config file is not used: sweep.policy has the policy nodes' addresses")
    for name, policy in policies.items():
        say(f"policy {name}: {policy.name}, chunks of {policy.horizon}, at {config.sweep.policy[name]}")
    for one, other in itertools.combinations(policies, 2):
        if policies[one] == policies[other]:
            say(f"note: {one} and {other} are one policy with the same settings: they will play the same episodes")
        elif policies[one].name == policies[other].name:
            differ = _differing(policies[one], policies[other])
            say(f"note: {one} and {other} are both {policies[one].name}; what differs: {differ}")


def _differing(one: PolicySpec, other: PolicySpec) -> str:
    """What tells two policies of one name from each other: settings, versions, anything else of their specs."""
    sides = []
    for policy in (one, other):
        facts = {**policy.to_dict(), **policy.details, "details": None}
        settings = json.loads(facts.pop("settings", "{}"))
        sides.append({**facts, **settings})
    keys = [key for key in {**sides[0], **sides[1]} if sides[0].get(key) != sides[1].get(key)]
    return ", ".join(f"{key} {sides[0].get(key)!s:.40} and {sides[1].get(key)!s:.40}" for key in keys)


def _open(
    config: Eval, arguments: Sequence[str], folder: Path, robot: RobotSpec, policies: Mapping[str, PolicySpec]
) -> tuple[list[Cell], list[Results]]:
    """The cells of this run, and where their results go."""
    first = next(iter(policies.values()))
    same, about = fingerprint(config, robot, first), describe(config, robot, first)
    cells = cells_of(config.sweep, Cell(**config.cell), policies)
    if not config.sweep:
        [cell] = cells[-1:]
        return [cell], [Results(folder, {**same, **cell.to_dict()}, config.resume)]
    if config.sweep.policy:
        same = {**same, "policies": {name: policy.to_dict() for name, policy in policies.items()}}
        about |= {"policies": {name: describe(config, robot, policy)["policy"] for name, policy in policies.items()}}
        del same["policy"], about["policy"], about["cameras"]
    about |= {"episodes": config.episodes, "versions": versions(), "command": " ".join(["tactus", "eval", *arguments])}
    experiment = SweepFolder(folder, same, cells, about, config.resume)
    return experiment.cells, experiment.results


def _film(
    config: Eval, folder: Path, coordinator: Coordinator, cells: list[Cell], results: list[Results], say: Any
) -> None:
    """Pictures of failed episodes: FOLDER/failures, a JPEG each and what they are."""
    failed = [
        FilmRequest(cell, row)
        for cell, one in zip(cells, results, strict=True)
        for row in sorted(one.rows, key=lambda row: row["episode"])
        if not row["success"]
    ]
    chosen = failed[:: max(1, len(failed) // max(1, config.failures))][: config.failures]
    pictures = folder / "failures"
    index: list[dict[str, Any]] = []

    def keep(film: FilmRequest, row: dict[str, Any], jpeg: bytes) -> None:
        repeated = row["actions_sha256"] == film.row["actions_sha256"]
        if not repeated:
            say(f"episode {row['episode']} of {film.cell.name} did not go the same way twice")
        if not jpeg:
            return
        name = f"{film.cell.name}_{row['episode']:05d}.jpg"
        with writing(pictures / name):
            pictures.mkdir(exist_ok=True)
            (pictures / name).write_bytes(jpeg)
        entry = {"file": name, "cell": film.cell.name, "episode": row["episode"], "task": row["task"]}
        index.append({**entry, "ticks": row["ticks"], "repeated": repeated})
        write_whole(pictures / "index.json", json.dumps(sorted(index, key=lambda one: one["file"]), indent=1))

    coordinator.film(chosen, keep)


def _show_sweep(console: Console, summaries: list[dict[str, Any]]) -> None:
    columns = {POLICY_NAME: "policy", "latency": "latency", "aggregate": "aggregate"}
    columns |= {"chunk_size_threshold": "threshold", "execution_horizon": "horizon"}
    columns = {key: title for key, title in columns.items() if any(one.get(key) is not None for one in summaries)}
    table = Table(box=None)
    for title in (*columns.values(), "success [95 %] of episodes", "starved"):
        table.add_column(title, overflow="fold")
    for summary in summaries:
        settings = ["" if summary[key] is None else str(summary[key]) for key in columns]
        starved = f"{summary['starved_ticks'] / max(1, summary['ticks']):.1%}"
        table.add_row(*settings, with_interval(summary["successes"], summary["episodes"]), starved)
    console.print(table)


def _report(console: Console, folder: Path) -> None:
    file = load_writer(SWEEP_REPORT)(folder)
    sweep = read_sweep(folder)
    advice = recommend(sweep, measure(sweep))
    if advice is not None:
        console.print(f"\n{advice.headline}\n  {advice.flags}", markup=False)
    console.print(f"report: {file}", markup=False)
