"""`tactus offline`: a policy's chunks on a LeRobotDataset, beside what was done there, as figures and a page."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tactus.runtime.commands.config import Offline
from tactus.runtime.commands.report_writer import OFFLINE_REPORT, load_writer
from tactus.runtime.evaluation.results import ResultsError, make_folder
from tactus.runtime.policy_node.inference import make
from tactus.runtime.recording.demonstrations import Demonstrations

if TYPE_CHECKING:
    from tactus.runtime.diagnosis.offline.evaluation import Comparison, Evaluation

USAGE, MISSING = 2, 1
SHOWN = 16
"""Dimensions whose ranges are printed; the report has all."""


def main(config: Offline, arguments: list[str]) -> int:
    """Exit status 0 if the comparison could be made, whatever came out."""
    try:
        write_report = load_writer(OFFLINE_REPORT)
        folder = Path(config.output_dir or f"outputs/offline_{time.strftime('%Y%m%d_%H%M%S')}")
        if (folder / "summary.json").exists():
            raise ResultsError(f"output_dir: {folder} already holds results; give another folder")
        if config.dataset_root is None:
            raise ResultsError("dataset_root: not given; the folder of a LeRobotDataset")
        found = _evaluate(config, Path(config.dataset_root))
        make_folder(folder)
        file = write_report(folder, found)
    except (ResultsError, ValueError) as error:
        print(f"tactus offline: {error}", file=sys.stderr)
        return USAGE
    except ModuleNotFoundError as error:
        print(f"tactus offline: {error}", file=sys.stderr)
        return MISSING
    _tell_errors(found)
    print(f"report: {file}\n")
    print("\n".join(found.lines))
    return 0


def _evaluate(config: Offline, root: Path) -> Evaluation:
    from tactus.runtime.diagnosis.offline.evaluation import Comparison

    if not root.is_dir():
        raise ResultsError(
            f"dataset_root: no folder {root}; accepted: the folder of a LeRobotDataset, with meta/ in it"
        )
    policy = make(config.policy)
    demonstrations = Demonstrations(root, policy.spec, config.episodes, config.allow)
    comparison = Comparison(policy, demonstrations, config.stride, config.seed)
    _tell_what(comparison, demonstrations)
    comparison.look()
    _tell_ranges(comparison, demonstrations)
    notes = comparison.check() if config.range_check else []
    for note in notes:
        print(f"note: {note}")
    with _progress(len(comparison.frames)) as done:
        return comparison.evaluate(done, notes)


def _tell_what(comparison: Comparison, demonstrations: Demonstrations) -> None:
    from tactus.runtime.diagnosis.offline.evaluation import frame_count

    spec = comparison.spec
    robot = f" of {demonstrations.robot}" if demonstrations.robot else ""
    print(f"policy:  {spec.name}, chunks of {spec.horizon}, reads {', '.join(spec.inputs) or 'nothing'}")
    print(f"dataset: {demonstrations.root}{robot}, {demonstrations.fps:g} Hz")
    print(f"compare: {frame_count(demonstrations, comparison.frames)} (every {comparison.stride})", flush=True)


def _tell_ranges(comparison: Comparison, demonstrations: Demonstrations) -> None:
    looks = comparison.looks
    width = max(len("action"), *(len(one.name) for one in looks[:SHOWN]))
    print(f"{'action':{width}}  {'true':>23}  {'predicted, at first look':>25}")
    for one, unit in zip(looks[:SHOWN], demonstrations.units, strict=False):
        true, found = f"{one.true_low:.4g} … {one.true_high:.4g}", f"{one.low:.4g} … {one.high:.4g}"
        print(f"{one.name:{width}}  {true:>23}  {found:>25}  {unit}".rstrip())
    if len(looks) > SHOWN:
        print(f"… and {len(looks) - SHOWN} more")
    sys.stdout.flush()


@contextmanager
def _progress(frames: int) -> Iterator[Callable[[int], object]]:
    """A bar on stderr; what is yielded is told how many more frames are done."""
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=frames)
        yield lambda more: bar.advance(task, more)


def _tell_errors(found: Evaluation) -> None:
    from tactus.runtime.diagnosis.offline.evaluation import latency

    width = max(map(len, found.errors))
    print(f"\n{'':{width}}  {'RMS error, σ':>12}  {'MAE/range':>9}  {'MAE':>10}  {'MSE':>10}")
    for name, errors in found.errors.items():
        share = f"{100 * errors.relative:.1f} %"
        print(f"{name:{width}}  {errors.normalised:12.3f}  {share:>9}  {errors.mae:10.4g}  {errors.mse:10.4g}")
    print("σ: a dimension's standard deviation in the true actions\n")
    for asked in (found.predictions, found.alone):
        if asked is not None:
            one = latency(asked.calls)
            s = "s" if one["frames"] > 1 else ""
            print(
                f"latency of {one['frames']} frame{s} a call, ms: min {one['min_ms']:.3g}, "
                f"mean {one['mean_ms']:.3g}, median {one['median_ms']:.3g}, p95 {one['p95_ms']:.3g}, "
                f"max {one['max_ms']:.3g}; {one['frames_per_s']:.1f} frames a second"
            )
