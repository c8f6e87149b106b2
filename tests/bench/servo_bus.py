"""Rate and CPU of reading and writing six servos: ours, the SDKs as they are, LeRobot's bus; in turns, in one run.

    python tests/bench/servo_bus.py [--seconds=2] [--rounds=2]

A cycle reads Present_Position of six servos and writes their Goal_Position, at 1 Mbaud, over the twin's emulated bus:
a pseudo-terminal, wire time, and a USB adapter with a latency timer of 1 or 16 ms. CPU is this process's own
(time.process_time), as a share of one core; the twin's is not in it.
- ours: tactus.hal.servo, on the SDKs; "fast" reads with Dynamixel's Fast Sync Read
- sdk: GroupSyncRead and GroupSyncWrite with the SDK's own port, as the SDKs' examples use them
- lerobot: FeetechMotorsBus and DynamixelMotorsBus, sync_read and sync_write
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dynamixel_sdk
import scservo_sdk

from tactus.hal.servo.bus import Motor
from tactus.hal.servo.dynamixel import DynamixelBus
from tactus.hal.servo.feetech import FeetechBus
from tactus.hal.servo.registers import TABLES
from tactus.hal.servo.transactions import SUSPECT_S

PACE_HZ = 100.0
ARMS = {"feetech": "so101", "dynamixel": "koch"}
Cycle = Callable[[], object]
FAILED = (RuntimeError, ConnectionError)
"""How a cycle fails: ours and LeRobot's say so by an exception; the SDK's result is made one here."""


@contextmanager
def twin(latency_ms: float) -> Iterator[dict[str, Any]]:
    """The arms of a twin whose adapters have this latency timer."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tactus", "twin", f"--folder={folder}", "--world=kinematic"]
        command += [f"--arms.{name}.kind={kind}" for name, kind in ARMS.items()]
        command += [f"--usb_latency_ms={latency_ms}", f"--parent={os.getpid()}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if not any(line == "twin: ready\n" for line in process.stdout):
                raise SystemExit("the twin did not start")
            yield json.loads(Path(folder, "twin.json").read_text())["arms"]
        finally:
            process.terminate()
            process.wait()


@contextmanager
def ours(arm: dict[str, Any], fast: bool = False) -> Iterator[Cycle]:
    motors = {name: Motor(motor["id"], motor["model"]) for name, motor in arm["motors"].items()}
    bus = (
        DynamixelBus(arm["port"], motors, fast=fast)
        if arm["protocol"] == "dynamixel"
        else FeetechBus(arm["port"], motors)
    )
    with bus:
        bus.check()
        if fast and not bus.fast:  # type: ignore[union-attr]
            raise SystemExit("Fast Sync Read does not work")
        failed = bus.write_each("Return_Delay_Time", dict.fromkeys(motors, 0))
        assert not failed, failed
        time.sleep(SUSPECT_S)  # for so long after opening, answers are read with neighbours, and are longer

        def cycle() -> None:
            readings = bus.read("Present_Position")
            if readings.failed:
                raise RuntimeError(readings.failed)
            bus.write("Goal_Position", readings.values)

        yield cycle


@contextmanager
def sdk(arm: dict[str, Any], fast: bool = False) -> Iterator[Cycle]:
    feetech = arm["protocol"] == "feetech"
    module: Any = scservo_sdk if feetech else dynamixel_sdk
    port, handler = module.PortHandler(arm["port"]), module.PacketHandler(0 if feetech else 2.0)
    table = TABLES[arm["protocol"]]
    present, goal = table["Present_Position"], table["Goal_Position"]
    reader = module.GroupSyncRead(port, handler, present.address, present.size)
    writer = module.GroupSyncWrite(port, handler, goal.address, goal.size)
    ids = [motor["id"] for motor in arm["motors"].values()]
    for motor_id in ids:
        reader.addParam(motor_id)
    if not port.openPort():
        raise SystemExit("the SDK cannot open the port")

    def cycle() -> None:
        result = reader.fastSyncRead() if fast else reader.txRxPacket()
        if result != module.COMM_SUCCESS:
            raise RuntimeError(handler.getTxRxResult(result))
        writer.clearParam()
        for motor_id in ids:
            position = reader.getData(motor_id, present.address, present.size)
            writer.addParam(motor_id, list(position.to_bytes(goal.size, "little")))
        writer.txPacket()

    try:
        yield cycle
    finally:
        port.closePort()


@contextmanager
def lerobot(arm: dict[str, Any]) -> Iterator[Cycle]:
    from lerobot.motors.dynamixel import DynamixelMotorsBus
    from lerobot.motors.feetech import FeetechMotorsBus
    from lerobot.motors.motors_bus import Motor as TheirMotor
    from lerobot.motors.motors_bus import MotorNormMode

    kind = FeetechMotorsBus if arm["protocol"] == "feetech" else DynamixelMotorsBus
    motors = {n: TheirMotor(m["id"], m["model"], MotorNormMode.DEGREES) for n, m in arm["motors"].items()}
    bus = kind(arm["port"], motors)
    bus.connect()

    def cycle() -> None:
        bus.sync_write("Goal_Position", bus.sync_read("Present_Position", normalize=False), normalize=False)

    try:
        yield cycle
    finally:
        bus.disconnect()


def measure(cycle: Cycle, seconds: float, paced: bool) -> tuple[float, float, int]:
    """Cycles a second, share of a core, and cycles that failed."""
    for _ in range(20):
        with suppress(*FAILED):
            cycle()
    count = failed = 0
    start, cpu = time.perf_counter(), time.process_time()
    while (now := time.perf_counter() - start) < seconds:
        if paced and (ahead := count / PACE_HZ - now) > 0:
            time.sleep(ahead)
        try:
            cycle()
        except FAILED:
            failed += 1
        count += 1
    return (count - failed) / now, (time.process_time() - cpu) / now, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="turns that each takes; the medians count")
    arguments = parser.parse_args()
    peers: list[tuple[str, str, Callable[[dict[str, Any]], Any]]] = [
        ("feetech", "ours", ours),
        ("feetech", "sdk", sdk),
        ("feetech", "lerobot", lerobot),
        ("dynamixel", "ours", ours),
        ("dynamixel", "ours, fast", lambda arm: ours(arm, fast=True)),
        ("dynamixel", "sdk", sdk),
        ("dynamixel", "sdk, fast", lambda arm: sdk(arm, fast=True)),
        ("dynamixel", "lerobot", lerobot),
    ]
    found: dict[tuple[float, str, str], list[tuple[float, float, float, float, int]]] = {}
    for latency_ms in (1.0, 16.0):
        with twin(latency_ms) as arms:
            for _ in range(arguments.rounds):
                for protocol, peer, make in peers:
                    with make(arms[protocol]) as cycle:
                        rate, cpu, failed = measure(cycle, arguments.seconds, paced=False)
                        paced_rate, paced_cpu, more = measure(cycle, arguments.seconds, paced=True)
                    found.setdefault((latency_ms, protocol, peer), []).append(
                        (rate, cpu, paced_rate, paced_cpu, failed + more)
                    )
    print(f"{'':30}  -- unpaced --   -- {PACE_HZ:.0f} Hz --")
    print(f"{'adapter':>8} {'protocol':<10} {'bus':<10} {'Hz':>7} {'CPU':>7} {'Hz':>7} {'CPU':>7}   failed")
    medians = {}
    for (latency_ms, protocol, peer), rows in found.items():
        rate, cpu, paced_rate, paced_cpu = (statistics.median(column) for column in list(zip(*rows, strict=True))[:4])
        medians[latency_ms, protocol, peer] = rate, cpu, paced_cpu
        print(
            f"{latency_ms:5.0f} ms {protocol:<10} {peer:<10} {rate:7.0f} {cpu:7.1%} {paced_rate:7.0f} {paced_cpu:7.1%}"
            f"   {sum(row[4] for row in rows):6d}"
        )
    for protocol, best in (("feetech", "ours"), ("dynamixel", "ours"), ("dynamixel", "ours, fast")):
        rate, cpu, paced_cpu = medians[1.0, protocol, best]
        slow = medians[16.0, protocol, best][0]
        for what, value, holds in (
            (">= 330 Hz over 1 ms USB", f"{rate:.0f} Hz", rate >= 330),
            ("<= 12 % CPU there", f"{cpu:.1%}", cpu <= 0.12),
            ("<= 5 % CPU at 100 Hz", f"{paced_cpu:.1%}", paced_cpu <= 0.05),
            (">= 50 Hz over a 16 ms adapter", f"{slow:.0f} Hz", slow >= 50),
        ):
            print(f"{protocol}, {best}: {what}: {value}: {'holds' if holds else 'DOES NOT HOLD'}")


if __name__ == "__main__":
    main()
