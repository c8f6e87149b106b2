"""How long the robot side takes to import, in fresh processes, against numpy and pyzmq alone.

python tests/bench/imports.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 7
CASES = {
    "python alone": "pass",
    "numpy, zmq": "import numpy, zmq",
    "robot node": "from tactus.hal import rig; from tactus.runtime.robot_node import node, delayed_link",
    "every backend and command": "from tactus.hal import backends; from tactus.policies import builtin; "
    "from tactus.runtime.commands import run, serve",
}


def main() -> None:
    spent: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, code in CASES.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            spent[name].append(time.perf_counter() - started)
    base = statistics.median(spent["numpy, zmq"])
    for name, times in spent.items():
        print(f"{name:26s} {statistics.median(times) * 1000:6.0f} ms  {statistics.median(times) / base:4.2f} x")


if __name__ == "__main__":
    main()
