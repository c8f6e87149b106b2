"""What drives a robot through its episodes: a policy behind a link, or a person's hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hal.robot import Robot
from hal.spec import PolicySpec, SpecError
from hal.teleop import Teleoperator
from hal.teleop.keyboard import Keyboard
from runtime.clock import Clock, RealClock
from runtime.commands.config import Config
from runtime.evaluate import Node
from runtime.link import Link
from runtime.robot_node import AnyLink, RobotNode
from runtime.teleop_node import TeleopNode

Say = Callable[[str], None]
Timing = Callable[[float, Link], tuple[Clock, AnyLink]]
"""fps and the wire -> the clock to run on and the link as seen in that clock's time."""


@dataclass(frozen=True)
class Driver:
    """policy: what decides, for handshake and results. node: the loop that will run. close: let go of the wire.

    keys: whether the terminal's keys are free for the emergency stop.
    """

    policy: PolicySpec
    clock: Clock
    node: Callable[[Say], Node]
    close: Callable[[], None]
    keys: bool = True


Drive = Callable[[Robot], Driver]


def by_policy(config: Config, timing: Timing) -> Drive:
    """A policy node at `config.connect`. The Drive raises what Link.hello raises, and SpecError for hardware that
    would be driven in virtual time.
    """

    def drive(robot: Robot) -> Driver:
        link = Link(config.connect)
        try:
            clock, timed_link = timing(robot.spec.fps, link)
            real = isinstance(clock, RealClock)
            if robot.wall_time and not real:
                raise SpecError(f"robot: {robot.spec.name} lives in real time; use tactus run, or record --real_time")
            policy = link.hello(robot.spec, config.start_timeout_s, real_time=real)
        except BaseException:
            link.close()
            raise
        return Driver(
            policy, clock, lambda say: RobotNode(robot, policy, timed_link, clock, config.loop, say=say), link.close
        )

    return drive


def by_hand(config: Config, teleoperator: Teleoperator, name: str) -> Drive:
    """A teleoperator, on the wall clock. name: what stands for the policy in results."""

    def drive(robot: Robot) -> Driver:
        teleoperator.connect(robot.spec)
        clock = RealClock(robot.spec.fps)
        policy = PolicySpec(name, {}, robot.spec.action, 1)
        return Driver(
            policy,
            clock,
            lambda say: TeleopNode(robot, teleoperator, clock, config.max_ticks, say),
            teleoperator.close,
            keys=not isinstance(teleoperator, Keyboard),
        )

    return drive
