"""A worker of an evaluation: an episode runner in its own process; orders in, answers out, all of them JSON.

order                                     answer
{"hello": true}                           {"robot": spec, "policies": {name: spec}, "groups": [of every episode],
                                           "versions": …}
{"play": {"cell": …, "episode": 3}}       {"row": …, "timing": …}
{"film": {"cell": …, "episode": 3, "ticks": 120}}               {"row": …, "jpeg": base64}
any                                       {"lost": why} the policy node left in mid-episode; try again
                                          {"failed": why, "status": exit status} trying again would not help

Each answer also carries "said", lines for the user, and "usage", what the process has used so far. As a command,
`python -m tactus.runtime.lab.worker`: the config is the first line of standard input, an order each line after it;
answers are lines on what was standard output. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import tactus.hal.backends
from tactus.hal.config import received
from tactus.hal.robot import RobotError
from tactus.runtime.evaluation.results import versions
from tactus.runtime.lab.episode_runner import EpisodeRunner, WorkerConfig
from tactus.runtime.lab.sweep_settings import Cell
from tactus.runtime.wire.link import LinkError, Refused, Stopped, Unreachable

REGISTERED = (tactus.hal.backends,)
FAILED, USAGE, REFUSED = 1, 2, 3


class Worker:
    """Obeys orders. config: an encoded WorkerConfig. endpoints: of the policy nodes, by the policies' names."""

    def __init__(self, config: Mapping[str, Any], endpoints: Mapping[str, str]) -> None:
        self._encoded = config
        self._endpoints = endpoints
        self._runner: Any = None  # an EpisodeRunner, as `_make` has it
        self._started_s = time.monotonic()

    def obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Never raises but for what is a fault of the worker's own."""
        try:
            answer = self._obey(order)
        except Refused as error:
            answer = {"failed": str(error), "status": REFUSED}
        except (Unreachable, Stopped) as error:
            answer = {"failed": str(error), "status": FAILED}
        except LinkError as error:
            answer = {"lost": str(error)}
        except ValueError as error:
            answer = {"failed": str(error), "status": USAGE}
        except RobotError as error:
            answer = {"failed": str(error), "status": FAILED}
        said = self._runner.said[:] if self._runner else []
        if self._runner:
            self._runner.said.clear()
        return {**answer, "said": said, "usage": self._usage()}

    def _obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if self._runner is None:
            config = received(WorkerConfig, dict(self._encoded))
            self._runner, self._episodes = self._make(config, self._endpoints), config.episodes
        runner = self._runner
        if "hello" in order:
            groups = [runner.robot.scene(episode).group for episode in range(self._episodes)]
            policies = {name: policy.to_dict() for name, policy in runner.policies.items()}
            robot = runner.robot.spec.to_dict()
            return {"robot": robot, "policies": policies, "groups": groups, "versions": versions()}
        [(verb, wanted)] = order.items()
        return self._play(verb, wanted)

    def _make(self, config: WorkerConfig, endpoints: Mapping[str, str]) -> EpisodeRunner:
        return EpisodeRunner(config, endpoints)

    def _play(self, verb: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        runner = self._runner
        cell, episode = Cell.from_dict(wanted["cell"]), int(wanted["episode"])
        if verb == "play":
            row, timing = runner.play(cell, episode)
            return {"row": row, "timing": timing}
        row, jpeg = runner.film(cell, episode, int(wanted["ticks"]))
        return {"row": row, "jpeg": base64.b64encode(jpeg).decode()}

    def _usage(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": os.getpid(),
            "cpu_s": used.ru_utime + used.ru_stime,
            "wall_s": time.monotonic() - self._started_s,
            "rss_bytes": used.ru_maxrss * 1024,
        }

    def close(self) -> None:
        """Say goodbye to the policy nodes and close the robot."""
        if self._runner is not None:
            self._runner.close()


def main(kind: type[Worker] = Worker) -> None:
    """The process. Ends when standard input does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the coordinator, who closes our input
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    worker = kind(first["config"], first["endpoints"])
    try:
        for line in sys.stdin:
            out.write(json.dumps(worker.obey(json.loads(line))) + "\n")
    finally:
        worker.close()


if __name__ == "__main__":
    main()
