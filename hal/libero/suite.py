"""What a LIBERO suite consists of: tasks, their texts and files, initial states, objects of interest."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from tactus.hal.libero.package import TaskFiles, load, parser, task_files
from tactus.hal.provenance import digest
from tactus.hal.spec import SpecError


class LiberoSuite:
    """A suite of the installed LIBERO by name. files: its task files, the package's own if not given.

    Raises SpecError if `files` lacks one of the suite's.
    """

    def __init__(self, name: str, files: TaskFiles | None = None) -> None:
        self.files = files or task_files()
        load()
        with contextlib.redirect_stdout(io.StringIO()):  # LIBERO announces its task order
            from libero.libero import benchmark

            self._suite: Any = benchmark.get_benchmark_dict()[name]()
        missing = [str(path) for task in range(len(self)) for _, path in self._paths(task) if not path.is_file()]
        if missing:
            more = f" nor {len(missing) - 1} more of {name}'s" if len(missing) > 1 else ""
            raise SpecError(f"robot.task_files={self.files.source} lacks {missing[0]}{more}")

    def __len__(self) -> int:
        return self._suite.get_num_tasks()

    def language(self, task: int) -> str:
        """The instruction."""
        return self._suite.get_task(task).language

    def bddl_file(self, task: int) -> str:
        """Path of the problem definition."""
        return str(self._paths(task)[0][1])

    def digest(self, tasks: Iterable[int], files: TaskFiles | None = None) -> str:
        """Content of the task files of `tasks`. files: those of another LIBERO. Raises OSError if one is missing."""
        return digest(pair for task in tasks for pair in self._paths(task, files))

    def _paths(self, task: int, files: TaskFiles | None = None) -> list[tuple[str, Any]]:
        found = self._suite.get_task(task)
        return (files or self.files).of(found.problem_folder, found.bddl_file, found.init_states_file)

    @functools.cache  # noqa: B019 - a suite lives as long as its robot
    def interest(self, task: int) -> list[str]:
        """Names of the objects of interest; as a rule the first is moved and the second is where it goes."""
        bddl_utils, file = parser(), self.bddl_file(task)
        try:
            return list(bddl_utils.robosuite_parse_problem(file)["obj_of_interest"])
        except Exception as error:  # the parser has no class of its own for what it cannot read
            why = f"{type(error).__name__}: {error}"
            raise SpecError(f"{file} is not a BDDL problem that LIBERO reads: {why}") from error

    @functools.cache  # noqa: B019
    def init_states(self, task: int) -> np.ndarray:
        """float64[50, 1 + nq + nv]: the stored initial states, read without running any pickled code."""
        import torch
        from numpy._core import multiarray

        _, file = self._paths(task)[1]
        rebuild = multiarray._reconstruct
        allowed = [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, type(np.dtype("f8"))]
        try:
            with torch.serialization.safe_globals(allowed):
                states = np.asarray(torch.load(file, weights_only=True))
        except Exception as error:  # torch and its unpickler raise many kinds for what is not a whole file
            raise SpecError(f"{file} does not hold initial states: {type(error).__name__}") from error
        if states.ndim != 2 or states.dtype != np.float64:
            found = f"{states.dtype}{list(states.shape)}"
            raise SpecError(f"{file} holds {found}; expected initial states, float64[states, 1 + nq + nv]")
        return states
