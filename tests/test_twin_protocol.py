"""The emulated servos and their packets, without a port: bytes in, bytes out; the vendors' SDKs are the judges."""

from __future__ import annotations

import math

import dynamixel_sdk as dxl
import pytest
import scservo_sdk as scs
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.hal.servo.packets import crc16, unstuffed
from tactus.hal.servo.registers import DYNAMIXEL, FEETECH
from tactus.hal.twin.arm import EmulatedArm
from tactus.hal.twin.bus import EmulatedBus
from tactus.hal.twin.config import JOINTS, ArmConfig
from tactus.hal.twin.dynamixel_bus import frame, stuffed
from tactus.hal.twin.faults import Fault, Faults
from tactus.hal.twin.feetech_bus import EmulatedFeetechBus
from tactus.hal.twin.kinematic_world import KinematicWorld
from tactus.hal.twin.servo import COUNTS_PER_RAD, MIDDLE, Servo
from tactus.hal.twin.usb_adapter import FULL_BYTES, OUT_S, UsbAdapter

pytestmark = pytest.mark.realtime


class Rig:
    """One arm in a kinematic world whose time only `pass_s` moves; `port` is what an SDK takes for a serial port."""

    def __init__(self, kind: str, calibrated: bool = True) -> None:
        self.now_s = 1000.0
        self.faults = Faults()
        self.world = KinematicWorld(["arm"])
        self.writes: list[tuple[int, str, int, bool]] = []
        self.arm = EmulatedArm(
            "arm", ArmConfig(kind, calibrated=calibrated), self.world.arms["arm"], self.faults, self._log
        )
        self.bus: EmulatedBus = self.arm.bus
        self.port = Port(self)
        self.pass_s(0.02)

    def _log(self, servo: Servo, name: str, address: int, value: int, accepted: bool) -> None:
        self.writes.append((servo.id, name, value, accepted))

    def servo(self, motor_id: int) -> Servo:
        return self.arm.servos[motor_id - 1]

    def pass_s(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / 0.005))):
            self.now_s += seconds / max(1, round(seconds / 0.005))
            self.world.advance(self.now_s)
            self.arm.sense()
            self.arm.control(self.now_s)

    def fault(self, kind: str, motor: int | None = None, **more: float) -> Fault:
        fault = Fault(kind, "arm", motor, **more)  # type: ignore[arg-type]
        self.faults.add(fault)
        self.arm.set_condition(fault, True)
        return fault


class Port:
    """The SDKs' PortHandler over a bus: what is written is answered at once, and nothing comes later."""

    def __init__(self, rig: Rig, baudrate: int = 1_000_000) -> None:
        self.rig, self.baudrate, self.is_using, self.is_open = rig, baudrate, False, True
        self.waiting = bytearray()
        self.delays_s: list[float] = []

    def clearPort(self) -> None:
        self.waiting.clear()

    def writePort(self, packet: list[int]) -> int:
        self.delays_s.clear()
        for delay_s, data in self.rig.bus.receive(bytes(packet), self.rig.now_s, self.baudrate):
            self.delays_s.append(delay_s)
            self.waiting += data
        return len(packet)

    def readPort(self, length: int) -> list[int]:
        taken, self.waiting = self.waiting[:length], self.waiting[length:]
        return list(taken)

    def getBaudRate(self) -> int:
        return self.baudrate

    def setPacketTimeout(self, length: int) -> None: ...

    def setPacketTimeoutMillis(self, ms: float) -> None: ...

    def isPacketTimeout(self) -> bool:
        return not self.waiting


FEETECH_SDK = scs.PacketHandler(0)
DYNAMIXEL_SDK = dxl.PacketHandler(2.0)
SDK = {"so101": FEETECH_SDK, "koch": DYNAMIXEL_SDK}
TABLE = {"so101": FEETECH, "koch": DYNAMIXEL}
BOTH = pytest.mark.parametrize("kind", ["so101", "koch"])


def read(rig: Rig, motor_id: int, name: str) -> tuple[int, int, int]:
    """(value, result, error) as the SDK decodes them."""
    register = TABLE[rig.arm.config.kind][name]
    data, result, error = SDK[rig.arm.config.kind].readTxRx(rig.port, motor_id, register.address, register.size)
    return (register.decode(bytes(data)) if result == 0 else 0), result, error


def write(rig: Rig, motor_id: int, name: str, value: int) -> tuple[int, int]:
    """(result, error) as the SDK decodes them."""
    register = TABLE[rig.arm.config.kind][name]
    data = register.encode(value)
    return SDK[rig.arm.config.kind].writeTxRx(rig.port, motor_id, register.address, register.size, data)


@BOTH
@given(data=st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=150)
def test_no_bytes_upset_a_bus(kind: str, data: list[bytes]) -> None:
    rig = Rig(kind)
    for piece in data:
        rig.bus.receive(piece, rig.now_s)
        rig.pass_s(0.005)
    rig.now_s += 1.0  # whatever was half a packet is forgotten
    assert rig.bus.receive(b"", rig.now_s) == []
    assert SDK[kind].ping(rig.port, 3)[1] == 0


@pytest.mark.slow
@BOTH
@given(instruction=st.integers(0, 255), motor_id=st.integers(0, 254), data=st.binary(max_size=24))
@settings(max_examples=300)
def test_no_valid_packet_upsets_a_servo(kind: str, instruction: int, motor_id: int, data: bytes) -> None:
    rig = Rig(kind)
    if kind == "koch":
        packet = frame(motor_id, instruction, data)
    else:
        body = bytes((motor_id, len(data) + 2, instruction)) + data
        packet = b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))
    rig.bus.receive(packet, rig.now_s)
    rig.pass_s(0.05)
    for servo in rig.arm.servos:
        servo.refresh()
        for name, register in servo.table.items():
            end = register.address + register.size
            assert register.decode(bytes(servo.memory[register.address : end])) == servo.values[name], name
        assert math.isfinite(servo.shaft.goal_rad) and 0 <= servo.shaft.torque <= 1


@given(st.binary(max_size=64))
def test_crc_and_stuffing_are_the_sdk_s(data: bytes) -> None:
    assert crc16(data) == DYNAMIXEL_SDK.updateCRC(0, list(data), len(data))
    assert unstuffed(stuffed(data)) == data
    assert b"\xff\xff\xfd\x00" not in stuffed(data)


@given(st.binary(min_size=1, max_size=30).filter(lambda data: b"\xff\xff\xfd" not in data), st.integers(0, 252))
def test_what_the_sdk_sends_is_what_we_would(data: bytes, motor_id: int) -> None:
    """But for data with a header in it: dynamixel-sdk 4.0.5 computes the stuffing and sends the packet without."""
    sent: list[bytes] = []

    class Tap(Port):
        def __init__(self) -> None:
            self.is_using = False

        def clearPort(self) -> None: ...

        def writePort(self, packet: list[int]) -> int:
            sent.append(bytes(packet))
            return len(packet)

    DYNAMIXEL_SDK.writeTxOnly(Tap(), motor_id, 0x1234, len(data), list(data))
    assert sent.pop() == frame(motor_id, 3, b"\x34\x12" + data)
    FEETECH_SDK.writeTxOnly(Tap(), motor_id, 42, len(data), list(data))
    body = bytes((motor_id, len(data) + 3, 3, 42)) + data
    assert sent.pop() == b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))


@BOTH
def test_ping_read_and_write_through_the_sdk(kind: str) -> None:
    rig, sdk = Rig(kind), SDK[kind]
    models = {i: sdk.ping(rig.port, i)[0] for i in range(1, 7)}
    koch = {1: 1060, 2: 1060, 3: 1200, 4: 1200, 5: 1200, 6: 1200}
    assert models == ({i: 777 for i in range(1, 7)} if kind == "so101" else koch)
    assert sdk.ping(rig.port, 7)[1] != 0
    assert write(rig, 3, "Return_Delay_Time", 7) == (0, 0)
    assert read(rig, 3, "Return_Delay_Time") == (7, 0, 0)
    assert rig.writes == [(3, "Return_Delay_Time", 7, True)]


@BOTH
def test_positions_are_homed_and_within_the_limits(kind: str) -> None:
    rig = Rig(kind)
    for i in range(1, 7):
        angle = rig.arm.joints.positions()[i - 1]
        present, _, _ = read(rig, i, "Present_Position")
        assert present == round(MIDDLE + angle * COUNTS_PER_RAD)
        assert read(rig, i, "Homing_Offset")[0] != 0
        assert read(rig, i, "Min_Position_Limit")[0] <= present <= read(rig, i, "Max_Position_Limit")[0]
    raw = Rig(kind, calibrated=False)
    assert read(raw, 1, "Present_Position")[0] == MIDDLE + raw.servo(1).mount
    assert read(raw, 1, "Max_Position_Limit")[0] == 4095


@BOTH
def test_group_reads_and_writes_move_the_arm(kind: str) -> None:
    rig = Rig(kind)
    module = scs if kind == "so101" else dxl
    goal, present = TABLE[kind]["Goal_Position"], TABLE[kind]["Present_Position"]
    for i in range(1, 7):
        write(rig, i, "Torque_Enable", 1)
    writer = module.GroupSyncWrite(rig.port, SDK[kind], goal.address, goal.size)
    wanted = {i: MIDDLE - 60 * i for i in range(1, 7)}
    for i, value in wanted.items():
        writer.addParam(i, goal.encode(value))
    assert writer.txPacket() == 0
    rig.pass_s(3.0)
    reader = module.GroupSyncRead(rig.port, SDK[kind], present.address, present.size)
    for i in wanted:
        reader.addParam(i)
    assert reader.txRxPacket() == 0
    assert {i: reader.getData(i, present.address, present.size) for i in wanted} == pytest.approx(wanted, abs=1)
    if kind == "koch":
        assert reader.fastSyncRead() == 0
        assert {i: reader.getData(i, present.address, present.size) for i in wanted} == pytest.approx(wanted, abs=1)


def test_dynamixel_bulk_and_registered_instructions() -> None:
    rig = Rig("koch")
    bulk = dxl.GroupBulkWrite(rig.port, DYNAMIXEL_SDK)
    bulk.addParam(1, 112, 4, [5, 0, 0, 0])
    bulk.addParam(2, 65, 1, [1])
    assert bulk.txPacket() == 0
    assert rig.servo(1).values["Profile_Velocity"] == 5 and rig.servo(2).values["LED"] == 1
    reader = dxl.GroupBulkRead(rig.port, DYNAMIXEL_SDK)
    reader.addParam(1, 112, 4)
    reader.addParam(2, 146, 1)
    assert reader.txRxPacket() == 0
    assert reader.getData(1, 112, 4) == 5 and 20 < reader.getData(2, 146, 1) < 40
    assert DYNAMIXEL_SDK.regWriteTxRx(rig.port, 3, 65, 1, [1]) == (0, 0)
    assert rig.servo(3).values["LED"] == 0
    DYNAMIXEL_SDK.action(rig.port, 3)
    assert rig.servo(3).values["LED"] == 1
    found, _ = DYNAMIXEL_SDK.broadcastPing(rig.port)
    assert {i: model for i, (model, _) in found.items()} == {1: 1060, 2: 1060, 3: 1200, 4: 1200, 5: 1200, 6: 1200}


def test_a_broken_packet_is_ignored_by_feetech_and_named_by_dynamixel() -> None:
    rig = Rig("so101")
    assert rig.bus.receive(b"\xff\xff\x01\x02\x01\x00", rig.now_s) == []
    koch = Rig("koch")
    ping = bytearray(frame(1, 1, b""))
    ping[-1] ^= 0xFF
    [(_, answer)] = koch.bus.receive(bytes(ping), koch.now_s)
    assert answer == frame(1, 0x55, b"\x03")


@BOTH
def test_a_packet_in_pieces_and_two_at_once(kind: str) -> None:
    rig = Rig(kind)
    ping = frame(2, 1, b"") if kind == "koch" else bytes((255, 255, 2, 2, 1, ~5 & 0xFF))
    for byte in ping[:-1]:
        assert rig.bus.receive(bytes((byte,)), rig.now_s) == []
    assert len(rig.bus.receive(ping[-1:] + ping, rig.now_s)) == 2


@BOTH
def test_another_baud_rate_is_not_heard(kind: str) -> None:
    rig = Rig(kind)
    rig.port.baudrate = 500_000
    assert SDK[kind].ping(rig.port, 1)[1] != 0
    assert rig.writes == []
    rig.port.baudrate = 1_000_000
    code = {"so101": 1, "koch": 2}[kind]
    assert write(rig, 1, "Baud_Rate", code)[1] == 0
    assert SDK[kind].ping(rig.port, 1)[1] != 0
    rig.port.baudrate = {"so101": 500_000, "koch": 115_200}[kind]
    assert SDK[kind].ping(rig.port, 1)[1] == 0


def test_dynamixel_eeprom_is_locked_while_torque_is_on() -> None:
    rig = Rig("koch")
    assert write(rig, 3, "Torque_Enable", 1) == (0, 0)
    assert write(rig, 3, "Homing_Offset", 5) == (0, 7)
    assert rig.writes[-1] == (3, "Homing_Offset", 5, False)
    assert write(rig, 3, "Torque_Enable", 0) == (0, 0)
    assert write(rig, 3, "Homing_Offset", 5) == (0, 0)
    assert write(rig, 3, "Present_Position", 5) == (0, 7)
    assert write(rig, 1, "Goal_Current", 5) == (0, 7)  # an XL430 has no current sensor


def test_dynamixel_limits_hold_in_position_mode_only() -> None:
    rig = Rig("koch")
    high = rig.servo(3).values["Max_Position_Limit"]
    assert write(rig, 3, "Goal_Position", high + 1) == (0, 6)
    assert write(rig, 3, "Operating_Mode", 4) == (0, 0)
    assert write(rig, 3, "Goal_Position", high + 10_000) == (0, 0)
    assert write(rig, 1, "Operating_Mode", 5) == (0, 4)  # nor can an XL430 control current


def test_feetech_clamps_at_its_limits_and_keeps_only_what_is_unlocked() -> None:
    rig = Rig("so101")
    high = rig.servo(1).values["Max_Position_Limit"]
    write(rig, 1, "Torque_Enable", 1)
    write(rig, 1, "Goal_Position", high + 400)
    rig.pass_s(3.0)
    assert read(rig, 1, "Present_Position")[0] == pytest.approx(high, abs=1)
    write(rig, 1, "Lock", 1)
    write(rig, 1, "P_Coefficient", 11)
    write(rig, 2, "Lock", 0)
    write(rig, 2, "P_Coefficient", 11)
    rig.arm.brown_out(0.1)
    rig.pass_s(0.2)
    assert read(rig, 1, "P_Coefficient")[0] == 32
    assert read(rig, 2, "P_Coefficient")[0] == 11


def test_goals_without_torque() -> None:
    """Feetech drives to the goal it finds when torque comes on; Dynamixel holds where it stands."""
    for kind, moves in (("so101", True), ("koch", False)):
        rig = Rig(kind)
        before = read(rig, 1, "Present_Position")[0]
        write(rig, 1, "Goal_Position", before + 300)
        rig.pass_s(0.5)
        assert read(rig, 1, "Present_Position")[0] == before
        write(rig, 1, "Torque_Enable", 1)
        rig.pass_s(1.0)
        assert (read(rig, 1, "Present_Position")[0] == pytest.approx(before + 300, abs=1)) is moves


@BOTH
def test_speed_and_acceleration_registers_are_honoured(kind: str) -> None:
    rig = Rig(kind)
    start = read(rig, 1, "Present_Position")[0]
    speed = {"so101": ("Goal_Velocity", 400), "koch": ("Profile_Velocity", round(400 / (0.229 / 60 * 4096)))}[kind]
    write(rig, 1, "Torque_Enable", 1)
    write(rig, 1, *speed)
    write(rig, 1, "Goal_Position", start + 800)
    rig.pass_s(1.0)
    assert read(rig, 1, "Present_Position")[0] - start == pytest.approx(400, abs=25)
    rig.pass_s(1.5)
    assert read(rig, 1, "Present_Position")[0] == pytest.approx(start + 800, abs=1)
    acceleration = {
        "so101": ("Acceleration", 4),
        "koch": ("Profile_Acceleration", round(400 / (214.577 / 3600 * 4096))),
    }
    write(rig, 1, *acceleration[kind])
    write(rig, 1, "Goal_Position", start)
    rig.pass_s(0.5)
    assert 800 + start - read(rig, 1, "Present_Position")[0] == pytest.approx(0.5 * 400 * 0.25, abs=15)


def test_bus_watchdog() -> None:
    rig = Rig("koch")
    write(rig, 1, "Torque_Enable", 1)
    write(rig, 1, "Bus_Watchdog", 5)
    for _ in range(10):
        rig.pass_s(0.05)
        assert DYNAMIXEL_SDK.ping(rig.port, 4)[1] == 0  # a packet for anybody feeds it
    assert read(rig, 1, "Bus_Watchdog")[0] == 5
    start = read(rig, 1, "Present_Position")[0]
    write(rig, 1, "Profile_Velocity", 20)
    write(rig, 1, "Goal_Position", start + 1000)
    rig.pass_s(0.12)
    stopped, _, _ = read(rig, 1, "Present_Position")
    assert read(rig, 1, "Bus_Watchdog")[0] == 255
    assert start < stopped < start + 100
    assert write(rig, 1, "Goal_Position", start) == (0, 4)
    rig.pass_s(0.5)
    assert read(rig, 1, "Present_Position")[0] == pytest.approx(stopped, abs=2)
    assert rig.servo(1).values["Torque_Enable"] == 1  # it holds
    assert write(rig, 1, "Bus_Watchdog", 10) == (0, 4)
    assert write(rig, 1, "Bus_Watchdog", 0) == (0, 0)
    assert write(rig, 1, "Goal_Position", start) == (0, 0)


def test_dynamixel_shuts_down_until_rebooted() -> None:
    for kind, bit in (("overload", 0x20), ("over_temperature", 0x04)):
        rig = Rig("koch")
        write(rig, 3, "Torque_Enable", 1)
        fault = rig.fault(kind, 3)
        rig.pass_s(0.05)
        value, result, error = read(rig, 3, "Hardware_Error_Status")
        assert (value, result, error) == (bit, 0, 0x80)
        assert read(rig, 3, "Torque_Enable")[0] == 0
        rig.arm.set_condition(fault, False)
        rig.pass_s(0.05)
        assert write(rig, 3, "Torque_Enable", 1)[1] & 0x80
        assert read(rig, 3, "Torque_Enable")[0] == 0
        DYNAMIXEL_SDK.reboot(rig.port, 3)
        assert DYNAMIXEL_SDK.ping(rig.port, 3)[1] != 0
        rig.pass_s(0.4)
        assert read(rig, 3, "Hardware_Error_Status") == (0, 0, 0)
        assert write(rig, 3, "Torque_Enable", 1) == (0, 0)


def test_feetech_flags_and_protections() -> None:
    rig = Rig("so101")
    write(rig, 2, "Torque_Enable", 1)
    for kind, bit in (("under_voltage", 1), ("over_temperature", 4), ("overload", 32)):
        fault = rig.fault(kind, 2)
        rig.pass_s(0.02)
        assert read(rig, 2, "Present_Position")[2] == bit
        assert write(rig, 2, "Torque_Enable", 0) == (0, bit)  # obeyed, and reported all the same
        assert rig.servo(2).values["Torque_Enable"] == 0
        write(rig, 2, "Torque_Enable", 1)
        rig.pass_s(0.02)
        assert rig.servo(2).shaft.torque == {1: 1.0, 4: 0.0, 32: 0.2}[bit]
        rig.arm.set_condition(fault, False)
        rig.pass_s(0.02)
        assert read(rig, 2, "Present_Position")[2] == 0


def test_a_motor_that_pushes_for_too_long_overloads() -> None:
    rig = Rig("so101")
    write(rig, 6, "Max_Position_Limit", 4095)
    write(rig, 6, "Torque_Enable", 1)
    write(rig, 6, "Goal_Position", 3500)  # far beyond the stop
    rig.pass_s(1.5)
    assert read(rig, 6, "Present_Position")[2] == 0
    rig.pass_s(1.5)
    assert read(rig, 6, "Present_Load")[0] == 200
    assert read(rig, 6, "Present_Position")[2] == 32
    write(rig, 6, "Goal_Position", 1500)  # away from what it pushed against
    assert read(rig, 6, "Present_Position")[2] == 0


@BOTH
def test_brown_out_forgets_what_is_volatile(kind: str) -> None:
    rig = Rig(kind)
    write(rig, 1, "Torque_Enable", 1)
    rig.arm.brown_out(0.3)
    assert SDK[kind].ping(rig.port, 1)[1] != 0
    rig.pass_s(0.25)
    assert SDK[kind].ping(rig.port, 1)[1] != 0
    rig.pass_s(0.1)
    assert read(rig, 1, "Torque_Enable") == (0, 0, 0)
    assert read(rig, 1, "Homing_Offset")[0] != 0


def sync_read(rig: Rig) -> list[tuple[float, bytes]]:
    """Present_Position of all six."""
    if rig.arm.config.kind == "koch":
        packet = frame(254, 0x82, bytes((132, 0, 4, 0, 1, 2, 3, 4, 5, 6)))
    else:
        body = bytes((254, 10, 0x82, 56, 2, 1, 2, 3, 4, 5, 6))
        packet = b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))
    return rig.bus.receive(packet, rig.now_s)


@BOTH
def test_faults_of_answers(kind: str) -> None:
    rig = Rig(kind)
    whole = sync_read(rig)
    assert len(whole) == 6
    first, second = (answer for _, answer in whole[:2])
    for fault_kind in ("lost", "corrupt", "truncated", "noise", "late", "stuck"):
        fault = rig.fault(fault_kind, 2)
        answers = sync_read(rig)
        assert answers[0][1] == first
        if fault_kind == "lost":
            assert [answer for _, answer in answers] == [first, *(answer for _, answer in whole[2:])]
        elif fault_kind in ("late", "stuck"):
            late_s = {"late": 0.02, "stuck": 0.08}[fault_kind]
            assert answers[1][1] == second
            assert answers[1][0] - whole[1][0] == pytest.approx(late_s)
            assert answers[2][0] == pytest.approx(whole[2][0])
        elif fault_kind == "corrupt":
            assert answers[1][1] != second and len(answers[1][1]) == len(second)
        elif fault_kind == "truncated":
            assert second.startswith(answers[1][1]) and 0 < len(answers[1][1]) < len(second)
        else:
            assert second in answers[1][1] and len(answers[1][1]) > len(second)
        again = sync_read(rig)
        assert (again == whole) is (fault_kind == "stuck")  # which strikes once
        rig.faults.remove([fault])
        assert sync_read(rig) == whole


def test_a_fault_s_probability_count_and_seed() -> None:
    def lost(seed: int) -> list[int]:
        rig = Rig("so101")
        rig.fault("lost", probability=0.3).random.seed(seed)
        return [6 - len(sync_read(rig)) for _ in range(100)]

    assert lost(1) == lost(1) != lost(2)
    assert 120 < sum(lost(1)) < 240
    rig = Rig("so101")
    rig.fault("lost", count=4)
    assert [6 - len(sync_read(rig)) for _ in range(3)] == [4, 0, 0]


def test_what_follows_a_dead_motor() -> None:
    """Behind it Dynamixels wait for ever; STS servos, here, answer a millisecond later."""
    rig = Rig("koch")
    rig.fault("dead", 3)
    assert len(sync_read(rig)) == 2
    assert DYNAMIXEL_SDK.ping(rig.port, 3)[1] != 0
    rig = Rig("so101")
    usual = sync_read(rig)
    rig.fault("dead", 3)
    answers = sync_read(rig)
    assert [answer for _, answer in answers] == [answer for _, answer in usual if answer[2] != 3]
    assert answers[2][0] > usual[2][0]


@BOTH
def test_two_motors_with_one_id_collide(kind: str) -> None:
    rig = Rig(kind)
    fault = rig.fault("duplicate_id", 4)
    results = {read(rig, 4, "Present_Position")[1] for _ in range(20)}
    assert results != {0}
    assert read(rig, 5, "Present_Position")[1] == 0
    rig.arm.set_condition(fault, False)
    assert read(rig, 4, "Present_Position")[1] == 0


@BOTH
def test_wrong_model(kind: str) -> None:
    rig = Rig(kind)
    fault = rig.fault("wrong_model", 4)
    assert SDK[kind].ping(rig.port, 4)[0] == {"so101": 2825, "koch": 1190}[kind]
    rig.arm.set_condition(fault, False)
    assert SDK[kind].ping(rig.port, 4)[0] == {"so101": 777, "koch": 1200}[kind]


def test_a_servo_near_the_wrap_goes_the_long_way() -> None:
    """Fault 8 of every list: homed badly, the encoder's 4095 → 0 lies inside the travel."""
    rig = Rig("so101")
    servo = rig.servo(1)
    write(rig, 1, "Homing_Offset", 1500 if servo.mount < 0 else -1500)
    write(rig, 1, "Min_Position_Limit", 0)
    write(rig, 1, "Max_Position_Limit", 4095)
    write(rig, 1, "Torque_Enable", 1)
    before = servo.shaft.position_rad
    present = read(rig, 1, "Present_Position")[0]
    write(rig, 1, "Goal_Position", 10 if present > MIDDLE else 4085)
    rig.pass_s(3.0)
    assert abs(servo.shaft.position_rad - before) > 1.0


def test_joint_names_are_the_servos() -> None:
    assert [servo.name for servo in Rig("so101").arm.servos] == [*JOINTS]
    assert EmulatedFeetechBus.status(1, 0) == b"\xff\xff\x01\x02\x00\xfc"


def test_the_adapter_waits_for_its_timer_or_for_a_full_buffer() -> None:
    adapter = UsbAdapter(0.016)
    sent_s = adapter.request(10.0, 14, 1_000_000)
    assert sent_s == pytest.approx(10.0 + OUT_S + 140e-6)
    adapter.answer(sent_s, bytes(48), 1_000_000)
    assert adapter.next_s == pytest.approx(sent_s + 10e-6 + 0.016)
    assert adapter.deliver(adapter.next_s - 1e-6) == b""
    assert adapter.deliver(adapter.next_s) == bytes(48)
    assert adapter.next_s == math.inf
    for i in range(5):
        adapter.answer(20.0 + i * 1e-3, bytes(15), 1_000_000)
    assert adapter.next_s == pytest.approx(20.004 + 150e-6)  # 75 bytes: full before the timer
    assert len(adapter.deliver(adapter.next_s)) == FULL_BYTES
    assert len(adapter.deliver(20.05)) == 75 - FULL_BYTES


@given(
    st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 80)), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.001, 0.016]),
)
def test_the_adapter_loses_and_reorders_nothing(answers: list[tuple[float, int]], latency_s: float) -> None:
    adapter = UsbAdapter(latency_s)
    start_s, sent = 5.0, b""
    for i, (pause_s, length) in enumerate(answers):
        data = bytes((i,)) * length
        adapter.answer(start_s + pause_s, data, 1_000_000)
        start_s += pause_s + length * 10e-6
        sent += data
    got, now_s = b"", 0.0
    while adapter.next_s < math.inf:
        assert adapter.next_s >= now_s
        now_s = adapter.next_s
        piece = adapter.deliver(now_s)
        assert piece
        got += piece
    assert got == sent
    assert now_s <= start_s + latency_s + 1e-6
