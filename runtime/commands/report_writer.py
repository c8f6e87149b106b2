"""Loads what writes a report: its packages are an extra, and a command that needs them says so before it begins."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

PACKAGES = ("matplotlib", "jinja2", "similaritymeasures")
SWEEP_REPORT = "tactus.runtime.lab.report"
OFFLINE_REPORT = "tactus.runtime.diagnosis.offline.report"
DISTILLATION_REPORT = "tactus.runtime.distillation.report"
PRACTICE_REPORT = "tactus.runtime.rl.report"


def load_writer(module: str) -> Callable[..., Path]:
    """`write_report` of a module; raises ModuleNotFoundError with what to install where a package is missing."""
    try:
        return import_module(module).write_report
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in PACKAGES:
            raise
        raise ModuleNotFoundError(
            f"a report needs {error.name}, which is not installed: pip install 'tactus[report]'", name=error.name
        ) from error
