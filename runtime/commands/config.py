"""The one schema behind all commands about robots and policies: one file, or one command line, describes a run."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import draccus
from draccus.utils import DecodingError, ParsingError
from yaml import YAMLError

import tactus.hal.backends
import tactus.policies.builtin
from tactus.hal.libero import LiberoConfig
from tactus.hal.robot import RobotConfig
from tactus.hal.teleop import KeyboardConfig, TeleoperatorConfig
from tactus.policies.policy import PolicyConfig
from tactus.policies.scripted.expert import ExpertConfig
from tactus.runtime.commands.choices import without_replaced_choices
from tactus.runtime.commands.parts import merge_parts
from tactus.runtime.lab.sweep_settings import Cell, SweepConfig
from tactus.runtime.policy_node.limits import LimitsConfig
from tactus.runtime.policy_node.node import BATCH_WAIT_MS
from tactus.runtime.recording.dataset import COLUMNS, Column
from tactus.runtime.robot_node.action_queue import AGGREGATIONS
from tactus.runtime.robot_node.node import LoopConfig
from tactus.runtime.wire.handshake import ALLOWANCES
from tactus.runtime.wire.keys import CurveConfig
from tactus.runtime.wire.latency import LatencyError, LatencyModel

REGISTERED = (tactus.hal.backends, tactus.policies.builtin)


@dataclass
class Config:
    """A robot, a policy, and the wire and time between them. Each command uses what concerns it."""

    robot: RobotConfig = field(default_factory=LiberoConfig)
    """what is observed and acted on (run, eval, record)"""
    policy: PolicyConfig = field(default_factory=ExpertConfig)
    """what decides (serve)"""
    connect: str = "tcp://127.0.0.1:5555"
    """where the policy node listens: serve binds it, the others connect to it; eval's workers share out [ONE,TWO]"""
    curve: CurveConfig = field(default_factory=CurveConfig)
    """encryption: whose key this node has, and whom it trusts"""
    insecure: bool = False
    """allow an address on or for other machines without keys: anybody there can drive the robots"""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """serve: what one robot may ask of the node"""
    allow: list[str] = field(default_factory=list)
    """serve: differences between robot and policy to accept: image_size (its own preprocessing copes), robot"""
    latency_trace: str | None = None
    """serve: add each answer's latency to this file, for --latency=trace:FILE; run writes OUTPUT_DIR/latency.trace"""
    batch_wait_ms: float = BATCH_WAIT_MS
    """serve: how long an observation may wait for other robots' to share a forward pass, if its robot can afford it"""
    virtual_batch: int = 1
    """serve: how many robots in virtual time share a forward pass; with 1 no company changes a bit of their actions"""
    episodes: int = 10
    """run, eval, record: how many episodes"""
    seed: int = 1000
    """run, eval, record: seed of everything random; episode i is the same episode in every run with this seed"""
    latency: str = "fixed:0"
    """run, eval, record: fixed:TICKS, measured, lognormal:TICKS[,sigma=S] or trace:FILE, with [,drop=P][,reorder=P]"""
    aggregate: str = "latest_only"
    """how overlapping chunks become one action"""
    chunk_size_threshold: float = 0.5
    """ask for a new chunk when the queue holds at most this share of one (0: only when it is empty)"""
    starvation: Literal["pause", "skip"] = "pause"
    """what a tick without an action does to the plan: pause, it waits with the robot; skip, it runs on by the clock"""
    execution_horizon: int | None = None
    """actions of a chunk to execute before the next one is asked for, at most; not given: what the policy says"""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """eval: a grid of settings to compare on the same episodes; a bare --sweep is --sweep.default=true"""
    workers: str = "1"
    """eval: robot nodes, each in a process of its own, that share the episodes; auto measures one and chooses"""
    engine: Literal["local", "ray"] = "local"
    """eval: where workers are: on this machine, or on a Ray cluster (install tactus[cluster])"""
    ray_address: str | None = None
    """eval --engine=ray: the cluster, auto or ray://HOST:PORT; not given: one is started on this machine"""
    failures: int = 8
    """eval --sweep: failed episodes to play once more for the report's pictures, if the robot has a camera"""
    request_timeout_s: float = 1.0
    """an unanswered request is sent again after this"""
    start_timeout_s: float = 120.0
    """how long to wait for the policy node, and for an episode's first chunk"""
    lost_after_s: float = 10.0
    """give up when the policy node has been silent for this long"""
    max_ticks: int | None = None
    """run: end of an episode on a robot that cannot tell; not given: no limit"""
    output_dir: str | None = None
    """where results go; not given: a new folder under outputs/"""
    resume: bool = False
    """go on with the results in output_dir"""
    video: bool = False
    """film the first episode: OUTPUT_DIR/video.mp4"""
    record_actions: bool = False
    """also write OUTPUT_DIR/actions/episode_NNNNN.npz, which policy.type=replay plays"""
    action_noise: float = 0.0
    """eval, record: disturb the robot: standard deviation, as a share of half of each action dimension's range"""
    action_noise_ticks: int = 1
    """eval, record: the disturbance is drawn anew after so many ticks"""
    record_flight: str | None = None
    """run, eval, record, teleop, replay: folder of a flight record: every message, tick, action and fault, to replay"""
    flight_minutes: float = 10.0
    """how much of the past the flight record keeps"""
    flight_gb: float = 4.0
    """how large the flight record may become, in GB; this bound wins"""
    real_time: bool = False
    """record: on the wall clock, as run does; not given: in virtual time, as eval does"""
    dataset_root: str | None = None
    """record: folder of the LeRobotDataset; must not exist yet"""
    dataset_cameras: list[str] | None = None
    """record: names of the cameras to keep, e.g. [image2]; not given: all"""
    dataset_video: bool = True
    """record: keep pictures as mp4; false: one by one, inside the parquet files, without loss"""
    dataset_action: Column = "sent"
    """record: what the column `action` holds, which training imitates: sent, or requested (before noise and limits)"""
    successful_only: bool = False
    """record: forget the episodes that fail"""

    attended: bool | None = None
    """run, record: a person begins each episode with Enter and judges it with s or f; not given: if nobody else can"""
    teleop: TeleoperatorConfig = field(default_factory=KeyboardConfig)
    """teleop: whose hand drives the robot: leader (another arm) or keyboard"""
    part: str | None = None
    """calibrate: which part of a rig; not given: its only arm"""
    from_file: str | None = None
    """calibrate: write this file to the servos instead of finding out; --from=FILE"""
    check_joints: bool = True
    """calibrate: have every joint moved once by name, to find exchanged ids and wrong signs"""
    scan: bool = False
    """doctor: ping at every baud rate, in both protocols, on every port: who is there?"""
    json: str | None = None
    """doctor: also write the findings to this file"""
    actions: str | None = None
    """replay: what to play: an .npz of --record_actions, or the folder of a LeRobotDataset"""
    dataset_episode: int = 0
    """replay: which of the dataset's episodes"""
    metrics_port: int | None = None
    """figures for Prometheus at http://HOST:PORT/metrics; 0: any free port, which is printed; not given: none"""
    metrics_host: str = "127.0.0.1"
    """address that metrics_port is opened at"""
    log_format: Literal["text", "json"] = "text"
    """serve, run, eval, record, teleop, replay: what is told, as text, or as one JSON object a line"""
    view: str | None = None
    """watch in Rerun: viewer (a window), web (a browser), or FILE.rrd; a bare --view is --view=viewer"""
    view_hz: float = 10.0
    """pictures of each camera that a view gets per second, at most"""

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATIONS:
            raise ValueError(f"aggregate: found {self.aggregate!r}; accepted: {', '.join(AGGREGATIONS)}")
        if not 0 <= self.chunk_size_threshold <= 1:
            raise ValueError(f"chunk_size_threshold: found {self.chunk_size_threshold:g}; accepted: 0 to 1")
        if self.workers != "auto" and not (self.workers.isdecimal() and int(self.workers) > 0):
            raise ValueError(f"workers: found {self.workers!r}; accepted: a number of at least 1, or auto")
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("ray_address: is for --engine=ray")
        if self.execution_horizon is not None and self.execution_horizon < 1:
            raise ValueError(f"execution_horizon: found {self.execution_horizon}; must be at least 1")
        if self.failures < 0:
            raise ValueError(f"failures: found {self.failures}; must not be negative")
        if unknown := [name for name in self.allow if name not in ALLOWANCES]:
            raise ValueError(f"allow: found {', '.join(unknown)}; accepted: {', '.join(ALLOWANCES)}")
        if self.batch_wait_ms < 0:
            raise ValueError(f"batch_wait_ms: found {self.batch_wait_ms:g}; must not be negative")
        if self.action_noise < 0:
            raise ValueError(f"action_noise: found {self.action_noise:g}; must not be negative")
        if self.dataset_action not in COLUMNS:
            raise ValueError(f"dataset_action: found {self.dataset_action!r}; accepted: {', '.join(COLUMNS)}")
        for key in (
            "request_timeout_s",
            "start_timeout_s",
            "lost_after_s",
            "episodes",
            "action_noise_ticks",
            "virtual_batch",
        ):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: found {getattr(self, key):g}; must be positive")
        for key, least in (("flight_minutes", 0.1), ("flight_gb", 0.1)):
            if not getattr(self, key) >= least:
                raise ValueError(f"{key}: found {getattr(self, key):g}; must be at least {least:g}")
        if self.record_flight is not None and (self.sweep or self.workers != "1" or self.engine != "local"):
            raise ValueError("record_flight: records one robot node; leave out workers, engine and sweep")
        if self.metrics_port is not None and not 0 <= self.metrics_port < 65536:
            raise ValueError(f"metrics_port: found {self.metrics_port}; accepted: 0 to 65535")
        if self.view not in (None, "viewer", "web") and not str(self.view).endswith(".rrd"):
            raise ValueError(f"view: found {self.view!r}; accepted: viewer, web, FILE.rrd")
        if self.view_hz <= 0:
            raise ValueError(f"view_hz: found {self.view_hz:g}; must be positive")
        if self.resume and self.output_dir is None:
            raise ValueError("resume: needs output_dir, the folder to go on with")
        LatencyModel.parse(self.latency)

    @property
    def endpoints(self) -> list[str]:
        """`connect`, one or several."""
        return [endpoint.strip(" '\"") for endpoint in self.connect.strip("[]").split(",") if endpoint.strip()]

    @property
    def cell(self) -> Cell:
        """The settings that a sweep varies."""
        return Cell(self.latency, self.aggregate, self.chunk_size_threshold, self.execution_horizon)

    @property
    def loop(self) -> LoopConfig:
        return LoopConfig(
            aggregate=self.aggregate,
            chunk_size_threshold=self.chunk_size_threshold,
            starvation=self.starvation,
            execution_horizon=self.execution_horizon,
            request_timeout_s=self.request_timeout_s,
            start_timeout_s=self.start_timeout_s,
            lost_after_s=self.lost_after_s,
            max_ticks=self.max_ticks,
        )


def parse(command: str, arguments: list[str]) -> Config:
    """The config of a command line; prints what is wrong and exits with status 2 if it cannot be read."""
    complaint = io.StringIO()
    try:
        arguments = _normalised(merge_parts(merge_parts(arguments), "teleop.arm.parts"))
        if {"-h", "--help"} & {*arguments}:
            return draccus.parse(Config, args=arguments, prog=f"tactus {command}")
        with without_replaced_choices(arguments) as arguments, contextlib.redirect_stderr(complaint):
            return draccus.parse(Config, args=arguments, prog=f"tactus {command}")
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [line.partition("error: ")[2] for line in complaint.getvalue().splitlines() if "error: " in line]
        _fail(command, _with_suggestions(lines[-1] if lines else complaint.getvalue(), complaint.getvalue()))
    except (DecodingError, ParsingError, ValueError, TypeError, KeyError, LatencyError, OSError, YAMLError) as error:
        while "Couldn't instantiate class" in str(error) and error.__cause__ is not None:
            error = error.__cause__  # draccus wraps what a config class itself complains about
        _fail(command, str(error).strip() + _accepted(str(error)))


def _fail(command: str, reason: str) -> NoReturn:
    print(f"tactus {command}: {reason}\n(`tactus {command} --help` lists every key)", file=sys.stderr)
    raise SystemExit(2)


def _accepted(complaint: str) -> str:
    """draccus names the fields it does not know in a file; say which there are."""
    named = re.search(r"not valid for (\w+)", complaint)
    registries = (RobotConfig, PolicyConfig, TeleoperatorConfig)
    choices = [*(choice for registry in registries for choice in registry.get_known_choices().values()), Config]
    for choice in choices:
        if named and choice.__name__ == named[1]:
            return f"; known: {', '.join(f.name for f in dataclasses.fields(choice))}"
    return ""


def _normalised(arguments: list[str]) -> list[str]:
    """Short forms in full: `--video` is `--video=true`, `--view` is `--view=viewer`, `--allow NAME` is
    `--allow=[NAME]`, `--policy=NAME` is `--policy.type=NAME`; a checkpoint's path needs no type, and without a config
    file robot, policy and teleop have defaults.
    """
    switches = {f"--{f.name}" for f in dataclasses.fields(Config) if f.type in ("bool", bool)}
    arguments = [
        f"{a}=true" if a in switches and not _value_follows(arguments, i) else a for i, a in enumerate(arguments)
    ]
    arguments = ["--sweep.default=true" if a == "--sweep" else a for a in arguments]
    arguments = [
        "--view=viewer" if a == "--view" and "".join(arguments[i + 1 : i + 2])[:2] in ("", "--") else a
        for i, a in enumerate(arguments)
    ]
    arguments = re.sub(r"(^|\0)--allow[=\0](\w+)", r"\1--allow=[\2]", "\0".join(arguments)).split("\0")
    arguments = [re.sub(r"^--(robot|policy)=(\w+)$", r"--\1.type=\2", a) for a in arguments if a]
    configured = any(a.startswith("--config_path") for a in arguments)
    teleop = "leader" if any(a.startswith("--teleop.arm") for a in arguments) else "keyboard"
    for section, kind in (("robot", "libero"), ("policy", "expert"), ("teleop", teleop)):
        named = any(a.startswith(f"--{section}.type") for a in arguments)
        path = next((a for a in arguments if a.startswith(f"--{section}.path")), None)
        if section == "policy" and path and not named and not _path(arguments, path).endswith(".npz"):
            arguments.append("--policy.type=lerobot")
        elif not configured and not named and any(a.startswith(f"--{section}.") for a in arguments):
            arguments.append(f"--{section}.type={kind}")
    return arguments


def _path(arguments: list[str], argument: str) -> str:
    """The value of `--policy.path=VALUE` or `--policy.path VALUE`."""
    _, equals, value = argument.partition("=")
    return value if equals else "".join(arguments[arguments.index(argument) + 1 :][:1])


def _value_follows(arguments: list[str], index: int) -> bool:
    return index + 1 < len(arguments) and arguments[index + 1].lower() in ("true", "false")


def _with_suggestions(complaint: str, usage: str) -> str:
    """argparse's complaint; for a key it does not know, the nearest ones, or all of its section."""
    if "unrecognized arguments" not in complaint:
        return complaint
    unknown = re.findall(r"--[\w.]+", complaint.partition("unrecognized arguments:")[2])
    known = sorted({*re.findall(r"--[a-z_.0-9]+", usage)} - {*unknown})
    hints = []
    for word in unknown:
        section, _, name = word.rpartition(".")
        siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
        close = [siblings[match] for match in difflib.get_close_matches(name, siblings, 3, 0.6)]
        near = close or [*siblings.values()] or known
        hints.append(f"unknown key {word}; {'did you mean' if close else 'known:'} {', '.join(near)}")
    return "\n".join(hints) or complaint
