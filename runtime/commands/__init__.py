"""The `tactus` command: one file a subcommand. It wires config to objects; nothing imports it."""

from __future__ import annotations

import sys

USAGE = """usage: tactus COMMAND [--key=value …]

  serve    policy node: load a policy and answer robots over ZeroMQ
  run      robot node in real time, against a policy node
  eval     evaluation in virtual time: any latency, repeatable to the bit
  record   episodes as eval or run has them, written as a LeRobotDataset
  report   what a sweep found: a page, figures, tables, and which setting to choose
  twin     an emulated rig: arms on serial ports, a table with physics, cameras; any program can talk to it

tactus COMMAND --help lists its keys. One config file serves them all: --config_path launch/sim.yaml
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "serve":
        from runtime.commands.serve import main as run
    elif command == "run":
        from runtime.commands.run import main as run
    elif command == "eval":
        from runtime.commands.eval import main as run
    elif command == "record":
        from runtime.commands.record import main as run
    elif command == "report":
        from runtime.commands.report import main as run
    elif command == "twin":
        from runtime.commands.twin import main as run
    else:
        asked = command in ("-h", "--help", "help")
        print(
            USAGE if asked or not command else f"tactus: unknown command {command!r}\n{USAGE}",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    return run(rest)
