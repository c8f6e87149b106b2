"""What drives a robot through its episodes: a policy behind a link, or a person's hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from tactus.hal.fence import Fence
from tactus.hal.robot import Robot
from tactus.hal.spec import PolicySpec, SpecError
from tactus.hal.teleop import Teleoperator
from tactus.hal.teleop.keyboard import Keyboard
from tactus.hal.wrappers.attended import HINT, AttendedRobot
from tactus.runtime.commands.config import Eval, Record, Replay, Run, Teleop
from tactus.runtime.commands.terminal_keys import Taker
from tactus.runtime.robot_node.clock import Clock, RealClock
from tactus.runtime.robot_node.control_loop import ControlLoop
from tactus.runtime.robot_node.node import AnyLink, RobotNode
from tactus.runtime.robot_node.teleop_node import TeleopNode
from tactus.runtime.wire.keys import client_keys
from tactus.runtime.wire.link import Link, Tap

Say = Callable[[str], None]
Timing = Callable[[float, Link], tuple[Clock, AnyLink]]
"""fps and the wire -> the clock to run on and the link as seen in that clock's time."""


@dataclass(frozen=True)
class Driver:
    """robot: as it is driven. policy: what decides, for handshake and results. node: the loop that will run. close: let
    go of the wire.

    by_hand: whether a person drives, in simulation too. key: gets a key of the terminal before the emergency stop does,
    and says whether it was for it. attended: called once `node` exists and somebody is at the terminal, or may be at
    the page; returns what to tell them of the keys. keys: those of `key` that the page has buttons for.
    """

    robot: Robot
    policy: PolicySpec
    clock: Clock
    node: Callable[[Say], ControlLoop]
    close: Callable[[], None]
    by_hand: bool = False
    key: Taker = lambda pressed: False
    attended: Callable[[], str] = lambda: "space, q or Esc: emergency stop"
    keys: str = ""


Drive = Callable[[Robot, Tap, Say], Driver]
"""The tap is told of every message on the wire, if there is one; Say, what is waited for before there is a node."""


def by_policy(config: Run | Eval | Record, timing: Timing) -> Drive:
    """A policy node at `config.connect`. The Drive raises what Link.hello raises, and SpecError for hardware that
    would be driven in virtual time.
    """

    def drive(robot: Robot, tap: Tap, say: Say) -> Driver:
        def waiting(for_s: float) -> None:
            say(f"waiting for the policy node at {config.connect}: {for_s:.0f} s")

        link = Link(config.connect, keys=client_keys(config.curve), insecure=config.insecure, wire=config.wire)
        link.tap, link.say = tap, say
        try:
            clock, timed_link = timing(robot.spec.fps, link)
            real = isinstance(clock, RealClock)
            if (robot.wall_time or config.attended) and not real:
                why = "is attended" if config.attended else "lives in real time"
                raise SpecError(f"robot: {robot.spec.name} {why}; use tactus run, or record --real_time")
            policy = link.hello(robot.spec, config.loop.first_wait_s, real, waiting)
        except BaseException:
            link.close()
            raise

        def node(say: Say) -> RobotNode:
            if attended is not None:
                attended.say = say
            return RobotNode(attended or robot, policy, timed_link, clock, config.loop, say=say)

        attended = AttendedRobot(robot) if _is_attended(config, robot) else None
        if attended is None:
            return Driver(robot, policy, clock, node, link.close)
        hint = f"keys: {HINT}; space, q or Esc: emergency stop"
        return Driver(attended, policy, clock, node, link.close, False, attended.press, lambda: hint, "\rsf")

    return drive


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
        with Fence("teleop", "making it"):
            teleoperator = make()
        with Fence("teleop", "connect"):
            teleoperator.connect(robot.spec)
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
        return Driver(robot, policy, clock, node, close, True, key, attended, "\r")

    return drive
