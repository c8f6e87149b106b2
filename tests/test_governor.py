"""The safety layer over a recording double: what reaches the hardware, what stops it, what is told."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hardware import FPS, HIGH, JOINTS, LOW, VELOCITY, FakeTime, RecordingHardware, lost
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.hal.governor.config import GovernorConfig, VitalsConfig
from tactus.hal.governor.drive import PERIODS
from tactus.hal.governor.governor import Governor
from tactus.hal.governor.health_monitor import HealthMonitor
from tactus.hal.governor.limiter import cast_within, limited
from tactus.hal.hardware import Health, Limits
from tactus.hal.rig.robot import Rig
from tactus.hal.robot import Command, RobotError
from tactus.hal.spec import SpecError

pytestmark = pytest.mark.realtime

MIDDLE = np.zeros(3, np.float32)


def action(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def wait_until(condition, timeout_s: float = 5.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.005)


class Stage:
    """A Governor on a clock that only the test moves."""

    def __init__(self, **config: object) -> None:
        self.time = FakeTime()
        self.hardware = RecordingHardware(self.time)
        self.governor = Governor(self.hardware, GovernorConfig(**config), self.time, self.time.sleep)

    def begin(self) -> Stage:
        self.governor.connect()
        self.governor.reset(0, 0)
        return self

    def tick(self, *values: float, **command: object) -> np.ndarray:
        self.time.now_s += 1 / FPS
        return self.governor.follow(Command(action(*values), **command))


@pytest.fixture
def stages() -> Iterator[type[Stage]]:
    made: list[Stage] = []

    class Made(Stage):
        def __init__(self, **config: object) -> None:
            super().__init__(**config)
            made.append(self)

    yield Made
    for stage in made:
        stage.hardware.errors.clear()
        stage.hardware.before = lambda name: None
        stage.governor.close()


# what reaches the hardware

wild = st.one_of(
    st.floats(-200, 200, width=32),
    st.floats(width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -100.0, 90.0]),
)
commands = st.tuples(
    st.tuples(wild, wild, wild),
    st.one_of(st.floats(0, 10), st.sampled_from([np.nan, np.inf, 4.0, 4.0001])),
    st.booleans(),
    st.one_of(st.floats(0, 0.2), st.sampled_from([0.0, 1 / FPS, 3.0, 30.0])),
)


@settings(max_examples=300)
@given(
    steps=st.lists(commands, max_size=20),
    start=st.tuples(st.floats(-110, 110), st.floats(-95, 95), st.floats(-5, 105)),
    on_stop=st.sampled_from(["off", "hold", "park"]),
    on_starved=st.sampled_from(["off", "hold", "park"]),
    start_pose=st.sampled_from([{}, {"shoulder_pan": 30.0, "gripper.pos": 100.0}]),
    gate=st.sampled_from([None, 0.5, 20.0]),
    hold_s=st.sampled_from([0.0, 0.1, 2.0]),
    dry_run=st.booleans(),
    stop_at=st.one_of(st.none(), st.integers(0, 19)),
    share=st.sampled_from([0.01, 0.25, 1.0]),
)
def test_nothing_unsafe_ever_reaches_the_hardware(
    steps, start, on_stop, on_starved, start_pose, gate, hold_s, dry_run, stop_at, share
) -> None:
    stage = Stage(
        on_stop=on_stop,
        on_starved=on_starved,
        start_pose=start_pose,
        park_pose={"elbow_flex": 45.0},
        gate=gate,
        starved_hold_s=hold_s,
        dry_run=dry_run,
        ramp_velocity=share,
        health_s=1e9,
        watchdog_s=1e9,
        watchdog_off_s=1e9,
    )
    hardware, governor = stage.hardware, stage.governor
    hardware.position[:] = start
    held: list[tuple[int, np.ndarray]] = []
    try:
        governor.connect()
        governor.reset(0, 0)
        for index, (values, age_s, starved, wait_s) in enumerate(steps):
            stage.time.now_s += wait_s
            if index == stop_at:
                governor.stop("the test")
            before = len(hardware.commands)
            try:
                sent = governor.follow(Command(action(*values), age_s, starved))
            except RobotError:
                assert stop_at is not None and index >= stop_at, "only a stop ends it"
                assert len(hardware.commands) == before
                continue
            assert stop_at is None or index < stop_at, "after a stop nothing is followed"
            assert np.isfinite(sent).all()
            unusable = starved or not np.isfinite(values).all() or not age_s <= 4.0
            # (parking moves on its own)
            if unusable and on_starved != "park" and before and len(hardware.commands) > before:
                held.append((before, hardware.commands[before][1]))
    finally:
        governor.close()
    if dry_run:
        assert hardware.log == []
        return
    log = hardware.commands
    for at, sent in held:
        assert np.array_equal(sent, log[at - 1][1]), "held: the last command again"
    last_s, last = 100.0, np.clip(np.array(start), LOW, HIGH)
    for at_s, sent in log:
        assert sent.dtype == np.float32 and sent.shape == (3,) and np.isfinite(sent).all()
        assert (sent >= LOW).all() and (sent <= HIGH).all()
        elapsed_s = min(at_s - last_s, PERIODS / FPS)
        # the very first one's predecessor was measured as float64 and rounded
        assert (np.abs(sent - last) <= VELOCITY * elapsed_s + 1e-4).all()
        last_s, last = at_s, sent.astype(np.float64)
    torques = [what for _, kind, what in hardware.log if kind == "torque"]
    assert on_stop == "hold" or not torques[-1], "it ends without torque"


@given(
    last=st.tuples(*[st.floats(low, high, width=32) for low, high in zip(LOW, HIGH, strict=True)]),
    target=st.tuples(*[st.floats(-(2.0**100), 2.0**100, width=32)] * 3),
    elapsed_s=st.floats(0, 1),
)
def test_the_limiter_is_exact_in_the_actions_own_dtype(last, target, elapsed_s) -> None:
    limits = Limits(LOW, HIGH, VELOCITY)
    before = action(*last)
    sent = limited(action(*target), before, limits, elapsed_s).sent
    assert sent.dtype == np.float32
    assert (sent >= LOW).all() and (sent <= HIGH).all()
    assert (sent >= before - VELOCITY * elapsed_s).all() and (sent <= before + VELOCITY * elapsed_s).all()


def test_rounding_never_leaves_the_bounds() -> None:
    bound, inner = np.array([0.1, 1 / 3]), np.zeros(2, np.float32)
    assert (cast_within(bound, -bound, bound, inner) <= bound).all()
    assert (bound.astype(np.float32) > bound).any(), "or this would show nothing"


def test_a_command_within_limits_passes_to_the_bit(stages) -> None:
    stage = stages().begin()
    sent = stage.tick(0.1, -0.2, 0.3)
    assert sent.tobytes() == action(0.1, -0.2, 0.3).tobytes()
    assert stage.governor.events() == [] and stage.governor.counters() == {}


def test_why_less_was_sent_is_told_and_counted_by_joint(stages) -> None:
    stage = stages(gate=None).begin()
    assert stage.tick(0, 0, 500).tolist() == pytest.approx([0, 0, 200 / FPS])
    for _ in range(20):
        stage.tick(0, 80, 500)
    outside, fast, *_ = events = stage.governor.events()
    assert outside == "gripper.pos: asked for 500.0, outside; sent 6.7 (limit 0.0 to 100.0)"
    assert fast == "gripper.pos: asked for 500.0, too fast; sent 6.7 (limit 200 per s)"
    assert len(events) == 2, "at most one line a second and reason"
    stage.time.now_s += 1
    stage.tick(0, 80, 500)
    assert stage.governor.events()[0].endswith("(and 20 more since the last such line)")
    assert stage.governor.counters()["governor.outside"] == 22


def test_a_pause_licenses_no_jump(stages) -> None:
    stage = stages(gate=None).begin()
    stage.time.now_s += 60
    assert stage.tick(100, 0, 0)[0] == pytest.approx(180 * PERIODS / FPS)


@pytest.mark.parametrize("wrong", [np.zeros(4, np.float32), np.zeros(3), np.zeros((1, 3), np.float32)])
def test_another_shape_or_dtype_is_an_error(stages, wrong: np.ndarray) -> None:
    stage = stages().begin()
    with pytest.raises(SpecError, match=r"expected float32\[3\]"):
        stage.governor.act(wrong)
    assert stage.hardware.commands == []


@pytest.mark.parametrize(
    "command, words",
    [
        (Command(action(np.nan, 0, 0)), "the action is not finite; holding the last command"),
        (Command(action(10, 0, -np.inf)), "the action is not finite; holding the last command"),
        (Command(action(10, 0, 0), age_s=4.5), "the action is 4.5 s old, the limit is 4; holding the last command"),
        (Command(action(10, 0, 0), age_s=np.nan), "the action is nan s old"),
        (Command(action(10, 0, 0), starved=True), "no action for this tick"),
    ],
)
def test_what_is_no_action_is_a_hold(stages, command: Command, words: str) -> None:
    stage = stages().begin()
    stage.tick(1, 2, 3)
    stage.time.now_s += 1 / FPS
    assert stage.governor.follow(command).tolist() == [1, 2, 3]
    assert [line for line in stage.governor.events() if words in line]
    assert stage.tick(2, 2, 3).tolist() == [2, 2, 3], "and the next good one is followed"


# starvation


def test_starving_holds_for_a_while_then_switches_off_until_the_next_episode(stages) -> None:
    stage = stages(on_starved="off", starved_hold_s=0.5).begin()
    stage.tick(2, 2, 2)
    for _ in range(15):
        stage.tick(2, 2, 2, starved=True)
    assert stage.hardware.torque
    for _ in range(2):
        stage.tick(2, 2, 2, starved=True)
    wait_until(lambda: not stage.hardware.torque)
    count = len(stage.hardware.commands)
    for _ in range(5):
        assert stage.tick(9, 9, 9).tolist() == [2, 2, 2], "an action that comes too late"
    assert len(stage.hardware.commands) == count
    assert [line for line in stage.governor.events() if line == "no usable action for 0.5 s; torque off"]
    stage.governor.reset(1, 0)
    assert stage.hardware.torque
    assert stage.tick(4, 2, 2).tolist() == [4, 2, 2]


def test_starving_parks(stages) -> None:
    stage = stages(on_starved="park", park_pose={"elbow_flex": 30.0}, starved_hold_s=0.1).begin()
    for _ in range(6):
        stage.tick(0, 0, 0, starved=True)
    wait_until(lambda: not stage.hardware.torque)
    assert stage.hardware.position.tolist() == [0, 30, 0]
    steps = [sent[1] for _, sent in stage.hardware.commands if sent[1] > 0]
    assert max(np.diff(steps)) <= 0.25 * 90 / FPS + 1e-4, "slowly"


def test_starving_holds_for_ever_if_so_configured(stages) -> None:
    stage = stages(on_starved="hold", starved_hold_s=0.1).begin()
    for _ in range(60):
        stage.tick(0, 0, 0, starved=True)
    assert stage.hardware.torque
    assert stage.tick(1, 0, 0).tolist() == [1, 0, 0]


# start


def test_the_first_action_is_approached_from_where_the_robot_stands(stages) -> None:
    stage = stages(gate=None)
    stage.hardware.position[:] = 50, 50, 50
    stage.begin()
    assert stage.tick(-50, 50, 50)[0] == pytest.approx(50 - 180 / FPS)


def test_a_far_first_action_is_approached_slowly_then_followed(stages) -> None:
    stage = stages(gate=20.0, ramp_velocity=0.1).begin()
    path = [stage.tick(60, 0, 0)[0] for _ in range(120)]
    assert path[0] == pytest.approx(0.1 * 180 / FPS)
    steps = np.diff([0, *path])
    assert path[-1] == 60 and max(steps[: np.argmax(np.array(path) > 50)]) < 0.7
    assert stage.tick(54.5, 0, 0)[0] == 54.5, "reached: full speed again"
    assert stage.governor.events() == ["the first action is 60.0 away at shoulder_pan.pos; going there slowly"]
    stage.governor.reset(1, 0)
    assert stage.tick(54.5, 1, 1).tolist() == [54.5, 1, 1], "a near one is followed at once"


def test_the_start_pose_is_reached_slowly_before_the_episode(stages) -> None:
    stage = stages(start_pose={"shoulder_pan": 45.0, "gripper": 10.0}, ramp_velocity=0.5)
    stage.begin()
    path = np.array([sent for _, sent in stage.hardware.commands])
    assert stage.hardware.position.tolist() == [45, 0, 10]
    assert np.abs(np.diff(path[:, 0])).max() <= 0.5 * 180 / FPS + 1e-3
    assert np.allclose(path[:, 2], path[:, 0] * 10 / 45, atol=1e-3), "all joints arrive together"
    assert stage.governor.events() == []


def test_a_joint_that_does_not_arrive_at_the_start_is_named_and_torque_goes_off(stages) -> None:
    stage = stages(start_pose={"shoulder_pan": 45.0})
    stage.hardware.stuck = (0,)
    stage.governor.connect()
    with pytest.raises(RobotError, match=r"start pose: shoulder_pan.pos is at 0.0, not at 45 ± 5; is it blocked"):
        stage.governor.reset(0, 0)
    wait_until(lambda: not stage.hardware.torque)
    with pytest.raises(RobotError, match="start pose"):
        stage.tick(0, 0, 0)


def test_a_joint_far_outside_its_range_is_an_error_before_torque(stages) -> None:
    stage = stages()
    stage.hardware.position[1] = 120
    stage.governor.connect()
    with pytest.raises(RobotError, match=r"elbow_flex.pos is at 120.0, far outside its range -90.0 to 90.0: move it"):
        stage.governor.reset(0, 0)
    assert True not in [what for _, kind, what in stage.hardware.log if kind == "torque"]


@pytest.mark.parametrize(
    "config, words",
    [
        ({"start_pose": {"wrist": 0.0}}, "start_pose: there is no joint 'wrist'; known: shoulder_pan, elbow_flex"),
        ({"on_stop": "park"}, "on_stop: park needs a park_pose"),
        ({"ramp_velocity": 0.0}, "ramp_velocity: found 0; must be positive"),
        ({"watchdog_s": -1.0}, "watchdog_s: found -1; must be positive"),
    ],
)
def test_a_config_that_cannot_be_is_refused(config: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Stage(**config)


def test_a_gripper_with_something_in_it_need_not_arrive(stages) -> None:
    stage = stages(start_pose={"shoulder_pan": 10, "gripper": 0})
    stage.hardware.position[2] = 40.0
    stage.hardware.stuck = (2,)
    stage.governor.connect()
    stage.governor.reset(0, 0)
    assert stage.hardware.torque and stage.hardware.position.tolist() == [10, 0, 40]


def test_a_pose_outside_the_range_is_refused_at_connect(stages) -> None:
    stage = stages(start_pose={"gripper": 130.0})
    with pytest.raises(RobotError, match=r"start_pose: gripper.pos at 130 is outside its range 0 to 100"):
        stage.governor.connect()
    assert not stage.hardware.open


# stops


def test_an_emergency_stop_from_another_thread_is_at_once_and_for_good(stages) -> None:
    hardware = RecordingHardware()
    governor = Governor(hardware, GovernorConfig())
    governor.connect()
    governor.reset(0, 0)
    governor.act(MIDDLE)
    asked_s: list[float] = []

    def press() -> None:
        time.sleep(0.05)
        asked_s.append(time.monotonic())
        governor.stop("the red button")

    threading.Thread(target=press).start()
    with pytest.raises(RobotError, match="emergency stop: the red button"):
        while True:
            governor.act(MIDDLE)
            time.sleep(0.01)
    wait_until(lambda: not hardware.torque)
    assert hardware.log[-1][0] - asked_s[0] < 0.25
    for call in (lambda: governor.act(MIDDLE), lambda: governor.reset(1, 0)):
        with pytest.raises(RobotError, match="emergency stop: the red button"):
            call()
    count = len(hardware.log)
    governor.close()
    assert [what for _, kind, what in hardware.log[count:] if kind != "torque" or what] == []
    governor.connect()
    governor.reset(0, 0)
    governor.act(MIDDLE)
    governor.close()


def test_an_emergency_stop_can_hold_and_then_nothing_moves_any_more(stages) -> None:
    stage = stages(on_estop="hold", on_stop="park", park_pose={"elbow_flex": 30.0}).begin()
    stage.tick(1, 1, 1)
    stage.governor.stop("the test")
    wait_until(lambda: [kind for _, kind, _ in stage.hardware.log].count("torque") == 2)
    count = len(stage.hardware.commands)
    stage.governor.close()
    assert stage.hardware.torque and len(stage.hardware.commands) == count
    assert "emergency stop: the test; holding still" in stage.governor.events()


def test_an_emergency_stop_breaks_off_a_ramp(stages) -> None:
    stage = stages(start_pose={"shoulder_pan": 90.0})
    stage.governor.connect()
    stage.hardware.before = lambda name: (
        stage.governor.stop("the test") if name == "act" and len(stage.hardware.commands) == 10 else None
    )
    with pytest.raises(RobotError, match="emergency stop: the test"):
        stage.governor.reset(0, 0)
    wait_until(lambda: not stage.hardware.torque)
    assert len(stage.hardware.commands) == 11


def test_a_stop_in_a_signal_handler_amid_a_transaction_does_not_lock_up(stages) -> None:
    stage = stages().begin()
    previous = signal.signal(signal.SIGUSR1, lambda signum, frame: stage.governor.stop("signal"))
    try:
        stage.hardware.before = lambda name: signal.raise_signal(signal.SIGUSR1) if name == "act" else None
        stage.tick(0, 0, 0)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    wait_until(lambda: not stage.hardware.torque)
    with pytest.raises(RobotError, match="emergency stop: signal"):
        stage.tick(0, 0, 0)


@pytest.mark.parametrize("at", ["act", "observe", "measure", "torque"])
def test_an_interrupt_in_the_middle_of_a_transaction_still_ends_without_torque(stages, at: str) -> None:
    stage = stages(start_pose={"shoulder_pan": 10.0})
    stage.governor.connect()
    fired: list[str] = []

    def interrupt(name: str) -> None:
        if name == at and not fired:
            fired.append(name)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.hardware.before = interrupt
        stage.governor.reset(0, 0)
        stage.governor.observe()
    stage.hardware.torque = True  # as if it had come a moment later
    stage.governor._drive.torque = True
    stage.governor.close()
    assert not stage.hardware.torque and not stage.hardware.open


def test_interrupts_during_close_cut_parking_short_but_nothing_else() -> None:
    hardware = RecordingHardware()
    governor = Governor(hardware, GovernorConfig(on_stop="park", park_pose={"elbow_flex": 90.0}, ramp_velocity=0.01))
    governor.connect()
    governor.reset(0, 0)
    governor.act(MIDDLE)
    threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        governor.close()
    assert time.monotonic() - began_s < 5, "parking would have taken 100 s"
    assert not hardware.torque and not hardware.open
    assert len(hardware.commands) > 3, "it had begun to park"


def test_close_parks_then_switches_off(stages) -> None:
    stage = stages(on_stop="park", park_pose={"elbow_flex": -60.0}).begin()
    stage.tick(0, 0, 0)
    stage.governor.close()
    assert stage.hardware.position[1] == -60 and not stage.hardware.torque and not stage.hardware.open


def test_close_holds(stages) -> None:
    stage = stages(on_stop="hold").begin()
    stage.tick(0, 0, 0)
    stage.governor.close()
    assert stage.hardware.torque and not stage.hardware.open


def test_parking_that_fails_ends_without_torque(stages) -> None:
    stage = stages(on_stop="park", park_pose={"elbow_flex": -60.0}).begin()
    stage.hardware.errors["act"] = lost("elbow_flex")
    stage.governor.close()
    assert not stage.hardware.torque
    assert "not parked: elbow_flex does not answer" in stage.governor.events()


def test_torque_that_cannot_be_switched_off_is_an_error_after_every_attempt(stages) -> None:
    stage = stages().begin()
    tries: list[str] = []
    stage.hardware.before = lambda name: tries.append(name) if name == "torque" else None
    stage.hardware.errors["torque"] = lost("wrist_roll")
    with pytest.raises(RobotError, match="torque may still be on: wrist_roll does not answer; cut the power"):
        stage.governor.close()
    assert len(tries) >= 3 and not stage.hardware.open
    stage.governor.close()


@pytest.mark.parametrize("at", ["act", "observe"])
def test_a_robot_that_fails_is_stopped_and_the_error_goes_on(stages, at: str) -> None:
    stage = stages().begin()
    stage.tick(0, 0, 0)
    stage.hardware.errors[at] = lost("wrist_flex")
    with pytest.raises(RobotError, match="wrist_flex does not answer"):
        stage.tick(0, 0, 0) if at == "act" else stage.governor.observe()
    wait_until(lambda: not stage.hardware.torque)
    del stage.hardware.errors[at]
    with pytest.raises(RobotError, match="wrist_flex does not answer"):
        stage.tick(0, 0, 0)


# the watchdog


def governed(**config: object) -> tuple[RecordingHardware, Governor]:
    hardware = RecordingHardware()
    governor = Governor(hardware, GovernorConfig(**config))
    governor.connect()
    governor.reset(0, 0)
    return hardware, governor


def test_a_control_loop_that_falls_silent_is_told_of_then_stopped() -> None:
    hardware, governor = governed(watchdog_s=0.1, watchdog_off_s=0.4)
    governor.act(MIDDLE)
    events: list[str] = []
    wait_until(lambda: events.extend(governor.events()) or not hardware.torque)
    events += governor.events()
    assert re.match(r"the control loop has been silent for 0\.\d s; the servos hold the last command", events[0])
    with pytest.raises(RobotError, match=r"the control loop was silent for \d\.\d s"):
        governor.act(MIDDLE)
    governor.close()


@pytest.mark.slow
def test_nobody_need_be_heard_of_before_the_first_action_and_after_the_last() -> None:
    hardware, governor = governed(watchdog_s=0.2, watchdog_off_s=0.3)
    time.sleep(0.5)
    governor.act(MIDDLE)
    governor.rest()
    time.sleep(0.5)
    governor.reset(1, 0)
    time.sleep(0.5)
    assert hardware.torque and governor.events() == []
    governor.close()


@pytest.mark.slow
def test_looking_at_something_is_a_sign_of_life() -> None:
    hardware, governor = governed(watchdog_s=0.5, watchdog_off_s=1.0)
    governor.act(MIDDLE)
    for _ in range(60):
        time.sleep(0.02)
        governor.observe()
    assert hardware.torque and governor.events() == []
    governor.close()


def test_a_command_that_hangs_does_not_keep_the_torque_on() -> None:
    hardware, governor = governed(watchdog_s=0.1, watchdog_off_s=0.2)
    hang = threading.Event()
    governor.act(MIDDLE)
    hardware.before = lambda name: hang.wait(5) if name == "act" else None
    loop = threading.Thread(target=lambda: governor.act(MIDDLE))
    loop.start()
    wait_until(lambda: not hardware.torque, timeout_s=3)
    assert loop.is_alive()
    hang.set()
    loop.join()
    governor.close()


# health


HEALTHY = Health(temperature_c=30, voltage_v=12, current_a=0.1, load=0.1, torque_on=True)


@pytest.mark.parametrize(
    "change, text, stop",
    [
        ({"temperature_c": 56}, "gripper is at 56 °C", False),
        ({"temperature_c": 66}, "gripper is at 66 °C, the limit is 65; let it cool", True),
        ({"voltage_v": 10.5}, "gripper has 10.5 V", False),
        ({"voltage_v": 9.0}, "gripper has 9.0 V, the limit is 9.5; check the power supply and its cable", True),
        ({"error": "overheated"}, "gripper reports overheated (let it cool)", True),
    ],
)
def test_thresholds(change: dict, text: str, stop: bool) -> None:
    vitals = HealthMonitor(VitalsConfig(voltage_warn_v=11, voltage_stop_v=9.5))
    assert vitals.check({"gripper": HEALTHY}, 0.0) == []
    [finding] = vitals.check({"wrist": HEALTHY, "gripper": replace(HEALTHY, **change)}, 1.0)
    assert (finding.text, finding.stop) == (text, stop)


def test_what_a_motor_does_not_say_is_not_judged() -> None:
    config = VitalsConfig(voltage_warn_v=11, voltage_stop_v=9.5, current_stop_a=1)
    assert HealthMonitor(config).check({"gripper": Health()}, 0.0) == []


@pytest.mark.parametrize("strain", [{"load": -0.97}, {"current_a": 1.5}])
def test_only_strain_that_lasts_is_overload(strain: dict) -> None:
    vitals = HealthMonitor(VitalsConfig(current_stop_a=1.2, overload_s=2.0))
    straining = {"wrist_flex": replace(HEALTHY, **strain)}
    assert [vitals.check(straining, at) for at in (0.0, 1.0, 1.9)] == [[], [], []]
    vitals.check({"wrist_flex": HEALTHY}, 1.95)
    assert vitals.check(straining, 2.0) == []
    [finding] = vitals.check(straining, 4.0)
    assert finding.stop and "wrist_flex is overloaded" in finding.text and "is it blocked?" in finding.text


def test_a_gripper_may_strain_and_not_overheat() -> None:
    vitals = HealthMonitor(VitalsConfig(overload_s=1.0))
    pressing = {"gripper": replace(HEALTHY, error="overload", load=1.0)}
    vitals.check(pressing, 0.0)
    assert [finding.stop for finding in vitals.check(pressing, 2.0)] == [False, False]
    [finding] = vitals.check({"gripper": replace(HEALTHY, error="overload, overheated")}, 3.0)
    assert finding.stop


def test_a_grave_finding_ends_the_run() -> None:
    hardware, governor = governed(health_s=0.05)
    for _ in range(5):
        governor.act(MIDDLE)
        time.sleep(0.03)
    assert hardware.looks >= 2
    hardware.motors = {"elbow": replace(HEALTHY, error="overload")}
    wait_until(lambda: not hardware.torque)
    with pytest.raises(RobotError, match="elbow reports overload"):
        governor.act(MIDDLE)
    assert [e for e in governor.events() if re.match(r"elbow reports overload \(is it blocked.*; torque off$", e)]
    governor.close()


def test_what_only_one_reading_says_is_not_believed() -> None:
    hardware, governor = governed(health_s=0.05)
    readings = iter([{"elbow": replace(HEALTHY, error="unknown flags 0x80")}])
    hardware.before = lambda name: setattr(hardware, "motors", next(readings, {})) if name == "health" else None
    looks = hardware.looks
    for _ in range(10):
        governor.act(MIDDLE)
        time.sleep(0.03)
    assert hardware.looks >= looks + 3 and hardware.torque
    assert governor.events() == []
    governor.close()


def test_a_grave_finding_at_connect_leaves_torque_off(stages) -> None:
    stage = stages(vitals=VitalsConfig(voltage_stop_v=9.5))
    stage.hardware.motors = {"gripper": replace(HEALTHY, voltage_v=5.1)}
    with pytest.raises(RobotError, match=r"gripper has 5.1 V, the limit is 9.5; .*; torque stays off"):
        stage.governor.connect()
    assert stage.hardware.log == [] and not stage.hardware.open


def test_health_that_cannot_be_read_is_told_and_the_run_goes_on() -> None:
    hardware, governor = governed(health_s=0.05)
    hardware.errors["health"] = lost("gripper")
    time.sleep(0.5)
    governor.act(MIDDLE)
    assert "health cannot be read: gripper does not answer" in governor.events()
    assert governor.counters()["governor.health_unread"] >= 2
    governor.close()


# in a rig


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["an interrupt", "an error"])
def test_every_arm_of_a_rig_is_stopped_whatever_the_others_do(fault: str) -> None:
    arms = {"left": RecordingHardware(), "right": RecordingHardware()}
    rig = Rig({name: Governor(arm, GovernorConfig(watchdog_s=0.2, watchdog_off_s=0.3)) for name, arm in arms.items()})
    rig.connect()
    rig.reset(0, 0)
    rig.follow(Command(np.zeros(6, np.float32)))
    rig.rest()
    time.sleep(0.5)
    assert rig.events() == [], "nobody need be heard of"

    def fail(name: str) -> None:
        if name == "close" and fault == "an interrupt":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.5)
        elif name == "close":
            raise lost("left")

    arms["left"].before = fail
    with pytest.raises(KeyboardInterrupt if fault == "an interrupt" else ExceptionGroup):
        rig.close()
    assert [arm.torque for arm in arms.values()] == [False, False]
    assert [arm.open for arm in arms.values()] == [fault == "an error", False]


def test_a_stop_of_a_rig_stops_every_arm() -> None:
    arms = {"left": RecordingHardware(), "right": RecordingHardware()}
    rig = Rig({name: Governor(arm, GovernorConfig()) for name, arm in arms.items()})
    rig.connect()
    rig.reset(0, 0)
    rig.stop("the test")
    wait_until(lambda: not any(arm.torque for arm in arms.values()))
    assert len([line for line in rig.events() if "emergency stop: the test; torque off" in line]) == 2
    rig.close()


# dry run


def test_a_dry_run_tells_what_it_would_send_and_writes_nothing(stages) -> None:
    stage = stages(dry_run=True, start_pose={"shoulder_pan": 45.0}, on_stop="park", park_pose={"gripper": 0.0}).begin()
    for _ in range(40):
        sent = stage.tick(3, 4, 5)
    assert sent.tolist() == [3, 4, 5]
    stage.governor.stop("the test")
    stage.governor.close()
    events = stage.governor.events()
    assert stage.hardware.log == []
    assert events[0] == "dry run: would now go slowly to a pose"
    assert "dry run: would send shoulder_pan.pos=3.0, elbow_flex.pos=3.0, gripper.pos=5.0" in events
    assert stage.governor.spec.details["dry_run"] == "nothing is sent"


def test_the_spec_is_the_hardwares_own(stages) -> None:
    stage = stages()
    assert stage.governor.spec == stage.hardware.spec
    assert stage.governor.spec.action.names == JOINTS and stage.governor.wall_time
