"""What drives a robot through its episodes: a policy behind a link, or a person's hand."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tactus.hal.fence import Fence
from tactus.hal.robot import Robot
from tactus.hal.spec import PolicySpec, SpecError
from tactus.hal.teleop import Teleoperator, TeleoperatorConfig
from tactus.hal.teleop.keyboard import Keyboard
from tactus.hal.wrappers.attended import HINT, AttendedRobot
from tactus.runtime.commands.config import Eval, Record, Replay, Run, Teleop
from tactus.runtime.commands.policy_links import comparison_of, links_of
from tactus.runtime.commands.terminal_keys import Taker
from tactus.runtime.evaluation.ab_comparison import Comparison
from tactus.runtime.robot_node.clock import Clock, RealClock
from tactus.runtime.robot_node.control_loop import ControlLoop
from tactus.runtime.robot_node.intervention import Intervention
from tactus.runtime.robot_node.node import AnyLink, RobotNode
from tactus.runtime.robot_node.teleop_node import TeleopNode
from tactus.runtime.robot_node.watcher import PERSON
from tactus.runtime.wire.link import Tap, TimedLink

TAKE_OVER = ("i", "\t")
"""Keys with which a person takes over, and hands back."""
Say = Callable[[str], None]
Timing = Callable[[float, TimedLink], tuple[Clock, AnyLink]]
"""fps and the wire -> the clock to run on and the link as seen in that clock's time."""


@dataclass(frozen=True)
class Driver:
    """robot: as it is driven. policy: what decides, for handshake and results. node: the loop that will run. close: let
    go of the wire.

    by_hand: whether a person drives, or may, in simulation too. key: gets a key of the terminal before the emergency
    stop does, and says whether it was for it. attended: called once `node` exists and somebody is at the terminal, or
    may be at the page; returns what to tell them of the keys. comparison: of the two policies that drive in turn, if
    there are two. keys: those of `key` that the page has buttons for.
    """

    robot: Robot
    policy: PolicySpec
    clock: Clock
    node: Callable[[Say], ControlLoop]
    close: Callable[[], None]
    by_hand: bool = False
    key: Taker = lambda pressed: False
    attended: Callable[[], str] = lambda: "space, q or Esc: emergency stop"
    comparison: Comparison | None = None
    keys: str = ""


Drive = Callable[[Robot, Tap, Say], Driver]
"""The tap is told of every message on the wire, if there is one; Say, what is waited for before there is a node."""


def by_policy(config: Run | Eval | Record, timing: Timing) -> Drive:
    """A policy node at `config.connect`. The Drive raises what Link.hello raises, and SpecError for hardware that
    would be driven in virtual time.
    """

    def drive(robot: Robot, tap: Tap, say: Say) -> Driver:
        def waiting(for_s: float) -> None:
            say(f"waiting for the policy node at {config.policies or config.connect}: {for_s:.0f} s")

        open_ones = contextlib.ExitStack()
        with open_ones:
            link = links_of(config, robot, tap, say)
            open_ones.callback(link.close)
            clock, timed_link = timing(robot.spec.fps, link)
            real = isinstance(clock, RealClock)
            if (robot.wall_time or config.attended) and not real:
                why = "is attended" if config.attended else "lives in real time"
                raise SpecError(f"robot: {robot.spec.name} {why}; use tactus run, or record --real_time")
            person = None
            if not isinstance(config, Eval) and config.intervene:
                person = _Person(config, robot, real)
                open_ones.callback(person.close)
            policy = link.hello(robot.spec, config.loop.first_wait_s, real, waiting)
            comparison = comparison_of(config, robot, link)
            close = open_ones.pop_all().close

        attended = AttendedRobot(robot) if _is_attended(config, robot) else None

        def node(say: Say) -> RobotNode:
            if attended is not None:
                attended.say = say
            beside = person and person.intervention
            return RobotNode(attended or robot, policy, timed_link, clock, config.loop, say=say, person=beside)

        def key(pressed: str) -> bool:
            return (person is not None and person.press(pressed)) or (attended is not None and attended.press(pressed))

        hints = [*([person.hint] if person else []), *([HINT] if attended else [])]
        hint = "; ".join([*(["keys: " + "; ".join(hints)] if hints else []), "space, q or Esc: emergency stop"])
        shown, buttons = attended or robot, ("\rsf" if attended else "") + (TAKE_OVER[0] if person else "")
        return Driver(shown, policy, clock, node, close, person is not None, key, lambda: hint, comparison, buttons)

    return drive


class _Person:
    """Whoever may take over from a policy, and the keys for that: those of the keyboard that drives come first."""

    def __init__(self, config: Run | Record, robot: Robot, real: bool) -> None:
        if config.teleop.wall_time and not real:
            kind = TeleoperatorConfig.get_choice_name(type(config.teleop))
            raise SpecError(
                f"teleop: {kind} is a hand, which lives in real time; use tactus run, or record --real_time"
            )
        self._teleoperator = _connected(config.teleop.make, robot)
        self.intervention = Intervention(self._teleoperator, robot.spec, config.meet_s)
        self.hint = f"{TAKE_OVER[0]} or Tab: take over, hand back"
        if self._teleoperator.hint:
            self.hint += f" ({self._teleoperator.hint})"

    def press(self, key: str) -> bool:
        hand = self._teleoperator
        if self.intervention.driver == PERSON and isinstance(hand, Keyboard) and hand.press(key):
            return True
        if key in TAKE_OVER:
            self.intervention.press()
        return key in TAKE_OVER

    def close(self) -> None:
        with Fence("teleop", "close"):
            self._teleoperator.close()


def _connected(make: Callable[[], Teleoperator], robot: Robot) -> Teleoperator:
    with Fence("teleop", "making it"):
        teleoperator = make()
    with Fence("teleop", "connect"):
        teleoperator.connect(robot.spec)
    return teleoperator


def _is_attended(config: Run | Eval | Record, robot: Robot) -> bool:
    """Whether a person begins and judges the episodes: asked for, or nobody else can and there is a terminal
    or a page."""
    if config.attended is not None:
        return config.attended
    return robot.wall_time and robot.outcome() is None and (sys.stdin.isatty() or config.page is not None)


def by_hand(config: Teleop | Replay, make: Callable[[], Teleoperator], name: str, asks: bool = False) -> Drive:
    """A teleoperator, on the wall clock. name: what stands for the policy in results. asks: whether episodes begin
    only when the person says so, if there is one at a terminal. The Drive raises what `make` and `connect` raise.
    """

    def drive(robot: Robot, tap: Tap, say: Say) -> Driver:
        teleoperator = _connected(make, robot)
        clock = RealClock(robot.spec.fps)
        nodes: list[TeleopNode] = []

        def node(say: Say) -> TeleopNode:
            nodes.append(TeleopNode(robot, teleoperator, clock, config.max_ticks, say))
            return nodes[-1]

        def key(pressed: str) -> bool:
            if pressed in "\r\n":
                nodes[-1].enter()
                return True
            return isinstance(teleoperator, Keyboard) and teleoperator.press(pressed)

        def attended() -> str:
            nodes[-1].asks = asks
            stops = "space or Esc" if isinstance(teleoperator, Keyboard) else "space, q or Esc"
            hint = f"{teleoperator.hint}; " if teleoperator.hint else ""
            return f"keys: {hint}Enter ends the episode; {stops}: emergency stop"

        def close() -> None:
            with Fence("teleop", "close"):
                teleoperator.close()

        policy = PolicySpec(name, {}, robot.spec.action, 1)
        return Driver(robot, policy, clock, node, close, True, key, attended, keys="\r")

    return drive
