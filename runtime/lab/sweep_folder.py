"""A sweep's folder: one Results per cell, and what makes all of them one sweep.

OUTPUT_DIR/sweep.json              fingerprint, grid, robot and policy, or policies by name
OUTPUT_DIR/cells/NAME/…            a Results folder per cell: config.json, episodes.jsonl, timings.jsonl, summary.json
OUTPUT_DIR/report.html, figures/, tables/                    what tactus.runtime.lab.report makes of it

Resuming may add cells, episodes and named policies to a grid, never take results of another policy under a name that is
there, of another robot, seed or version in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tactus.hal.json_file import read_json
from tactus.runtime.evaluation.results import Results, ResultsError, check_same, make_folder, read_config, write_whole
from tactus.runtime.lab.sweep_settings import Cell

SWEEP = "sweep.json"


class CellResults(NamedTuple):
    """What has been found for one cell. rows, timings: lines of episodes.jsonl and timings.jsonl, by episode."""

    cell: Cell
    label: str
    rows: list[dict[str, Any]]
    timings: list[dict[str, Any]]


class Sweep(NamedTuple):
    """A sweep as it lies on disk. about: sweep.json. cells: those with at least one episode, the references first."""

    about: dict[str, Any]
    cells: list[CellResults]

    @property
    def policies(self) -> dict[str, dict[str, Any]]:
        """What is known of each policy, by its name in the sweep; "" for the only one. Raises ResultsError if
        sweep.json does not say."""
        specs, facts = (
            about.get("policies", {"": about.get("policy", {})}) for about in (self.about["fingerprint"], self.about)
        )
        try:
            return {name: {**specs[name], **facts[name]} for name in facts}
        except (KeyError, TypeError) as error:
            raise ResultsError(f"{SWEEP} does not say of each policy what it is") from error


class SweepFolder:
    """Opens or makes the folder. fingerprint: whatever must be equal for results to be compared; of `policies` in it,
    by name, those that the folder has already.

    about: what a report wants to know besides. Raises ResultsError if the folder holds something else, or holds this
    and `resume` is off.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        cells: Sequence[Cell],
        about: Mapping[str, Any],
        resume: bool,
    ) -> None:
        self.folder = folder
        self.cells = list(cells)
        make_folder(folder)
        file = folder / SWEEP
        same: dict[str, Any] = json.loads(json.dumps(fingerprint, default=str))
        known = dict(about)
        try:
            if file.exists():
                if not resume:
                    raise ResultsError(f"{folder} already holds a sweep; give another --output_dir, or --resume")
                there = read_config(file)
                check_same(folder, *_shared(folder, there["fingerprint"], same))
                if "policies" in same:
                    same["policies"] = {**there["fingerprint"]["policies"], **same["policies"]}
                    known["policies"] = {**there["policies"], **known["policies"]}
            elif (folder / "episodes.jsonl").exists():
                raise ResultsError(f"{folder} holds a single run, not a sweep; give another --output_dir")
            named = [{"name": cell.name, **cell.to_dict()} for cell in self.cells]
            write_whole(file, json.dumps({**known, "fingerprint": same, "cells": named}, indent=2, default=str))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"lacks {error}" if isinstance(error, KeyError) else error
            raise ResultsError(f"cannot use {folder} for a sweep: {file.name}: {why}") from error
        self.results = [
            Results(folder / "cells" / cell.name, {**_of(same, cell), **cell.to_dict()}, resume=True)
            for cell in self.cells
        ]


def _of(fingerprint: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """A cell's part of the fingerprint: of several policies, its own."""
    if not cell.policy:
        return dict(fingerprint)
    return {**{k: v for k, v in fingerprint.items() if k != "policies"}, "policy": fingerprint["policies"][cell.policy]}


def _shared(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two fingerprints but for the policies that only one of them has. Raises ResultsError if one has no names."""
    if ("policies" in before) != ("policies" in now):
        held = (
            f"of the policies {', '.join(before['policies'])}"
            if "policies" in before
            else "of one policy without a name"
        )
        do = "name them in --sweep.policy" if "policies" in before else "leave out --sweep.policy"
        raise ResultsError(f"{folder} holds a sweep {held}: {do}, or give another --output_dir")
    if "policies" not in now:
        return dict(before), dict(now)
    both = before["policies"].keys() & now["policies"].keys()
    one, other = ({**side, "policies": {name: side["policies"][name] for name in both}} for side in (before, now))
    return one, other


def read_sweep(folder: Path) -> Sweep:
    """What the folder holds, finished or not, cells of earlier grids and other labs (a `label` in their config.json)
    included. Raises ResultsError if it is not a sweep's."""
    try:
        about = _read(folder / SWEEP)
        order = {entry["name"]: index for index, entry in enumerate(about["cells"])}
        named = ("config.json", "episodes.jsonl")
        cells = {file.parent for file in (folder / "cells").glob("*/*") if file.name in named}
        found = [_read_cell(cell) for cell in sorted(cells)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        lacks = f"{SWEEP} lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ResultsError(f"{folder} cannot be read as a sweep: {lacks}") from error
    found.sort(key=lambda one: (one.label != "", order.get(one.cell.name, len(order)), one.cell.name))
    return Sweep(about, [one for one in found if one.rows])


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file, dict)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _read_cell(folder: Path) -> CellResults:
    config = _read(folder / "config.json")
    try:
        cell = Cell.from_dict(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} is no cell's: {error}") from error
    results = Results.read(folder)
    return CellResults(cell, str(config.get("label", "")), results.rows, results.timings)
