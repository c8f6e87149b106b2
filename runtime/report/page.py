"""Writes a report's page, figures and tables: a page that needs no other file, PNG and CSV beside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from matplotlib.figure import Figure

from tactus.runtime.evaluation.results import write_whole, writing
from tactus.runtime.report.drawing import COLOURS, OTHERS, png, svg

BASE = "page.html.j2"


def write_page(file: Path, package: str, template: str, facts: Mapping[str, Any], filters: Mapping[str, Any]) -> None:
    """Render a package's template, which extends page.html.j2, into `file`. Raises ResultsError if it cannot be."""
    texts = {
        name: resources.files(place).joinpath(name).read_text("utf-8")
        for place, name in ((__package__ or "", BASE), (package, template))
    }
    environment = Environment(
        loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, **filters}
    colours = {"colours": COLOURS, "others": [colour for colour, _ in OTHERS]}
    write_whole(file, environment.get_template(template).render({**colours, **facts}))


def write_figure(folder: Path, figure: Figure | None, name: str, description: str, title: str) -> str:
    """Its inline SVG; FOLDER/NAME.png is written, or removed if there is no figure."""
    if figure is None:
        (folder / f"{name}.png").unlink(missing_ok=True)
        return ""
    text = svg(figure, name, description)
    with writing(folder / f"{name}.png"):
        png(figure, folder / f"{name}.png", title)
    return text


def write_csv(file: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """A line each; columns in the order in which they come up."""
    rows = list(records)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    scratch = file.with_suffix(".csv.tmp")
    with writing(file), scratch.open("w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
    with writing(file):
        scratch.replace(file)


def number(value: float | None, digits: int = 1) -> str:
    """Of so many decimals; a dash for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
