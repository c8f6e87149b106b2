"""What goes wrong with an arm that moves: on emulated buses, behind its Governor, in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from faulty_arm import KINDS, Trial, run_trial, scale_of
from hardware import FakeTime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twins import RunningTwin, running_twin

from tactus.hal.arm import So100Config
from tactus.hal.arm.robot import Arm
from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.robot import Command, RobotError
from tactus.hal.servo.bus import Motor, MotorCounters, Readings, ServoBus
from tactus.hal.servo.calibration import REGISTERS, JointCalibration, save
from tactus.hal.spec import STATE
from tactus.policies.scripted.replay import ReplayPolicy

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

ROOT = Path(__file__).parents[1]
NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
BOTH = pytest.mark.parametrize("arm", ["so", "koch"])
PERIODS, FPS = 2, 30.0


@pytest.fixture(scope="module")
def module_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    arms = ["--arms.so.kind=so101", "--arms.koch.kind=koch"]
    with running_twin(tmp_path_factory.mktemp("twin"), "--world=kinematic", *arms) as twin:
        yield twin


@pytest.fixture
def twin(module_twin: RunningTwin) -> Iterator[RunningTwin]:
    """Without faults, its power off and on again before the next test: Dynamixels keep errors until then."""
    yield module_twin
    module_twin.ask(do="clear")
    for name in module_twin.about["arms"]:
        module_twin.ask(do="fault", kind="brown_out", arm=name, duration_s=0.0)


@pytest.fixture
def trial(twin: RunningTwin) -> Callable[..., Trial]:
    """Plays one, and sees to it that nothing unsafe was written. faults: requests to the twin."""

    def play(arm: str, *faults: Mapping[str, Any], inject: Any = None, **order: Any) -> Trial:
        def both(process: subprocess.Popen[str]) -> None:
            for fault in faults:
                twin.ask(do="fault", arm=arm, **fault)
            if inject is not None:
                inject(process)

        order.setdefault("inject_at_s", 0.5)
        order.setdefault("seconds", 2.5)
        done = run_trial(twin, arm, both if faults or inject else None, **order)
        assert done.unsafe() == []
        assert sum(len(rows) for rows in done.goals().values()) > 60, "or there would be nothing to judge"
        return done

    return play


def torque(twin: RunningTwin, arm: str) -> list[bool]:
    return list(twin.arm(arm)["torque_on"].values())


def went_on(done: Trial) -> bool:
    return done.status == 0 and any(line["text"] == "finished" for line in done.lines)


def told(done: Trial, words: str) -> bool:
    return any(re.search(words, line) for line in done.told)


# answers that are not as they should be


@BOTH
def test_bad_answers_cost_time_and_nothing_else(trial, arm: str) -> None:
    kinds = ("lost", "late", "corrupt", "truncated", "noise")
    done = trial(arm, *({"kind": kind, "probability": 0.02} for kind in kinds), {"kind": "stuck"})
    assert went_on(done)
    assert done.longest_gap_ms() < 500


@pytest.mark.long
@BOTH
@pytest.mark.parametrize("kind", ["lost", "late", "corrupt", "truncated", "noise"])
def test_each_kind_of_bad_answer(trial, arm: str, kind: str) -> None:
    done = trial(arm, {"kind": kind, "probability": 0.1}, seconds=4.0)
    assert went_on(done)
    assert done.longest_gap_ms() < 500


# motors


@BOTH
def test_a_dead_motor_is_named_and_the_others_let_go(twin, trial, arm: str) -> None:
    done = trial(arm, {"kind": "dead", "motor": 3}, seconds=6.0)
    assert told(done, r"^elbow_flex does not answer: no status packet")
    assert told(done, r"RobotError: elbow_flex .* (has )?not answered for 0\.\d s")
    assert told(done, r"torque may still be on: .*elbow_flex: no status packet.*Torque_Enable.*; cut the power")
    assert set(done.off_ms()) == {1, 2, 4, 5, 6} and max(done.off_ms().values()) < 1500
    assert "no answer from motors [3]" in done.guardian, "it was tried again from outside"


def test_a_dead_motor_is_noticed_though_nobody_observes(trial) -> None:
    done = trial("so", {"kind": "dead", "motor": 3}, seconds=8.0, observe_every=1000)
    assert told(done, r"RobotError: elbow_flex reports nothing for \d\.\d s: check its cable and power")
    assert max(done.off_ms().values()) < 2500


@BOTH
@pytest.mark.parametrize("motor", [1, 3])
def test_one_overloaded_motor_never_keeps_the_others_torque_on(twin, trial, arm: str, motor: int) -> None:
    done = trial(arm, {"kind": "overload", "motor": motor}, inject=lambda p: p.send_signal(signal.SIGTERM))
    assert set(done.off_ms()) == {1, 2, 3, 4, 5, 6} and max(done.off_ms().values()) < 300
    assert not any(torque(twin, arm))


@BOTH
@pytest.mark.parametrize("motor", [1, 3])
def test_nor_does_one_that_is_dead(twin, trial, arm: str, motor: int) -> None:
    done = trial(arm, {"kind": "dead", "motor": motor}, inject=lambda p: p.send_signal(signal.SIGTERM), after_s=0.6)
    others = {1, 2, 3, 4, 5, 6} - {motor}
    assert set(done.off_ms()) == others and max(done.off_ms().values()) < 300
    assert torque(twin, arm) == [i == motor for i in range(1, 7)]


@BOTH
@pytest.mark.parametrize(
    "fault, words",
    [
        ({"kind": "overload", "motor": 2}, r"RobotError: shoulder_lift reports overload"),
        ({"kind": "over_temperature", "motor": 2}, r"RobotError: shoulder_lift .*(heat|°C)"),
        ({"kind": "under_voltage"}, r"RobotError: shoulder_pan reports input voltage"),
        ({"kind": "brown_out"}, r"RobotError: .*lost torque"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_motors_that_are_not_well_end_the_run(twin, trial, arm: str, fault: dict[str, Any], words: str) -> None:
    done = trial(arm, fault, seconds=5.0)
    assert told(done, words), done.told
    assert set(done.off_ms()) == {1, 2, 3, 4, 5, 6} and max(done.off_ms().values()) < 1500
    assert not any(torque(twin, arm))


def test_a_gripper_may_press(trial) -> None:
    done = trial("so", {"kind": "overload", "motor": 6})
    assert went_on(done) and told(done, "gripper reports overload")


# the cable


@BOTH
def test_a_port_that_comes_back_is_gone_on_with(twin, trial, arm: str) -> None:
    done = trial(arm, {"kind": "unplug", "duration_s": 1.5}, seconds=4.5)
    assert went_on(done)
    assert told(done, r"is lost: .*; trying to open it again for 3 s") and told(done, r"is back after \d\.\d s")
    assert 1500 < done.longest_gap_ms() < 2500
    found = twin.arm(arm)["registers"]
    for name in NAMES:
        away = abs(found[name]["Present_Position"] - found[name]["Goal_Position"])
        assert away < 60, f"{name} follows again: a tripped bus watchdog would have it stay"
    last = [write for write in done.writes if write["register"] == "Goal_Position"][-6:]
    assert all(write["accepted"] for write in last)


@pytest.mark.long
@BOTH
def test_a_port_that_comes_back_too_late_is_the_guardians(twin, trial, arm: str) -> None:
    done = trial(arm, {"kind": "unplug", "duration_s": 5.0}, seconds=9.0, after_s=3.0)
    assert told(done, r"RobotError: .* did not come back within 3\.\d s: no serial port .*; found: ")
    assert told(done, r"torque may still be on: .*; cut the power")
    assert "torque off on all 6 motors" in done.guardian
    assert not any(torque(twin, arm)) and 5000 < max(done.off_ms().values()) < 5500


# the policy


@BOTH
@pytest.mark.parametrize(
    "wrong, words",
    [
        ("nan", "the action is not finite; holding the last command"),
        ("old", r"the action is 4\.5 s old, the limit is 4; holding the last command"),
        ("huge", r"asked for -?3e\+38, outside; sent"),
    ],
)
def test_actions_that_are_none(trial, arm: str, wrong: str, words: str) -> None:
    done = trial(arm, wrong=wrong, wrong_s=0.5, seconds=1.5)
    assert went_on(done) and told(done, words), done.told
    if wrong == "huge":
        return
    rows = done.goals()[1]
    held = rows[(rows[:, 0] > done.at_s + 0.05) & (rows[:, 0] < done.at_s + 0.4), 1]
    assert len({*held}) == 1, "the last command, again and again"


@pytest.mark.parametrize("wrong", ["inf", "far"])
def test_other_actions_that_are_none(trial, wrong: str) -> None:
    assert went_on(trial("so", wrong=wrong, wrong_s=0.5, seconds=1.5))


@pytest.mark.parametrize("how", ["hold", "off", "park"])
def test_starving(twin, trial, how: str) -> None:
    governor = {"on_starved": how, "starved_hold_s": 0.3, "park_pose": {"wrist_roll": 10}}
    done = trial("so", wrong="starved", wrong_s=3.0, seconds=3.0, config={"governor": governor})
    assert told(done, "no action for this tick; holding the last command")
    assert told(done, {"hold": "holding", "off": r"no usable action for 0\.3 s; torque off", "park": "parking"}[how])
    off = done.off_ms()
    assert set(off) == {1, 2, 3, 4, 5, 6}
    if how == "hold":
        assert min(off.values()) > 2000, "only at the end"
    elif how == "off":
        assert min(off.values()) >= 300 and max(off.values()) < 700
        assert done.last_goal_ms() < 400
    else:
        degrees = scale_of(Path(done.order["calibration"]), "so101").to_units([rows[-1, 1] for rows in map(
            done.goals().__getitem__, range(1, 7))])  # fmt: skip
        assert degrees[4] == pytest.approx(10, abs=0.2)
        assert min(off.values()) > 500


# how it ends


ENDS = {
    "SIGINT": {"inject": lambda p: p.send_signal(signal.SIGINT)},
    "SIGTERM": {"inject": lambda p: p.send_signal(signal.SIGTERM)},
    "SIGHUP": {"inject": lambda p: p.send_signal(signal.SIGHUP)},
    "SIGKILL": {"inject": lambda p: p.kill(), "after_s": 0.6},
    "exception": {"wrong": "raise"},
    "emergency stop": {"wrong": "stop"},
}


@BOTH
@pytest.mark.parametrize("how", ENDS)
def test_however_it_ends_torque_is_off_within_300_ms(twin, trial, arm: str, how: str) -> None:
    done = trial(arm, **ENDS[how])
    off = done.off_ms()
    print(arm, how, {motor_id: round(ms) for motor_id, ms in off.items()})
    assert set(off) == {1, 2, 3, 4, 5, 6} and max(off.values()) < 300
    assert not any(torque(twin, arm))
    assert done.last_goal_ms() < 300


@pytest.mark.parametrize("how", ["SIGTERM", "exception"])
def test_it_can_end_parked(twin, trial, how: str) -> None:
    governor = {"on_stop": "park", "park_pose": {"wrist_roll": 20}, "ramp_velocity": 0.25}
    done = trial("so", **ENDS[how], config={"governor": governor})
    assert done.goals()[5][-1, 1] == pytest.approx(2047 + 20 * 4095 / 360, abs=2)
    rows = done.goals()[5]
    parking = rows[rows[:, 0] > done.at_s]
    assert parking[0, 0] - done.at_s < 0.3, "it begins at once"
    assert set(done.off_ms()) == {1, 2, 3, 4, 5, 6} and done.last_goal_ms() < min(done.off_ms().values())
    assert not any(torque(twin, "so"))


def test_it_can_end_holding(twin, trial) -> None:
    done = trial("so", **ENDS["SIGTERM"], config={"governor": {"on_stop": "hold"}})
    assert done.off_ms() == {} and all(torque(twin, "so")) and done.last_goal_ms() < 300


def test_without_a_guardian_the_bus_watchdog_of_a_dynamixel_stops_it(twin, trial) -> None:
    done = trial("koch", **ENDS["SIGKILL"] | {"after_s": 1.3}, config={"governor": {"guardian": False}})
    found = twin.arm("koch")
    assert all(found["torque_on"].values()), "it holds; it is not limp"
    for name, values in found["registers"].items():
        assert values["Bus_Watchdog"] == 255, name
        assert abs(values["Goal_Position"] - values["Present_Position"]) <= 1, name
    assert done.status == -signal.SIGKILL and done.guardian == ""


def test_a_loop_that_hangs_is_told_of_and_gone_on_with(trial) -> None:
    done = trial("so", wrong="sleep", wrong_s=1.0, seconds=3.0)
    assert told(done, r"the control loop has been silent for 0\.\d s; the servos hold the last command")
    assert done.longest_gap_ms() > 900


@pytest.mark.long
def test_a_loop_that_hangs_for_long_ends_without_torque(twin, trial) -> None:
    done = trial("so", wrong="sleep", wrong_s=7.0, seconds=9.0)
    assert told(done, r"the control loop was silent for 5\.\d s; torque off")
    assert min(done.off_ms().values()) > 4900 and max(done.off_ms().values()) < 5600
    assert told(done, r"RobotError: the control loop was silent")


@pytest.mark.long
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGUSR1])
def test_the_command_ends_so_too(twin, serve: Serve, tmp_path: Path, monkeypatch, signum: int) -> None:
    """`tactus run`, with a policy node over ZeroMQ."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    about = twin.about["arms"]["so"]
    config = So100Config(port=about["port"], calibration=about["calibration"])
    with config.hardware() as arm:
        at = arm.observe().arrays[STATE]
    waves = at + 4 * np.sin(np.arange(600) / 15)[:, None] * np.array([1, 1, -1, -1, 1, 1])
    node = serve(ReplayPolicy(waves.astype(np.float32), config.make().spec.action, 16))
    keys = [f"--robot.port={about['port']}", f"--robot.calibration={about['calibration']}", "--robot.type=so100"]
    keys += [f"--connect={node.endpoint}", f"--output_dir={tmp_path}/run", "--episodes=1", "--max_ticks=600"]
    before = len(twin.writes())
    process = subprocess.Popen(
        [sys.executable, "-m", "tactus", "run", *keys], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        until_s = time.monotonic() + 30
        while sum(w["register"] == "Goal_Position" for w in twin.writes()[before:]) < 100:
            assert process.poll() is None and time.monotonic() < until_s
            time.sleep(0.05)
        sent_s = time.monotonic()
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    time.sleep(0.5)
    off = {}
    for write in twin.writes()[before:]:
        if write["register"] == "Torque_Enable" and not write["value"] and write["t"] > sent_s:
            off.setdefault(write["id"], (write["t"] - sent_s) * 1e3)
    print(signal.Signals(signum).name, {motor_id: round(ms) for motor_id, ms in off.items()})
    assert set(off) == {1, 2, 3, 4, 5, 6} and max(off.values()) < 300
    assert not any(torque(twin, "so"))
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGUSR1: 1}.get(signum, 130)
    assert process.returncode == expected and "Traceback" not in err, err


# whatever a policy asks for


class RecordingBus(ServoBus):
    """Six servos without a line: joints jump to their goals. `goals`: when, and the counts of all motors."""

    protocol = "feetech"
    port, baudrate = "recording", 1_000_000

    def __init__(self, clock: Callable[[], float], registers: Mapping[str, Mapping[str, int]]) -> None:
        self.clock = clock
        self.motors = {name: Motor(joint.id, joint.model) for name, joint in So100Config().joints.items()}
        self.counters = {name: MotorCounters() for name in self.motors}
        self.values = {name: {"Torque_Enable": 0, **registers[name]} for name in self.motors}
        self.goals: list[tuple[float, dict[str, int]]] = []
        self.written: list[str] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def ping(self, motor_id: int) -> int | None:
        return 777

    def scan(self) -> dict[int, int]:
        return {}

    def check(self) -> None: ...

    def warnings(self) -> list[str]:
        return []

    def describe_error(self, flags: int) -> str:
        return ""

    def read(self, register: str, motors: Iterable[str] | None = None, retries: int = 2) -> Readings:
        names = self.motors if motors is None else list(motors)
        return Readings({name: self.values[name].get(register, 0) for name in names}, stamp_ns=time.monotonic_ns())

    def write(self, register: str, values: Mapping[str, int]) -> None:
        self.write_each(register, values)

    def write_each(self, register: str, values: Mapping[str, int], retries: int = 2) -> dict[str, str]:
        self.written.append(register)
        for name, value in values.items():
            assert type(value) is int
            self.values[name][register] = value
            if register == "Goal_Position" and self.values[name]["Torque_Enable"]:
                self.values[name]["Present_Position"] = value
        if register == "Goal_Position":
            self.goals.append((self.clock(), dict(values)))
        return {}


wild = st.one_of(
    st.floats(-200, 200, width=32),
    st.floats(width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, 100.0]),
)
steps = st.lists(
    st.tuples(
        st.tuples(*[wild] * 6),
        st.one_of(st.floats(0, 10), st.sampled_from([np.nan, np.inf, 4.0, 4.0001])),
        st.booleans(),
        st.one_of(st.floats(0, 0.2), st.sampled_from([0.0, 1 / FPS, 3.0])),
    ),
    max_size=15,
)
modes = st.fixed_dictionaries(
    {
        "on_stop": st.sampled_from(["off", "hold", "park"]),
        "on_starved": st.sampled_from(["off", "hold", "park"]),
        "on_estop": st.sampled_from(["off", "hold"]),
        "start_pose": st.sampled_from([{}, {"shoulder_pan": 30.0, "gripper.pos": 100.0}]),
        "gate": st.sampled_from([None, 0.5, 20.0]),
        "starved_hold_s": st.sampled_from([0.0, 0.1, 2.0]),
        "dry_run": st.booleans(),
        "ramp_velocity": st.sampled_from([0.25, 1.0]),
    }
)
QUIET = {"park_pose": {"elbow_flex": 45.0}, "health_s": 1e9, "watchdog_s": 1e9, "watchdog_off_s": 1e9}
CALIBRATION = {
    name: JointCalibration(i, 0, 0, 2047 - reach, 2047 + reach)
    for i, (name, reach) in enumerate(zip(NAMES, (1251, 1137, 1101, 1080, 1818, 626), strict=True), 1)
}
LOW = np.array([joint.range_min for joint in CALIBRATION.values()])
HIGH = np.array([joint.range_max for joint in CALIBRATION.values()])


def counts_per_s(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The velocity limits of an SO-100, in counts."""
    joints = So100Config().joints.values()
    shares = np.array([joint.unit == "range_0_100" for joint in joints])
    return np.array([joint.velocity for joint in joints]) * np.where(shares, (high - low) / 100, 4095 / 360)


def play(governor: Governor, clock: FakeTime, wanted: list[Any], stop_at: int | None) -> None:
    """One episode of these commands; errors only where a stop calls for them."""
    try:
        governor.connect()
        governor.reset(0, 0)
        for index, (values, age_s, starved, wait_s) in enumerate(wanted):
            clock.now_s += wait_s
            if index == stop_at:
                governor.stop("the test")
            try:
                governor.follow(Command(np.array(values, np.float32), age_s, starved))
            except RobotError:
                assert stop_at is not None and index >= stop_at, "only a stop ends it"
    finally:
        governor.close()


@settings(max_examples=200)
@given(
    mode=modes,
    wanted=steps,
    start=st.tuples(*[st.floats(-0.05, 1.05)] * 6),
    stop_at=st.one_of(st.none(), st.integers(0, 14)),
)
def test_nothing_unsafe_ever_reaches_the_bus(tmp_path_factory, mode, wanted, start, stop_at) -> None:
    file = tmp_path_factory.getbasetemp() / "recording.json"
    save(file, CALIBRATION)
    clock = FakeTime()
    held = {
        name: dict(zip(REGISTERS, (0, joint.range_min, joint.range_max), strict=True))
        | {"Present_Position": round(joint.range_min + share * (joint.range_max - joint.range_min))}
        for (name, joint), share in zip(CALIBRATION.items(), start, strict=True)
    }
    bus = RecordingBus(clock, held)
    config = So100Config(port="recording", calibration=str(file), governor=GovernorConfig(**mode, **QUIET))
    config.make_bus = lambda: bus  # type: ignore[method-assign]
    arm = Arm(config)
    play(Governor(arm, config.governor, clock, clock.sleep), clock, wanted, stop_at)
    if mode["dry_run"]:
        assert bus.written == []
        return
    limit = counts_per_s(LOW, HIGH)
    times = np.array([at_s for at_s, _ in bus.goals])
    goals = np.array([[goal[name] for name in NAMES] for _, goal in bus.goals])
    assert (goals >= LOW).all() and (goals <= HIGH).all()
    # goals are truncated to counts, each by less than one; the log's first is where the arm stood
    slack = limit * np.minimum(np.diff(times), PERIODS / FPS)[:, None] + 1.001
    assert (np.abs(np.diff(goals, axis=0)) <= slack).all()
    on = [values["Torque_Enable"] for values in bus.values.values()]
    assert mode["on_stop"] == "hold" or mode["on_estop"] == "hold" or on == [0] * 6


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mode=modes, wanted=steps, stop_at=st.one_of(st.none(), st.integers(0, 14)))
def test_nor_the_emulated_one(twin, mode, wanted, stop_at) -> None:
    about = twin.about["arms"]["so"]
    before = len(twin.writes())
    clock = FakeTime()
    governor = GovernorConfig(**mode, **QUIET, guardian=False, tolerance=1e3)  # time flies
    config = KINDS["so101"](port=about["port"], calibration=about["calibration"], governor=governor)

    def hurry(seconds: float) -> None:
        clock.sleep(seconds)
        time.sleep(seconds / 10)

    play(Governor(config.hardware(), governor, clock, hurry), clock, wanted, stop_at)
    time.sleep(0.1)
    writes = twin.writes()[before:]
    if mode["dry_run"]:
        assert writes == []
    entries = json.loads(Path(about["calibration"]).read_text())
    low, high = (np.array([entry[key] for entry in entries.values()]) for key in ("range_min", "range_max"))
    limit = counts_per_s(low, high) * PERIODS / FPS
    for index, name in enumerate(NAMES):
        own = [w for w in writes if w["id"] == index + 1 and w["register"] in ("Goal_Position", "Torque_Enable")]
        before = None
        for write, then in zip(own, [*own[1:], {}], strict=False):
            if write["register"] == "Goal_Position":
                stands = then.get("register") == "Torque_Enable" and then["value"]  # torque on, or an emergency hold
                assert low[index] <= write["value"] <= high[index], name
                assert stands or before is None or abs(write["value"] - before) <= limit[index] + 1, name
                before = write["value"]
    if mode["on_stop"] != "hold" and mode["on_estop"] != "hold":
        assert not any(torque(twin, "so"))
    else:
        twin.ask(do="fault", kind="brown_out", arm="so", duration_s=0.0)
