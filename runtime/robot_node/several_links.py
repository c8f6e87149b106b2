"""One robot's links to several policy nodes, of which one is asked at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import zmq

from tactus.hal.spec import Feature, Observation, PolicySpec, RobotSpec
from tactus.runtime.wire.link import Continue, Link, LinkError, Refused, Reply, Stopped


class SeveralLinks:
    """An AnyLink made of Links, all introduced, with one count of requests between them.

    Those that nobody asks are kept: their nodes hear a PING now and then, what they say is heard, a STOP among it.
    Which one is asked is up to the subclass.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = [*links]
        self._asked = 0
        self._poller = zmq.Poller()

    def hello(
        self,
        robot: RobotSpec,
        timeout_s: float,
        real_time: bool = True,
        waiting: Callable[[float], None] = lambda for_s: None,
    ) -> PolicySpec:
        """As Link.hello, of all; what they have in common. Raises Refused with every mismatch of every node."""
        refused: list[str] = []
        for link in self._links:
            try:
                link.hello(robot, timeout_s, real_time, waiting)
            except Refused as error:
                refused += [f"{link.endpoint}: {reason}" for reason in error.reasons]
        if refused:
            raise Refused(refused)
        for link in self._links:
            for socket in link.sockets:
                self._poller.register(socket, zmq.POLLIN)
        return in_common(self.policies)

    @property
    def policies(self) -> list[PolicySpec]:
        """Of all, after `hello`."""
        return [link.policy for link in self._links]

    @property
    def asked(self) -> Link:
        """The one whose policy answers from now on."""
        return self._links[self._asked]

    @property
    def policy(self) -> PolicySpec:
        """Of that one."""
        return self.asked.policy

    @property
    def endpoint(self) -> str:
        """Of that one."""
        return self.asked.endpoint

    @property
    def resumed(self) -> int:
        """As Link.resumed, of all."""
        return sum(link.resumed for link in self._links)

    @property
    def silent_s(self) -> float:
        """As Link.silent_s, of that one."""
        return self.asked.silent_s

    def reset(self, episode: int, seed: int, task: str) -> None:
        """As Link.reset."""
        self.asked.reset(episode, seed, task)

    def request(self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None) -> int:
        """As Link.request."""
        return self.asked.request(observation, ticks_left, merged, continued)

    def ping(self) -> None:
        """As Link.ping."""
        self.asked.ping()

    def poll(self) -> list[Reply]:
        """As Link.poll, of the one that is asked. Raises Stopped after a STOP from any."""
        for index, link in enumerate(self._links):
            if index != self._asked:
                self._listen(index, link)
        return self.asked.poll()

    def _listen(self, index: int, link: Link) -> None:
        """To one that is not asked."""
        try:
            link.poll()
        except Stopped:
            raise
        except LinkError:
            return  # it is said when its turn comes, and it is of no use
        link.probe()

    def wait(self, timeout_s: float) -> bool:
        """As Link.wait, for any."""
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            if left_s < 0.001:
                time.sleep(left_s)
                left_s = 0.0
            ready = dict(self._poller.poll(int(left_s * 1000)))
            if ready and any([link.wait(0.0) for link in self._links]):  # each: they send what is packed by then
                return True
            if not left_s:
                return False

    def close(self) -> None:
        """As Link.close."""
        for link in self._links:
            link.close()


class DrawnLinks(SeveralLinks):
    """For a comparison: `draw` says whose turn each episode is, by its number."""

    def __init__(self, links: Sequence[Link], draw: Callable[[int], int]) -> None:
        super().__init__(links)
        self._draw = draw

    def reset(self, episode: int, seed: int, task: str) -> None:
        """Open the episode with the policy that it was drawn to."""
        self._asked = self._draw(episode)
        super().reset(episode, seed, task)


def in_common(policies: Sequence[PolicySpec]) -> PolicySpec:
    """What a robot that fits them all has to observe and do. details: who they are; the name does not say."""
    inputs: dict[str, Feature] = {}
    for policy in policies:
        inputs = {**policy.inputs, **inputs}
    return replace(
        policies[0],
        name=f"one of {len(policies)} policies",
        inputs=inputs,
        horizon=min(policy.horizon for policy in policies),
        n_action_steps=None,
        observation_offsets=tuple(sorted({offset for policy in policies for offset in policy.observation_offsets})),
        takes_prefix=all(policy.takes_prefix for policy in policies),
        details={f"policy {index + 1}": policy.identity for index, policy in enumerate(policies)},
        own_names={},
        can_lack=(),
    )
