"""The `tactus` command: one file a subcommand. It wires config to objects; nothing imports it."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from tactus.runtime.commands.summaries import SUMMARIES


def usage() -> str:
    """Every command with what it is for."""
    lines = "\n".join(f"  {name:14} {summary}" for name, summary in SUMMARIES.items())
    return f"""usage: tactus COMMAND [--key=value …]

{lines}

tactus COMMAND --help lists its keys. One config file serves them all: --config_path launch/sim.yaml
tactus --version
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status. Given no argv, it is the process's last act."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = named(arguments)
    if command in SUMMARIES:
        try:
            return _run(command, rest, alone=argv is None)
        except SystemExit as stop:  # help was asked for, or something cannot be read
            return int(stop.code or 0)
        except KeyboardInterrupt:  # before, or beside, what the command itself does about it
            print(f"tactus {command}: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        finally:
            if argv is None:  # what is left is Python's own end, which an interrupt may cut short
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    if command == "--version":
        from importlib.metadata import version

        print(f"tactus {version('tactus')}")
        return 0
    asked = command in ("-h", "--help", "help")
    complaint = "" if asked or not command else f"tactus: unknown command {command!r}\n"
    print(complaint + usage(), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def named(arguments: list[str]) -> tuple[str, list[str]]:
    """The command, which may be written as two words (`distill verify`), and what follows it."""
    two = "-".join(arguments[:2])
    if len(arguments) > 1 and two in SUMMARIES:
        return two, arguments[2:]
    return (arguments[0], arguments[1:]) if arguments else ("", [])


def _run(command: str, arguments: list[str], alone: bool) -> int:
    from tactus.hal.error_report import interrupted
    from tactus.hal.interrupts import interrupted_by, not_swallowed
    from tactus.runtime.commands.arguments import parse
    from tactus.runtime.commands.errors import also_beside, complain
    from tactus.runtime.commands.paths import unwritable

    if alone:
        also_beside(command)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell has background jobs ignore it
            interrupted_by(signal.SIGINT)
    try:
        config = parse(command, arguments)
        if wrong := unwritable(config):
            print("\n".join(f"tactus {command}: {line}" for line in wrong), file=sys.stderr)
            return 2
        with not_swallowed():
            module = importlib.import_module(f"tactus.runtime.commands.{command.replace('-', '_')}")
        return module.main(config, arguments)
    except BrokenPipeError:
        raise
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        complain(command, error)
        return 1
