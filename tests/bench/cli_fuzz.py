"""Odd values for every key of every command, run for real: no traceback, no crash, no command that cannot be ended.

    python tests/bench/cli_fuzz.py [--tries=2000] [--seed=0] [--patience_s=1.0] [--only=eval,run]

A try is a command line that works, with one to three keys given a value that nobody means: of another type, NaN,
negative, huge, empty, unicode, lists, paths that are none. It runs in a process of its own, forked from one that has
imported what commands import, with a home and a folder of its own; what still runs after --patience_s is interrupted,
as by Ctrl-C. Same seed, same command lines. Prints what was found and exits with status 1 if anything was.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import contextlib
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple, get_args

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from processes import serving

import tactus.runtime.commands
from tactus.policies.tracing.trace_file import Recorder
from tactus.runtime.commands.config import COMMANDS
from tactus.runtime.commands.keys import Key, leaves, section

HUNG_S = 20.0
"""After the interrupt; commands that import half of Python on two busy cores need a few."""
MEMORY_BYTES = 12 * 2**30
CRASHES = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}
WORDS = ("Traceback (most recent call last)", "Exception ignored in")
SLOW = {"workers", "engine", "sweep"}
"""Keys that start processes: they get words, no numbers."""

NUMBERS = """
nan|inf|-inf|-1|0|1e309|1e-320|99999999999999999999|-0.0|0x10|1_000|٣|1e3|+5|.5|1e400j|-2147483649|1e9|true
"""
USUAL_NUMBERS = "1|2|3|5|0.5|0.01|20"
TEXTS = "| |é|日本語|😀|\u202e|a\nb|null|~|=|--|'|$(ls)|\udcff|%s|\x1b[31m|tcp://[::1]:5|a,b|" + "a" * 5000
TREES = """
[]|[1,2]|[[]]|[nan]|{}|{a: 1}|{a: {b: [1]}}|[|{|[a, b|{x}|&a [*a]|!!python/object:os.system|- a|{a: &a [*a]}
"""
PATHS = """
~/x|~nobody/x|$HOME/y|$NOPE/x|/dev/null|/proc/nope/x|/dev/null/x|.|..|a/b/c|loop|empty|binary|cut.json|list.json|pointer|
folder|nowhere.yaml|/|folder/../folder
"""
ODD_KEYS = "--|--=|--.|--robot..x=1|--robot.=1|robot=1|--robbot.type=x|extra|-x|--é=1|--robot.type|--robot"


def one_of(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words.replace("|\n", "|").strip("\n").split("|"))


class Outcome(NamedTuple):
    """of a try. ended: exit status, or minus the signal; None if it could not be ended."""

    line: list[str]
    ended: int | None
    said: str

    @property
    def wrong(self) -> bool:
        crashed = self.ended is None or (self.ended < 0 and -self.ended in CRASHES)
        return crashed or any(word in self.said for word in WORDS)


def base_lines(endpoint: str, material: Path) -> dict[str, list[str]]:
    """A command line of each command that works, or, without a device, is as near as can be."""
    robot = ["--robot.type=synthetic", "--robot.width=3", "--robot.steps=4", "--robot.fps=100"]
    leader = ["--teleop.type=leader", "--teleop.arm.type=synthetic", "--teleop.arm.width=3"]
    played = [*robot, f"--connect={endpoint}", "--episodes=1", "--output_dir=out", "--start_timeout_s=2"]
    return {
        "serve": ["--policy.type=ticker", "--policy.width=3", "--connect=tcp://127.0.0.1:*"],
        "run": played,
        "eval": played,
        "record": [*played, "--dataset_root=data"],
        "teleop": [*robot, *leader, "--max_ticks=3", "--output_dir=out"],
        "replay": [*robot, f"--actions={material / 'actions.npz'}", "--episodes=1", "--output_dir=out"],
        "calibrate": ["--robot.type=so100", "--robot.port=/dev/null"],
        "doctor": robot,
        "stop": [f"--connect={endpoint}"],
        "swap": [f"--connect={endpoint}", "--policy.type=ticker"],
        "twin": ["--folder=twin", "--world=kinematic", "--cameras.names=[]"],
        "replay-flight": [str(material / "flight")],
        "why": [str(material / "flight"), "--tick=2"],
        "report": [str(material / "sweep")],
        "trace": ["out.trace", *robot, "--policy.type=ticker", "--policy.width=3", "--samples=1"],
        "compare": [str(material / "a.trace"), str(material / "a.trace")],
        "offline": ["--policy.type=ticker", "--policy.width=3", "--dataset_root=nowhere"],
        "train": ["--dataset_root=nowhere", "--steps=1"],
        "relabel": ["--dataset_root=nowhere", "--policy.type=pusher"],
        "card": ["nowhere"],
        "distill": ["--policy.type=ticker", "--policy.width=3", "--observations=nowhere"],
        "distill-verify": ["nowhere", "nowhere", "--observations=nowhere"],
        "rl": [*robot, "--policy.type=ticker", "--policy.width=3", "--practice.iterations=0"],
        "plan": [*robot, "--policy.type=ticker", "--policy.width=3", "--learner=false", "--rollouts=4"],
        "keygen": ["me"],
        "schema": ["config"],
        "completion": ["bash"],
    }  # fmt: skip


def values(key: Key | None) -> st.SearchStrategy[str]:
    """Odd ones for a key, most often of its own kind."""
    numbers = one_of(NUMBERS) | st.integers().map(str) | st.floats().map(str)
    texts = one_of(TEXTS) | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
    others = texts | one_of(TREES) | one_of(PATHS)
    if key is None or key.name in SLOW:
        return others
    kinds = str(key.hint)
    usual = st.sampled_from([str(choice) for choice in get_args(key.annotation) if isinstance(choice, str)] or ["x"])
    if "int" in kinds or "float" in kinds:
        return one_of(USUAL_NUMBERS) | numbers | numbers | others
    return usual | one_of("true|false") | others | numbers if "bool" in kinds else usual | others | numbers


@st.composite
def command_lines(draw: st.DrawFn, lines: dict[str, list[str]]) -> tuple[str, list[str]]:
    command = draw(st.sampled_from(sorted(lines)))
    line = [*lines[command]]
    known = candidates(command, line)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 9)) == 0:
            line.append(draw(one_of(ODD_KEYS)))
            continue
        name = draw(st.sampled_from(sorted(known)))
        if known[name] is not None and known[name].positional:
            line = [draw(values(known[name])), *line[1:]]
            continue
        written = f"--{name}={draw(values(known[name]))}"
        line = [word for word in line if not word.startswith(f"--{name}=")] + [written]
    return command, line


def candidates(command: str, line: list[str]) -> dict[str, Key | None]:
    """The keys of a command, with those of the types that its line names."""
    cls = COMMANDS[command]
    found: dict[str, Key | None] = {".".join(path): key for path, key in leaves(cls)}
    for name in list(found):
        chosen = next((word.partition("=")[2] for word in line if word.startswith(f"--{name}.type=")), None)
        kind = section(cls, tuple(name.split(".")), nested(name, chosen)) if chosen else None
        if kind is not None:
            found |= {f"{name}.{'.'.join(path)}": inner for path, inner in leaves(kind)}
            del found[name]
    return {**found, "config_path": None, "beside": None}


def nested(name: str, chosen: str | None) -> dict[str, object]:
    data: object = {"type": chosen}
    for part in reversed(name.split(".")):
        data = {part: data}
    return data  # type: ignore[return-value]


def run(command: str, line: list[str], folder: Path, patience_s: float) -> Outcome:
    """One command in a process of its own, in `folder`."""
    output = folder / "said"
    pid = os.fork()
    if pid == 0:
        play(command, line, folder, output)
    give_up_s, interrupted, ended = time.monotonic() + patience_s, False, None
    while ended is None:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            ended = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > give_up_s and interrupted:
            break
        elif time.monotonic() > give_up_s:
            os.kill(pid, signal.SIGINT)
            give_up_s, interrupted = time.monotonic() + HUNG_S, True
        else:
            time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # it, if it hangs, and whatever it has left behind
    if ended is None:
        os.waitpid(pid, 0)
    return Outcome([command, *line], ended, output.read_text(errors="replace") if output.exists() else "")


def play(command: str, line: list[str], folder: Path, output: Path) -> None:
    """In the child: what the console script does, to Python's own end; never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        become(command, line, folder, output)
        status = tactus.runtime.commands.main()
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        status = 70
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


def become(command: str, line: list[str], folder: Path, output: Path) -> None:
    """What a shell would set up."""
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["tactus", command, *line]


def make_material(folder: Path, endpoint: str) -> None:
    """What commands read: made by our own."""
    lines = base_lines(endpoint, folder)
    for command, extra in (
        ("eval", ["--record_actions", f"--output_dir={folder}/out", f"--record_flight={folder}/flight"]),
        ("eval", ["--sweep", f"--output_dir={folder}/sweep"]),
    ):
        done = run(command, [*(w for w in lines[command] if "output_dir" not in w), *extra], fresh(folder), 120)
        if done.ended != 0:
            raise SystemExit(f"the material could not be made: {done}")
    shutil.copy(folder / "out" / "actions" / "episode_00000.npz", folder / "actions.npz")
    recorder = Recorder("cli_fuzz", "ticker")
    recorder.begin(task="none")
    recorder("raw/observation.state", [0.0, 1.0, 2.0])
    recorder.save(folder / "a.trace")


def fresh(parent: Path) -> Path:
    """A folder to try in, with things in it that are not what they should be."""
    folder = Path(tempfile.mkdtemp(dir=parent)) / "a" / "b"
    (folder / "folder").mkdir(parents=True)
    (folder / "loop").symlink_to("loop")
    (folder / "empty").touch()
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "cut.json").write_text('{"episodes": [1, 2')
    (folder / "list.json").write_text("[]")
    (folder / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return folder


def fuzz(tries: int, wanted_seed: int, patience_s: float, only: list[str]) -> list[Outcome]:
    """Every try; the caller says which were wrong."""
    commands = only or list(COMMANDS)
    for module in ["lerobot.datasets.lerobot_dataset"] if "record" in commands else []:
        importlib.import_module(module)
    for command in commands:
        importlib.import_module(f"tactus.runtime.commands.{command.replace('-', '_')}")
    outcomes: list[Outcome] = []
    place = Path(tempfile.mkdtemp(prefix="tactus_cli_fuzz_"))  # whose removal no child inherits
    try:
        with serving(place / "node.log", "--policy.type=ticker", "--policy.width=3") as (_, endpoint):
            make_material(place, endpoint)
            lines = {k: v for k, v in base_lines(endpoint, place).items() if k in commands}

            for command, line in lines.items():  # each goes as far as it can, or nothing is tried below
                folder = fresh(place)
                base = run(command, line, folder, 2.0 if command in ("serve", "twin") else 60.0)
                print(f"{command}: status {base.ended}: {' '.join(base.said.split())[-100:]}")
                shutil.rmtree(folder.parents[1])

            @seed(wanted_seed)
            @settings(
                max_examples=tries,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(command_lines(lines))
            def one(chosen: tuple[str, list[str]]) -> None:
                folder = fresh(place)
                outcomes.append(run(*chosen, folder, patience_s))
                shutil.rmtree(folder.parents[1])
                if outcomes[-1].wrong:
                    print(
                        f"\n{outcomes[-1].line!a}\n  ended {outcomes[-1].ended}\n{outcomes[-1].said[-3000:]}",
                        flush=True,
                    )

            one()
    finally:
        shutil.rmtree(place)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience_s", type=float, default=1.0)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    outcomes = fuzz(arguments.tries, arguments.seed, arguments.patience_s, only)
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    per_command = collections.Counter(outcome.line[0] for outcome in outcomes)
    per_status = collections.Counter("hung" if o.ended is None else o.ended for o in outcomes)
    print(", ".join(f"{command} {count}" for command, count in sorted(per_command.items())))
    print(", ".join(f"status {status}: {count}" for status, count in sorted(per_status.items(), key=str)))
    print(f"{len(outcomes)} tries, seed {arguments.seed}: {len(wrong)} ended in a traceback, a crash or not at all")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
