"""What `run`, `eval` and `record` share: build the robot, shake hands, run the episodes, show how they went."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tactus.hal.interrupts import interrupted_by
from tactus.hal.provenance import own_code
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import PolicySpec, RobotSpec
from tactus.hal.wrappers.checked import make
from tactus.policies.scripted.replay import write_actions
from tactus.runtime.commands.drivers import Drive, Driver
from tactus.runtime.commands.flight_recording import about, flight_of
from tactus.runtime.commands.key_groups import RobotCommand
from tactus.runtime.commands.monitoring import Monitoring
from tactus.runtime.commands.output import Output
from tactus.runtime.commands.terminal_keys import stop_keys
from tactus.runtime.evaluation.ab_comparison import Tally, told
from tactus.runtime.evaluation.evaluate import evaluate
from tactus.runtime.evaluation.results import Results, ResultsError, versions, writing
from tactus.runtime.evaluation.video import Video
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.recorder import FlightRecorder
from tactus.runtime.recording.dataset import DatasetError, DatasetRecorder
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.watcher import Watcher
from tactus.runtime.statistics import wilson
from tactus.runtime.wire.config import RAW
from tactus.runtime.wire.latency import append_trace
from tactus.runtime.wire.link import LinkError, Refused, untapped

ADDRESSES = ("port", "source", "folder", "calibration", "kept_tasks")
"""Keys of a robot's config that say where its devices are, or what it keeps in memory: no other experiment."""
FIGURES = ("episodes", "successes", "ticks", "starved_ticks", "skipped_ticks", "requests", "chunks", "policy_errors")
"""What a run's last line tells as JSON."""
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


class EmergencyStop:
    """Where a key or a signal goes: to the robot once there is one, then to the loop that plays it. Before that, it
    ends the command."""

    def __init__(self) -> None:
        self._to: Callable[[str], None] | None = None

    def then(self, to: Callable[[str], None]) -> None:
        """From now on to this one."""
        self._to = to

    def __call__(self, reason: str) -> None:
        if self._to is not None:
            self._to(reason)
        elif threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        else:  # the page's
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def run_episodes(
    command: str, config: RobotCommand, drive: Drive, record: Callable[[Robot], DatasetRecorder] | None = None
) -> int:
    """Returns the exit status; everything a user should see is printed here. record: makes what keeps a dataset."""
    console = Console(highlight=False)
    lines = Output(command, config.log_format, console)
    # A shell starts background jobs with SIGINT ignored; a stopped run must still close its robot.
    interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    driver: Driver | None = None
    robot: Robot | None = None
    stop = EmergencyStop()
    flight: FlightRecorder | None = None
    monitoring = Monitoring(config)
    signal.signal(signal.SIGUSR1, lambda signum, frame: stop("signal SIGUSR1"))
    try:
        monitoring.open()
        if monitoring.url:
            lines.tell_whole(f"metrics: {monitoring.url}", url=monitoring.url)
        if monitoring.has_page:
            lines.tell_whole(f"page: {monitoring.page_url}", url=monitoring.page_url)
            lines.told = monitoring.told
            monitoring.attend(stop)
        if monitoring.foxglove_url:
            lines.tell_whole(f"foxglove: {monitoring.foxglove_url}", url=monitoring.foxglove_url)
        robot = config.disturbance.applied_to(make(config.robot))
        for key, value in robot.spec.details.items():
            lines.tell(f"{key}: {value}")
        flight = flight_of(command, config)
        driver = drive(robot, flight.tap if flight else untapped, lines.tell_whole)
        robot = driver.robot
        real_time = isinstance(driver.clock, RealClock)
        if flight:
            flight.start(about(command, config, robot.spec, driver), waits=not real_time)
            flight.say = lines.say
        onlookers = monitoring.watch_robot(robot, driver.policy, real_time, lines.say)
        if monitoring.place:
            lines.tell_whole(f"view: {monitoring.place}", place=monitoring.place)
        onlookers += monitoring.watch_live(lambda: about(command, config, robot.spec, driver), lines.say)
        onlookers += [lines] if lines.as_json else []
        onlookers += [flight] if flight else []
        folder = Path(config.output_dir or f"outputs/{command}_{time.strftime('%Y%m%d_%H%M%S')}")
        results = Results(folder, {**fingerprint(config, robot.spec, driver.policy), **config.cell}, config.resume)
        video = Video(folder / "video.mp4", robot.spec, driver.policy.horizon) if config.video else None
        recorder = record(robot) if record else None
        if driver.comparison is not None:
            driver.comparison.tally = Tally(driver.comparison.tally.alpha, results.rows)
            lines.tell("two policies drive in turn, drawn blind; who was who is told when all episodes are over")
        stop.then(robot.stop)
        robot.connect()
        with flight or contextlib.nullcontext():
            status = _run(console, lines, config, robot, driver, results, video, recorder, stop, onlookers, monitoring)
    except Refused as error:
        status = _complain(lines, error, REFUSED)
    except (LinkError, DatasetError, RobotError, FlightError) as error:
        status = _complain(lines, error, FAILED)
    except (ValueError, ResultsError) as error:
        status = _complain(lines, error, USAGE)
    except KeyboardInterrupt:
        onward = "" if record else ", --resume goes on"
        when = " before the first episode" if driver is None else f"; finished episodes are kept{onward}"
        status = _complain(lines, f"interrupted{when}", INTERRUPTED)
    finally:
        try:
            closed = robot is None or _close(lines, robot)
        finally:
            if driver is not None:
                driver.close()
            monitoring.close()
            if flight is not None:
                flight.close()
    return status if closed else status or FAILED


def _complain(lines: Output, error: object, status: int) -> int:
    lines.complain(error)
    return status


def _close(lines: Output, robot: Robot) -> bool:
    """Close the robot and tell how that went; False if something could not be closed."""
    errors: list[Exception] = []
    try:
        robot.close()
    except KeyboardInterrupt:
        _complain(lines, "interrupted once more; the robot is closed", INTERRUPTED)
    except RobotError as error:
        errors = [error]
    except ExceptionGroup as group:
        errors = [*group.exceptions]
    for line in [*robot.events(), *errors]:
        _complain(lines, line, FAILED)
    return not errors


def fingerprint(config: RobotCommand, robot: RobotSpec, policy: PolicySpec) -> dict[str, Any]:
    """What makes two runs the same experiment, but for the settings of a cell; --resume compares it."""
    return {
        "robot": _without_addresses({**config.robot_settings, "details": dict(robot.details)}),
        "policy": policy.to_dict(),
        "seed": config.seed,
        "starvation": config.loop.starvation,
        "request_timeout_s": config.loop.request_timeout_s,
        "action_noise": config.disturbance.action_noise,
        "action_noise_ticks": config.disturbance.action_noise_ticks,
        "versions": versions(),
        **({"code": own} if (own := own_code(config.robot)) else {}),
        **({"alpha": config.alpha} if config.policies else {}),  # which is chosen before anything is known
        **_seen_less(config),
    }


def _without_addresses(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {k: v for k, v in value.items() if str(k).rpartition(".")[2] not in ADDRESSES}
    return {k: _without_addresses(v) for k, v in kept.items()}


def _run(
    console: Console,
    lines: Output,
    config: RobotCommand,
    robot: Robot,
    driver: Driver,
    results: Results,
    video: Video | None,
    recorder: DatasetRecorder | None,
    stop: EmergencyStop,
    onlookers: Sequence[Watcher],
    monitoring: Monitoring,
) -> int:
    started_s = time.monotonic()
    policy = driver.policy
    with progress_bar(console, shown=not lines.as_json) as bar:
        total = bar.add_task("episodes", total=config.episodes, completed=len(results.finished))
        node = driver.node(lines.say)
        stop.then(node.stop)
        monitoring.attend(stop, driver.key, driver.keys)
        monitoring.judged(results.successes, len(results.finished), config.episodes)

        def progress(row: dict[str, Any], stats: EpisodeStats) -> None:
            if config.record_actions:
                file = results.folder / "actions" / f"episode_{row['episode']:05d}.npz"
                with writing(file):
                    write_actions(file, stats.actions, robot.spec.action)
            if isinstance(driver.clock, RealClock) and stats.latency_ms:
                words = f"ms from observation to chunk; {robot.spec.name}, {policy.name}, episode {row['episode']}"
                with writing(results.folder / "latency.trace"):
                    append_trace(results.folder / "latency.trace", stats.latency_ms, words)
            verdict = "success" if row["success"] else "failure" if stats.outcome else "ended"
            figures = {key: row[key] for key in ("episode", "success", "ticks", "starved_ticks", "task")}
            lines.tell(f"episode {row['episode']:3d}  {verdict}  {row['ticks']:4d} ticks  {row['task']}", **figures)
            monitoring.judged(results.successes, len(results.finished), config.episodes)
            bar.update(
                total, advance=1, description=f"success {with_interval(results.successes, len(results.finished))}"
            )

        try:
            listens = robot.wall_time or driver.by_hand
            with stop_keys(stop, driver.key) if listens else contextlib.nullcontext() as listening:
                if listening or monitoring.has_page:
                    hint = driver.attended()
                    lines.tell(hint if listening else "keys: on the page")
                evaluate(
                    robot,
                    node,
                    results,
                    config.episodes,
                    config.seed,
                    video,
                    recorder,
                    progress,
                    onlookers,
                    driver.comparison,
                )
        finally:
            about = describe(config, robot.spec, policy)
            if driver.comparison is not None:
                about["comparison"] = driver.comparison.tally.summary(driver.comparison.names)
            elapsed_s = round(time.monotonic() - started_s, 1)
            summary = results.summary(
                {"elapsed_s": elapsed_s, "video_frames": video.frames if video else 0, **about, **config.cell}
            )
    if lines.as_json:
        compared = {key: summary[key] for key in ("comparison",) if key in summary}
        lines.tell(f"results: {results.folder}", **{key: summary[key] for key in FIGURES}, **compared)
    else:
        show(console, summary, results.folder)
    return 0


def describe(config: RobotCommand, robot: RobotSpec, policy: PolicySpec) -> dict[str, Any]:
    """What stands in a summary beside the figures."""
    return {
        "cameras": [name for name, feature in policy.inputs.items() if feature.is_image],
        "assets": robot.details.get("assets"),
        "robot": {"name": robot.name, "fps": robot.fps, **config.robot_settings},
        "policy": {"name": policy.name, "horizon": policy.horizon, "inputs": list(policy.inputs)},
        "seed": config.seed,
        **_seen_less(config),
    }


def _seen_less(config: RobotCommand) -> dict[str, Any]:
    """What the policy saw less than the robot, if it did."""
    found = {} if config.wire.images == RAW else {"images": config.wire.images}
    return {**found, "occlude": config.disturbance.occlude} if config.disturbance.occlude else found


def progress_bar(console: Console, shown: bool = True) -> Progress:
    """Of episodes; nothing is drawn where there is no terminal."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal))


def with_interval(successes: int, episodes: int) -> str:
    """A success rate is never shown without its interval and the number of episodes."""
    if not episodes:
        return "– (no episodes)"
    low, high = wilson(successes, episodes)
    return f"{successes / episodes:.0%} [{low:.0%}, {high:.0%}] of {episodes}"


def show(console: Console, summary: dict[str, Any], folder: Path) -> None:
    """A run's summary, as a table and two lines."""
    table = Table("task", "success [95 %] of episodes", box=None)
    for group, task in summary["per_task"].items():
        table.add_row(f"{group}  {task['task']}", with_interval(task["successes"], task["episodes"]))
    table.add_row("all", with_interval(summary["successes"], summary["episodes"]), style="bold")
    console.print(table)
    for line in told(summary["comparison"]) if "comparison" in summary else []:
        console.print(line, markup=False)
    ticks = max(1, summary["ticks"])
    latency, trip = summary["latency_ticks"], summary["round_trip_ms"]
    console.print(
        f"{summary['ticks']} ticks, {summary['starved_ticks']} starved ({summary['starved_ticks'] / ticks:.2%}); "
        f"{summary['requests']} requests, {summary['renders']} renders, "
        f"{summary['stale_actions_dropped']} stale actions dropped; "
        f"latency p50/p95 {latency['p50']}/{latency['p95']} ticks; round trip {trip['p50']}/{trip['p95']} ms; "
        f"{summary['elapsed_s']} s",
        markup=False,
    )
    if "interventions" in summary:
        between = summary["policy_minutes_per_intervention"]
        apart = "" if between is None else f", one in {between:g} min of the policy's driving"
        console.print(
            f"{summary['interventions']} interventions, {summary['interventions_per_episode']:g} an episode{apart}; "
            f"a person drove {summary['person_ticks'] / ticks:.0%} of the ticks"
        )
    if summary["rate_hz"] is not None:
        console.print(
            f"control at {summary['rate_hz']:.2f} Hz, {summary['skipped_ticks']} ticks skipped by "
            f"{summary['overruns']} overruns"
        )
    console.print(f"results: {folder}", markup=False)
