"""The `tactus` command: one file a subcommand. It wires config to objects; nothing imports it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys

SUMMARIES = {
    "serve": "policy node: load a policy and answer robots over ZeroMQ",
    "run": "robot node in real time, against a policy node",
    "eval": "evaluation in virtual time: any latency, repeatable to the bit",
    "record": "episodes as eval or run has them, written as a LeRobotDataset",
    "teleop": "a leader arm or keys drive the robot; --dataset_root records it",
    "replay": "recorded actions, played on the robot",
    "calibrate": "find an arm's calibration with your help, or write a file to its servos",
    "doctor": "look at ports, servos and cameras without moving anything: what is wrong, and the fix",
    "stop": "emergency stop for every robot that a policy node serves",
    "twin": "an emulated rig: arms on serial ports, a table with physics, cameras; any program can talk to it",
    "replay-flight": "a flight record through queue and policy again: bit for bit the same, or where not",
    "why": "which observation, chunk, blend and limit produced a recorded action",
    "report": "what a sweep found: a page, figures, tables, and which setting to choose",
    "keygen": "a key pair for a policy node or a robot: encryption, and who may connect",
    "schema": "the JSON Schema of config files, with which editors complete and check them",
    "completion": "a script that lets a shell complete commands, keys and types",
}
"""A module each, whose `main(config, arguments)` returns the exit status; imported only when it is asked for."""


def usage() -> str:
    lines = "\n".join(f"  {name:13} {summary}" for name, summary in SUMMARIES.items())
    return f"""usage: tactus COMMAND [--key=value …]

{lines}

tactus COMMAND --help lists its keys. One config file serves them all: --config_path launch/sim.yaml
tactus --version
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in SUMMARIES:
        from tactus.runtime.commands.arguments import parse

        try:
            config = parse(command, rest)
            return importlib.import_module(f"tactus.runtime.commands.{command.replace('-', '_')}").main(config, rest)
        except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
    if command == "--version":
        print(f"tactus {importlib.metadata.version('tactus')}")
        return 0
    asked = command in ("-h", "--help", "help")
    complaint = "" if asked or not command else f"tactus: unknown command {command!r}\n"
    print(complaint + usage(), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2
