"""Keys that several commands share, in the groups that their help shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from tactus.hal.config import (
    Config,
    Count,
    FilePath,
    Names,
    Positive,
    SecondsOrZero,
    Written,
    expanded,
)
from tactus.hal.libero.config import LiberoConfig
from tactus.hal.robot import RobotConfig
from tactus.hal.teleop.config import KeyboardConfig
from tactus.hal.teleop.teleoperator import TeleoperatorConfig
from tactus.hal.wrappers.disturbance import Disturbance
from tactus.policies.policy import PolicyConfig
from tactus.policies.scripted.config import ExpertConfig
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.wire.config import (
    ClientCurve,
    Endpoint,
    Latency,
    WireConfig,
    endpoints_of,
)


@dataclass(frozen=True)
class Positional:
    """Marks a key that is given by its place on the command line. value: as the usage has it."""

    value: str


@dataclass(frozen=True)
class Bare:
    """Marks a key that may be given without a value. value: what that stands for."""

    value: Any


def _view(value: str) -> str:
    if value not in ("viewer", "web") and not value.endswith(".rrd"):
        raise ValueError(f"found {value!r}; accepted: viewer, web, FILE.rrd")
    return str(expanded(value)) if value.endswith(".rrd") else value


CONNECT = "tcp://127.0.0.1:5555"
Port = Annotated[int, Field(ge=0, le=65535)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
View = Annotated[str, Bare("viewer"), AfterValidator(_view), Written("file", but=("viewer", "web"))]
OutputFile = Annotated[FilePath, Written("file")]
OutputFolder = Annotated[FilePath, Written("folder")]


class RobotKeys(Config):
    """Robot."""

    robot: RobotConfig = field(default_factory=LiberoConfig)
    """what is observed and acted on"""


class PolicyKeys(Config):
    """Policy."""

    policy: PolicyConfig = field(default_factory=ExpertConfig)
    """what decides; --policy.path=DIR alone is a LeRobot checkpoint"""


class Connection(Config):
    """Connection to the policy node."""

    connect: Endpoint = CONNECT
    """where the policy node listens; [ONE,TWO]: run falls back to TWO, eval's workers share them out"""
    curve: ClientCurve = field(default_factory=ClientCurve)
    """encryption: this robot's key, and whom it obeys"""

    @property
    def endpoints(self) -> list[str]:
        """`connect`, one or several."""
        return endpoints_of(self.connect)


class OpenConnection(Connection):
    """Connection to the policy node."""

    insecure: bool = False
    """allow an address on another machine without keys: anybody there can drive the robot"""
    wire: WireConfig = field(default_factory=WireConfig)
    """how observations travel: pictures as they are or as JPEG, in frames or through shared memory"""


class Monitoring(Config):
    """Logs and metrics."""

    log_format: Literal["text", "json"] = "text"
    """what is told, as text, or as one JSON object a line"""
    metrics_port: Port | None = None
    """figures for Prometheus at http://HOST:PORT/metrics; 0: any free port, which is printed; not given: none"""
    metrics_host: str = "127.0.0.1"
    """address that metrics_port is opened at"""


class Watching(Monitoring):
    """View."""

    view: View | None = None
    """watch: viewer (a window), web (a browser), or FILE.rrd; a bare --view is --view=viewer"""
    view_hz: Positive = 10.0
    """pictures of each camera that a view gets per second, at most"""
    page: Port | None = None
    """the robot's page for a browser, with an emergency stop, at http://HOST:PORT/; 0: any free port, printed"""
    page_host: str = "127.0.0.1"
    """address that the page is opened at; one that other machines reach has a key, which is printed"""
    page_key: Annotated[FilePath, Written("file")] | None = None
    """file of the page's key, made if it is not there; not given: a new key each run, and none on 127.0.0.1"""
    foxglove: Port | None = None
    """the run for Foxglove, live, at ws://HOST:PORT; 0: any free port, which is printed"""
    foxglove_host: str = "127.0.0.1"
    """address for Foxglove; whoever reaches it sees all, so another than this machine's needs --insecure"""
    page_hz: Annotated[Positive, Field(le=60)] = 10.0
    """pictures of each camera that the page and Foxglove get per second, at most"""


class FlightRecording(Config):
    """Flight recorder."""

    record_flight: OutputFolder | None = None
    """folder of a flight record: every message, tick, action and fault, to replay"""
    flight_minutes: Annotated[float, Field(ge=0.1, le=1e6)] = 10.0
    """how much of the past the flight record keeps"""
    flight_gb: Annotated[float, Field(ge=0.1, le=1e6)] = 4.0
    """how large the flight record may become, in GB; this bound wins"""


class Episodes(Config):
    """Episodes and results."""

    episodes: Count = 10
    """how many episodes"""
    seed: Seed = 1000
    """seed of everything random; episode i is the same episode in every run with this seed"""
    output_dir: Annotated[FilePath, Written("folder", "outputs")] | None = None
    """where results go; not given: a new folder under outputs/"""
    video: bool = False
    """film the first episode: OUTPUT_DIR/video.mp4"""
    record_actions: bool = False
    """also write OUTPUT_DIR/actions/episode_NNNNN.npz, which policy.type=replay plays"""


class RobotCommand(RobotKeys, Episodes, FlightRecording, Watching):
    """What every command has that drives a robot through episodes. The constants stand for keys that some lack."""

    resume: ClassVar[bool] = False
    attended: ClassVar[bool | None] = None
    latency: ClassVar[str] = "fixed:0"
    max_ticks: ClassVar[int | None] = None
    wire: ClassVar[WireConfig] = WireConfig()
    policies: ClassVar[list[str]] = []
    alpha: ClassVar[float] = 0.05
    stop_when_decided: ClassVar[bool] = False
    insecure: ClassVar[bool] = False

    @property
    def robot_settings(self) -> dict[str, Any]:
        """The robot's type and keys, for results and records."""
        robot: Any = self.robot
        return {"type": RobotConfig.get_choice_name(type(robot)), **asdict(robot)}

    @property
    def cell(self) -> dict[str, Any]:
        """The settings that a sweep varies."""
        loop = self.loop
        axes = ("aggregate", "chunk_size_threshold", "execution_horizon")
        return {"latency": self.latency, **{name: getattr(loop, name) for name in axes}}

    @property
    def loop(self) -> LoopConfig:
        """The control loop's part of it."""
        return self._part(LoopConfig)

    @property
    def disturbance(self) -> Disturbance:
        """What is done to the robot besides."""
        return self._part(Disturbance)

    def _part[T: Config](self, kind: type[T]) -> T:
        given: Any = kind
        return kind(**{key.name: getattr(self, key.name) for key in fields(given) if hasattr(self, key.name)})


class Resumable(Config):
    """Episodes and results."""

    resume: bool = False
    """go on with the results in output_dir"""

    def __post_init__(self) -> None:
        if self.resume and getattr(self, "output_dir", None) is None:
            raise ValueError("resume: needs output_dir, the folder to go on with")


class Timing(LoopConfig):
    """Latency."""

    latency: Latency = "fixed:0"
    """fixed:TICKS, measured, lognormal:TICKS[,sigma=S] or trace:FILE, with [,drop=P][,reorder=P]"""


class Attended(Config):
    """Episodes and results."""

    attended: bool | None = None
    """a person begins each episode with Enter and judges it with s or f; not given: if nobody else can"""


class Intervening(Config):
    """Interventions."""

    intervene: bool = False
    """a person may take over from the policy and hand back: i or Tab, or a leader that is moved"""
    teleop: TeleoperatorConfig = field(default_factory=KeyboardConfig)
    """whose hand it is: leader (another arm), keyboard, or scripted, in simulation"""
    meet_s: SecondsOrZero = 1.0
    """time in which robot and hand meet where the hand is elsewhere when it takes over"""


class Compared(Config):
    """A/B comparison."""

    policies: Annotated[list[str], Names] = field(default_factory=list)
    """addresses of two policy nodes, [ONE,TWO], instead of connect: episodes are drawn to either, blind"""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """how often a comparison of equally good policies may be decided, however often it is looked at"""
    stop_when_decided: bool = False
    """end the run as soon as the comparison is decided"""

    def __post_init__(self) -> None:
        super().__post_init__()  # pyright: ignore[reportAttributeAccessIssue] - of what it is mixed with
        if self.policies and len({*self.policies}) != 2:
            raise ValueError(f"policies: found {len(self.policies)}; accepted: two addresses, [ONE,TWO], not the same")
        if self.policies and getattr(self, "connect", CONNECT) != CONNECT:
            raise ValueError("policies: has the addresses of the policy nodes; leave out connect")
        if self.stop_when_decided and not self.policies:
            raise ValueError("stop_when_decided: is for a comparison; give policies, [ONE,TWO]")


class DatasetKeys(Config):
    """Dataset."""

    dataset_root: OutputFolder | None = None
    """folder of the LeRobotDataset; must not exist yet"""
    dataset_cameras: Annotated[list[str], Names] | None = None
    """names of the cameras to keep, e.g. [image2]; not given: all"""
    dataset_video: bool = True
    """keep pictures as mp4; false: one by one, inside the parquet files, without loss"""
    dataset_action: Literal["sent", "requested"] = "sent"
    """what the column `action` holds, which training imitates: sent, or requested (before noise and limits)"""
    successful_only: bool = False
    """forget the episodes that fail"""
