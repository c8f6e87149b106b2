"""What a LIBERO suite consists of: tasks, their texts and files, initial states, objects of interest."""

from __future__ import annotations

import contextlib
import functools
import io
from pathlib import Path
from typing import Any

import numpy as np


class LiberoSuite:
    """A suite of the installed LIBERO by name. Needs tactus.hal.libero.assets.write_config before the first one."""

    def __init__(self, name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # LIBERO announces its task order
            from libero.libero import benchmark

            self._suite: Any = benchmark.get_benchmark_dict()[name]()

    def __len__(self) -> int:
        return self._suite.get_num_tasks()

    def language(self, task: int) -> str:
        """The instruction."""
        return self._suite.get_task(task).language

    def bddl_file(self, task: int) -> str:
        """Path of the problem definition."""
        return self._suite.get_task_bddl_file_path(task)

    @functools.cache  # noqa: B019 - a suite lives as long as its robot
    def interest(self, task: int) -> list[str]:
        """Names of the objects of interest; as a rule the first is moved and the second is where it goes."""
        from libero.libero.envs import bddl_utils

        return list(bddl_utils.robosuite_parse_problem(self.bddl_file(task))["obj_of_interest"])

    @functools.cache  # noqa: B019
    def init_states(self, task: int) -> np.ndarray:
        """float64[50, 1 + nq + nv]: the stored initial states, read without running any pickled code."""
        import torch
        from libero.libero import get_libero_path
        from numpy._core import multiarray

        found = self._suite.get_task(task)
        path = Path(get_libero_path("init_states")) / found.problem_folder / found.init_states_file
        rebuild = multiarray._reconstruct
        allowed = [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, type(np.dtype("f8"))]
        with torch.serialization.safe_globals(allowed):
            return np.asarray(torch.load(path, weights_only=True))
