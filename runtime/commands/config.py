"""The config of each command, made of the key groups that it uses and keys of its own."""

from __future__ import annotations

import re
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

import tactus.hal.backends
import tactus.policies.builtin
import tactus.runtime.person.config
from tactus.hal.config import (
    Config,
    Count,
    FilePath,
    Names,
    NotNegative,
    Positive,
    Seconds,
    SecondsOrZero,
    Written,
)
from tactus.hal.teleop.config import KeyboardConfig
from tactus.hal.teleop.teleoperator import TeleoperatorConfig
from tactus.hal.twin.config import TwinConfig
from tactus.hal.wrappers.disturbance import Disturbance
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.policy import PolicyConfig
from tactus.policies.rl.config import ExploreConfig, PracticeConfig
from tactus.runtime.bridges.config import Bridges
from tactus.runtime.commands.key_groups import (
    Attended,
    Bare,
    Compared,
    Connection,
    DatasetKeys,
    Intervening,
    Monitoring,
    OpenConnection,
    OutputFile,
    OutputFolder,
    PolicyKeys,
    Positional,
    Resumable,
    RobotCommand,
    RobotKeys,
    Seed,
    Timing,
)
from tactus.runtime.lab.config import SweepConfig
from tactus.runtime.policy_node.limits import BATCH_WAIT_MS, LimitsConfig
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.wire.config import (
    RAW,
    Allowance,
    ClientCurve,
    Endpoint,
    ServerCurve,
    WireConfig,
    endpoints_of,
)

REGISTERED = (tactus.hal.backends, tactus.policies.builtin, tactus.runtime.person.config)


def _workers(value: str) -> str:
    if value != "auto" and not (value.isdecimal() and int(value) > 0):
        raise ValueError(f"found {value!r}; accepted: a number of at least 1, or auto")
    return value


def _layers(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(
            f"found {value!r}; accepted: none, blocks, all, or a regular expression of module paths ({error})"
        ) from error
    return value


class Serve(Bridges, PolicyKeys, Monitoring):
    """Policy node."""

    connect: str = "tcp://127.0.0.1:5555"
    """where to listen"""
    curve: ServerCurve = field(default_factory=ServerCurve)
    """encryption: this node's key, and whom it trusts"""
    insecure: bool = False
    """allow an address for other machines without keys: anybody there can drive the robots"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between robot and policy to accept: image_size (its own preprocessing copes), robot"""
    batch_wait_ms: NotNegative = BATCH_WAIT_MS
    """how long an observation may wait for other robots' to share a forward pass, if its robot can afford it"""
    virtual_batch: Count = 1
    """how many robots in virtual time share a forward pass; with 1 no company changes a bit of their actions"""
    latency_trace: OutputFile | None = None
    """add each answer's latency to this file, for --latency=trace:FILE; run writes OUTPUT_DIR/latency.trace"""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """what one robot may ask of the node"""
    explore: ExploreConfig | None = None
    """have a flow policy explore for a learner, or begin at what it has learned of its noise"""
    weights_from: str | None = None
    """whose new weights it takes while it serves: a key's name; anybody, on this machine only; not given: nobody's"""
    swaps_from: str | None = None
    """who may have another policy answer, by `tactus swap`: a key's name; anybody, on this machine; not given: none"""
    shadow: PolicyConfig | None = None
    """a second policy, same keys as policy: sees what that one sees, acts on nothing, and is compared with it"""
    shadow_report: OutputFile | None = None
    """write how far the shadow would have gone elsewhere to this file, as JSON"""


class Run(Intervening, Compared, Attended, Resumable, Timing, Disturbance, OpenConnection, RobotCommand):
    """Fallback."""

    fallback_after_s: Seconds = 0.5
    """connect=[ONE,TWO]: TWO goes on when ONE has been silent for so long; or owes a chunk for request_timeout_s"""
    return_after_s: Seconds = 5.0
    """and ONE again, when it has answered without a break for so long"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({*self.endpoints}) != len(self.endpoints):
            raise ValueError(f"connect: found {self.connect}; accepted: an address once, in the order of preference")


class Eval(Compared, Resumable, Timing, Disturbance, OpenConnection, RobotCommand):
    """Workers and sweeps."""

    sweep: Annotated[SweepConfig, Bare({"default": True})] = field(default_factory=SweepConfig)
    """a grid of settings to compare on the same episodes; a bare --sweep is --sweep.default=true"""
    workers: Annotated[str, AfterValidator(_workers)] = "1"
    """robot nodes, each in a process of its own, that share the episodes; auto measures one and chooses"""
    engine: Literal["local", "ray"] = "local"
    """where workers are: on this machine, or on a Ray cluster (install tactus[cluster])"""
    ray_address: str | None = None
    """--engine=ray: the cluster, auto or ray://HOST:PORT; not given: one is started on this machine"""
    failures: Annotated[int, Field(ge=0, le=10**6)] = 8
    """--sweep: failed episodes to play once more for the report's pictures, if the robot has a camera"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("ray_address: is for --engine=ray")
        if self.record_flight is not None and self.shared:
            raise ValueError("record_flight: records one robot node; leave out workers, engine and sweep")
        if self.policies and self.shared:
            raise ValueError(
                "policies: is for one worker without a sweep; sweep.policy has several policies play the same episodes"
            )

    @property
    def shared(self) -> bool:
        """Whether robot nodes in processes of their own play the episodes."""
        return bool(self.sweep) or self.workers != "1" or self.engine != "local"


class Record(Intervening, DatasetKeys, Attended, Timing, Disturbance, OpenConnection, RobotCommand):
    """Time."""

    real_time: bool = False
    """on the wall clock, as run does; not given: in virtual time, as eval does"""
    dataset_frames: Literal["all", "corrections"] = "all"
    """with intervene: whole attempts, or only what the person did, each correction an episode"""

    def __post_init__(self) -> None:
        if self.dataset_frames == "corrections" and not self.intervene:
            raise ValueError("dataset_frames: corrections needs --intervene")
        if self.dataset_frames == "corrections" and self.successful_only:
            raise ValueError("successful_only: says nothing of corrections; leave one of them out")


class Teleop(DatasetKeys, Resumable, RobotCommand):
    """Teleoperation."""

    teleop: TeleoperatorConfig = field(default_factory=KeyboardConfig)
    """whose hand drives the robot: leader (another arm) or keyboard"""
    max_ticks: Count | None = None
    """end of an episode; not given: no limit"""


class Replay(Resumable, RobotCommand):
    """What is played."""

    actions: FilePath | None = None
    """what to play: an .npz of --record_actions, or the folder of a LeRobotDataset"""
    dataset_episode: Annotated[int, Field(ge=0, le=10**9)] = 0
    """which of the dataset's episodes"""
    max_ticks: Count | None = None
    """end of an episode; not given: that of the recording"""


class Calibrate(RobotKeys):
    """Calibration."""

    part: str | None = None
    """which part of a rig; not given: its only arm"""
    from_file: FilePath | None = None
    """write this file to the servos instead of finding out; --from=FILE"""
    check_joints: bool = True
    """have every joint moved once by name, to find exchanged ids and wrong signs"""


class Doctor(RobotKeys):
    """What is looked at."""

    teleop: TeleoperatorConfig = field(default_factory=KeyboardConfig)
    """the leader arm, if there is one"""
    scan: bool = False
    """ping at every baud rate, in both protocols, on every port: who is there?"""
    policy: PolicyConfig | None = None
    """judge this policy too, alone or on the robot that is given; a config file's alone is not looked at"""
    dataset_root: FilePath | None = None
    """folder of the LeRobotDataset that the policy was trained on: is what the robot sees within it?"""
    json: OutputFile | None = None
    """also write the findings to this file"""


class ReplayFlight(PolicyKeys):
    """Flight record."""

    file: Annotated[FilePath, Positional("FILE")] = field(kw_only=True)
    """what --record_flight wrote: a file, or its folder (each run in it is replayed)"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between record and policy to accept: image_size, robot"""


class Trace(PolicyKeys, RobotKeys):
    """Trace."""

    file: Annotated[OutputFile, Positional("FILE")] = field(kw_only=True)
    """where the trace goes; FILE.trace by custom"""
    observations: FilePath | None = None
    """what to trace: a flight record, a LeRobotDataset, an .npz, another trace; not given: an episode of the robot"""
    samples: Count = 4
    """how many observations, each with its chunk; of a robot, one whenever a chunk has been executed"""
    stride: Count = 1
    """every so many-th of the observations that were recorded"""
    episode: Annotated[int, Field(ge=0, le=10**9)] = 0
    """of the robot or the dataset"""
    seed: Seed = 1000
    """of the robot's episode, and of the policy's noise"""
    layers: Annotated[str, AfterValidator(_layers)] = "blocks"
    """what is kept of a network: none, blocks, all, or a regular expression of module paths"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between robot and policy to accept: image_size, robot"""


class Why(Config):
    """Flight record."""

    file: Annotated[FilePath, Positional("FILE")]
    """what --record_flight wrote: a file, or the folder"""
    tick: Annotated[int, Field(ge=0, le=10**9)]
    """of the episode, from 0"""
    episode: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """not given: the last one that has such a tick"""
    images: OutputFolder | None = None
    """write the pictures that the policy saw into this folder, as PNG"""


class Report(Config):
    """Report."""

    folder: Annotated[FilePath, Positional("FOLDER")]
    """output_dir of `tactus eval --sweep`, or of run, eval, record"""
    latency: str = ""
    """trace:FILE, round trips to recommend a setting for, in ms, one a line; or fixed:120ms; not given: the sweep's"""


class Compare(Config):
    """Traces."""

    a: Annotated[FilePath, Positional("A")] = field(kw_only=True)
    """a trace: what is right, or what you know"""
    b: Annotated[FilePath, Positional("B")] = field(kw_only=True)
    """the trace that is held to it, of any program"""
    again: FilePath | None = None
    """another trace of what A is: how far two runs of the same may differ; not given: by dtype"""
    policy: PolicyConfig | None = None
    """stage swap: runs again on A's observations with what differs in B: how far do its actions move?"""
    tolerance: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """a factor on every tolerance; what must be equal to the bit stays so"""
    json: OutputFile | None = None
    """also write the findings to this file"""
    seed: Seed = 1000
    """stage swap: of the policy's noise, if A does not have it"""
    html: OutputFile | None = None
    """also write them as a page with pictures to this file"""


class Offline(PolicyKeys):
    """What is compared."""

    dataset_root: FilePath | None = None
    """folder of the LeRobotDataset"""
    episodes: Annotated[list[Annotated[int, Field(ge=0, le=10**9)]], Field(min_length=1)] | None = None
    """numbers of its episodes, e.g. [0,3]; not given: all"""
    stride: Count | None = None
    """ask for a chunk at every so many frames; not given: the policy's n_action_steps, as a robot would"""
    range_check: bool = True
    """refuse predictions that are on another scale than the dataset's actions"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between dataset and policy to accept: image_size (its own preprocessing copes), robot"""
    seed: Seed = 1000
    """seed of the policy's noise; each frame has noise of its own"""
    output_dir: Annotated[FilePath, Written("folder", "outputs")] | None = None
    """where the report goes; not given: a new folder under outputs/"""


class HeldOut(Config):
    """Observations and trials."""

    observations: FilePath | None = None
    """a LeRobotDataset, flight record, .npz or trace; not given: what the teacher sees playing on the robot"""
    rollouts: Annotated[int, Field(ge=2, le=10**6)] = 20
    """episodes that the teacher plays, if it does"""
    max_observations: Count = 8192
    """kept of all these, evenly, at most"""
    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """share of their episodes that is not learnt from, but verified on"""
    trials: Annotated[int, Field(ge=0, le=10**6)] = 0
    """episodes that teacher and student both play on the robot, from seeds and scenes of their own; 0: none"""
    first_trial: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """number of the first of them; not given: the one after the rollouts"""
    trial_seed: Seed = 1000
    """of the robot, and of the policies' noise in rollouts and trials"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between robot or dataset and policy to accept: image_size, robot"""


class Distill(DistillationConfig, HeldOut, PolicyKeys, RobotKeys):
    """Output."""

    output_dir: Annotated[FilePath, Written("folder", "outputs")] | None = None
    """where the student goes, with pairs, report and state; not given: a new folder under outputs/"""
    resume: bool = False
    """go on with output_dir where it was interrupted: the same bits as without"""

    @property
    def training(self) -> DistillationConfig:
        """The training's part of it."""
        return DistillationConfig(**{key.name: getattr(self, key.name) for key in fields(DistillationConfig)})


class DistillVerify(HeldOut, PolicyKeys, RobotKeys):
    """Verification."""

    teacher: Annotated[FilePath, Positional("TEACHER")] = field(kw_only=True)
    """checkpoint of many denoising steps; what else both need: --policy.path=TEACHER --policy.device=cuda …"""
    student: Annotated[FilePath, Positional("STUDENT")] = field(kw_only=True)
    """checkpoint of few"""
    verify_seed: Seed = 0
    """of the noises"""
    output_dir: Annotated[FilePath, Written("folder", "outputs")] | None = None
    """where verify.json and report.html go; not given: a new folder under outputs/"""


class Relabel(PolicyKeys):
    """Recording and teacher."""

    dataset_root: FilePath | None = None
    """folder of the LeRobotDataset"""
    relabelled_root: Annotated[FilePath, Written("folder")] | None = None
    """folder of the new one; must not exist yet; not given: dataset_root with _relabelled after it"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between dataset and policy to accept: image_size (its own preprocessing copes), robot"""
    seed: Seed = 1000
    """seed of the policy's noise; each episode has noise of its own"""


class Train(Config):
    """Training with lerobot-train."""

    dataset_root: Annotated[list[FilePath], Names] = field(default_factory=list)
    """recordings to learn from, LeRobotDatasets: DIR, or [DIR,DIR] of several like each other"""
    output_dir: Annotated[FilePath, Written("folder", "outputs")] | None = None
    """where checkpoints, the joined data and the log go; not given: a new folder under outputs/"""
    resume: bool = False
    """go on with output_dir from its last checkpoint, with the settings it has"""
    type: str = "keypoints"
    """policy type: keypoints, which looks and is small; or one of LeRobot's: act, diffusion, smolvla, pi0, …"""
    begin_with: FilePath | None = None
    """a checkpoint of that type, whose weights training begins with; not given: with random ones"""
    cameras: Annotated[list[str], Names] | None = None
    """names of the cameras it is to look through; not given: all that were recorded"""
    environment_state: bool = False
    """let it read the objects' poses, which only a simulator knows"""
    steps: Count | None = None
    """optimiser steps; not given: 20000"""
    minutes: Positive | None = None
    """instead of steps: as many of them as fit into this time, by some that are timed first"""
    batch_size: Count = 64
    """frames in a step"""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda …"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 trains under autocast: on processors that have it, nearly twice as fast"""
    save_every: Count = 2000
    """steps between two checkpoints"""
    seed: Seed = 1000
    """of weights and order"""
    correction_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """how often a frame that a person corrected is drawn against a demonstration's; recordings of --intervene"""
    own_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """likewise, of frames that the policy drove itself in those recordings; 0 leaves out what it did"""
    lerobot: dict[str, Any] = field(default_factory=dict)
    """further keys of lerobot-train, e.g. {policy.chunk_size: 16, optimizer.lr: 1e-4}"""

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise ValueError("minutes: steps are given too; leave out one of them")


class Card(Config):
    """A training card."""

    checkpoint: Annotated[FilePath, Positional("CHECKPOINT")] = field(kw_only=True)
    """a checkpoint in an output_dir of tactus train"""
    results: Annotated[list[FilePath], Names] = field(default_factory=list)
    """output_dirs of tactus eval or run in which that checkpoint played: DIR, or [DIR,DIR]"""


class Rl(Resumable, Timing, PolicyKeys, RobotKeys):
    """Practice."""

    practice: PracticeConfig = field(default_factory=PracticeConfig)
    """how it is practised: method, rollouts, learning"""
    nodes: Endpoint | None = None
    """addresses of policy nodes that are there already, with explore and weights_from; not given: one is started"""
    curve: ClientCurve = field(default_factory=ClientCurve)
    """encryption: the learner's and the workers' key, and whom they trust"""
    wire: WireConfig = field(default_factory=WireConfig)
    """how observations travel: in frames or through shared memory; pictures as they are"""
    workers: Annotated[str, AfterValidator(_workers)] = "1"
    """robot nodes, each in a process of its own, that play the rollouts; auto: as `tactus plan` says"""
    one_process: bool = False
    """the policy node is a thread of the learner's process: one copy of the model instead of two"""
    engine: Literal["local", "ray"] = "local"
    """where workers are: on this machine, or on a Ray cluster (install tactus[cluster])"""
    ray_address: str | None = None
    """--engine=ray: the cluster, auto or ray://HOST:PORT; not given: one is started on this machine"""
    virtual_batch: Count = 1
    """rollouts that share a forward pass; with 1 their number changes no bit"""
    demonstrations: FilePath | None = None
    """a LeRobotDataset that is imitated beside the successes"""
    seed: Seed = 1000
    """of the robot: episode i begins alike in every run with this seed"""
    output_dir: Annotated[FilePath, Written("folder", "outputs")] | None = None
    """where checkpoints, curves, report and state go; not given: a new folder under outputs/"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("ray_address: is for --engine=ray")
        if self.wire.images != RAW:
            raise ValueError(
                f"wire.images: found {self.wire.images}; accepted: raw. What is learned from must be what was acted on"
            )

    @property
    def loop(self) -> LoopConfig:
        """The control loop's part of it."""
        return LoopConfig(**{key.name: getattr(self, key.name) for key in fields(LoopConfig)})

    @property
    def endpoints(self) -> list[str]:
        """`nodes`, one or several; none where they are not given."""
        return [] if self.nodes is None else endpoints_of(self.nodes)


class Plan(PolicyKeys, RobotKeys):
    """Rollouts."""

    rollouts: Annotated[int, Field(ge=1, le=10**6)] = 64
    """episodes of an iteration"""
    learner: bool = True
    """a learner trains beside: one more copy of the weights, gradients, AdamW's moments, activations"""
    minibatch: Count = 128
    """observations that the learner takes a gradient of at once"""
    seed: Seed = 1000
    """seed of the episodes that are played to measure"""
    allow: Annotated[list[Allowance], Names] = field(default_factory=list)
    """differences between robot and policy to accept: image_size, robot"""


class Stop(Connection):
    """Emergency stop."""

    reason: str = ""
    """what the robots will say; not given: who stopped them"""
    timeout_s: SecondsOrZero = 2.0
    """how long to wait for confirmations"""


class Swap(Connection):
    """Swap."""

    policy: PolicyConfig | None = None
    """what answers from then on, with paths as the node's machine has them; must be given"""
    robot: str = ""
    """session or name of the robots that it is for; not given: all, and those that come later"""
    timeout_s: SecondsOrZero = 600.0
    """how long to wait until it is loaded"""

    def __post_init__(self) -> None:
        if self.policy is None:
            raise ValueError("policy: not given; expected e.g. --policy.path=DIR of a checkpoint, or --policy.type=…")


class Keygen(Config):
    """Key pair."""

    name: Annotated[str, Positional("NAME")]
    """whose: the policy node's or a robot's, e.g. policy or left_arm; names the files"""
    output_dir: OutputFolder = "keys"
    """where the two files go"""


class Schema(Config):
    """Schema."""

    kind: Annotated[Literal["config", "twin"], Positional("[config|twin]")] = "config"
    """of the file that every command reads, or of the one that `tactus twin` reads"""


class Completion(Config):
    """Shell completion."""

    shell: Annotated[Literal["bash", "zsh", "fish"], Positional("bash|zsh|fish")]
    """whose script to print"""
    line: str | None = None
    """the command line so far: print what may follow instead; the scripts ask this"""


COMMANDS: dict[str, type] = {
    "serve": Serve,
    "run": Run,
    "eval": Eval,
    "record": Record,
    "teleop": Teleop,
    "replay": Replay,
    "calibrate": Calibrate,
    "doctor": Doctor,
    "stop": Stop,
    "swap": Swap,
    "twin": TwinConfig,
    "replay-flight": ReplayFlight,
    "why": Why,
    "trace": Trace,
    "report": Report,
    "compare": Compare,
    "offline": Offline,
    "relabel": Relabel,
    "train": Train,
    "card": Card,
    "distill": Distill,
    "distill-verify": DistillVerify,
    "rl": Rl,
    "plan": Plan,
    "keygen": Keygen,
    "schema": Schema,
    "completion": Completion,
}
SHARED = (
    *("serve", "run", "eval", "record", "teleop", "replay", "calibrate", "doctor", "replay-flight", "trace", "stop"),
    *("distill", "distill-verify", "rl", "plan"),
)
"""Commands that one YAML file serves; `twin` has a file of its own."""
