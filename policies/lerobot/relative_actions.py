"""Actions that a checkpoint predicts relative to the observed state (use_relative_actions), and what else its
postprocessor has to know of the observation that was preprocessed.

LeRobot's preprocessor remembers the state of its last call, its postprocessor adds it to whatever comes next. Here a
call has the rows of several robots, of fillers (compiled.py) and of a history, and a chunk outlives its observation:

    preprocessed     a-1 a0   b-1 b0   c-1 c0   c-1 c0     two ticks each of a, b and c, and a filler
    remembered                                             by `anchor`: a0 b0 c0, one for each row that is answered
    prefix           what is left of a's last chunk, as the robot executes it, relative to a0 and not to what was then
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import (
    AbsoluteActionsProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    ProcessorStep,
    RelativeActionsProcessorStep,
    UnnormalizerProcessorStep,
    create_transition,
)
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from tactus.policies.lerobot.weights import CheckpointError

KNOWN = (UnnormalizerProcessorStep, AbsoluteActionsProcessorStep, DeviceProcessorStep)
"""Steps after a prediction that can be gone back through."""


class RelativeActions:
    """history: ticks of one observation, rows of the preprocessor's batch. Raises CheckpointError if one processor
    makes actions relative and the other does not make them absolute again.

    on: whether actions are relative. reversible: whether executed actions can be made a prefix again. alone: whether
    a step that is not known here ties the two processors together, so that only one observation fits between them.
    """

    def __init__(self, preprocessor: Any, postprocessor: Any, history: int) -> None:
        self._history = history
        relative = [step for step in preprocessor.steps if isinstance(step, RelativeActionsProcessorStep)]
        absolute = [step for step in postprocessor.steps if isinstance(step, AbsoluteActionsProcessorStep)]
        there, back = [step.enabled for step in relative], [step.enabled for step in absolute]
        if there.count(True) != back.count(True) or there.count(True) > 1 or (any(back) and len(relative) > 1):
            raise CheckpointError(
                f"relative actions: the preprocessor has {there.count(True)} step that makes them relative, the "
                f"postprocessor {back.count(True)} that makes them absolute again; accepted: one of each, or none"
            )
        self.on = any(there)
        self._steps = [s for s in preprocessor.steps if isinstance(s, NormalizerProcessorStep) or s in relative]
        self._step: Any = relative[0] if self.on else None
        self._states = torch.empty(0, 0)
        self.reversible = all(isinstance(step, KNOWN) for step in postprocessor.steps)
        ties = {
            type(step).__name__
            for step in postprocessor.steps
            for value in vars(step).values()
            if isinstance(value, ProcessorStep) and not isinstance(step, AbsoluteActionsProcessorStep)
        }
        self.alone = bool(ties)
        if ties and history > 1:
            raise CheckpointError(
                f"{', '.join(sorted(ties))}: this postprocessor step reads what the preprocessor saw, which is known "
                f"for policies of one observation only; this one has {history}"
            )

    def anchor(self, rows: int) -> None:
        """After preprocessing: what is postprocessed next are the first `rows` rows, each as of its newest tick."""
        if self._step is not None:
            states = self._step.get_cached_state()
            if states is None:
                raise CheckpointError(f"relative actions: this checkpoint does not read {OBS_STATE}, which they are to")
            self._states = states.unflatten(0, (-1, self._history))[:rows, -1]
            self._remember(self._states)

    def prefix(self, actions: np.ndarray, row: int) -> np.ndarray:
        """Executed actions [L, A] as the policy would predict them now, relative to what row `row` of those that
        `anchor` was told of observes; LeRobot's reanchor_relative_rtc_prefix, to the bit.
        """
        state = self._states[row : row + 1]
        action = torch.tensor(actions, device=state.device)
        for step in self._steps:
            seen = {OBS_STATE: state} if step is self._step else None
            action = step(create_transition(observation=seen, action=action))[TransitionKey.ACTION]
        self._remember(self._states)
        return action.cpu().numpy()

    def _remember(self, states: Tensor) -> None:
        self._step(create_transition(observation={OBS_STATE: states}))
