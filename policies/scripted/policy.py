"""The base of scripted policies, which answer requests one by one and remember something of each session."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from tactus.hal.spec import Chunk, PolicySpec
from tactus.policies.policy import Policy, Request, Session


class ScriptedPolicy[Memory](Policy):
    """memory: makes what is kept of a session, anew for every episode."""

    def __init__(self, spec: PolicySpec, memory: Callable[[], Memory]) -> None:
        self._spec = spec
        self._memory = memory
        self._memories: dict[str, Memory] = {}

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self._memories[session.id] = self._memory()

    def end(self, session: str) -> None:
        self._memories.pop(session, None)

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        return [self._chunk(one, self._memories.setdefault(one.session, self._memory())) for one in requests]

    @abstractmethod
    def _chunk(self, request: Request, memory: Memory) -> Chunk:
        """The answer to one request; what it should remember goes into `memory`."""
