"""A small process that switches the motors' torque off if the robot's own process is killed.

    python -m tactus.hal.governor.guardian      one JSON object on standard input; it answers "ready" on standard output

    {"port": …, "baudrate": …, "protocol": "feetech" or "dynamixel", "ids": […], "parent": pid,
     "torque_register": [address, bytes] (not given: the protocol's usual one), "log": file (optional)}

It waits until the parent is gone (pidfd) or the pipe of its standard input closes; a line "goodbye" before that ends
it. Then it takes the port and first tells all motors at once, which nobody confirms, then each one until it confirms.
Imports nothing but the standard library, so that it starts quickly and stays small.

Packets: Feetech's STS communication protocol manual; emanual.robotis.com/docs/en/dxl/protocol2.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

TORQUE_REGISTERS = {"feetech": (40, 1), "dynamixel": (64, 1)}
OPEN_FOR_S = 10.0
LOCKED_FOR_S = 0.1
"""How long another process's lock on the port is respected: a child of the dead one may hold it for ever."""
ANSWER_S = 0.03
ROUNDS = 5
BROADCAST = 0xFE
WRITE, SYNC_WRITE = 0x03, 0x83
BOTHER, TCGETS2, TCSETS2 = 0o010000, 0x802C542A, 0x402C542B


def feetech_packet(motor_id: int, instruction: int, params: bytes) -> bytes:
    """One instruction packet of the STS protocol."""
    body = bytes([motor_id, len(params) + 2, instruction]) + params
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def dynamixel_packet(motor_id: int, instruction: int, params: bytes) -> bytes:
    """One instruction packet of Protocol 2.0; params hold no FF FF FD, which would need stuffing."""
    packet = b"\xff\xff\xfd\x00" + struct.pack("<BHB", motor_id, len(params) + 3, instruction) + params
    return packet + struct.pack("<H", crc16(packet))


def crc16(data: bytes) -> int:
    """CRC-16 with polynomial 0x8005, as Protocol 2.0 has it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def off_packets(protocol: str, ids: Sequence[int], register: Sequence[int]) -> tuple[bytes, dict[int, bytes]]:
    """Torque off for all motors at once, and for each by its id. register: address and size in bytes."""
    address, size = register
    zero = bytes(size)
    if protocol == "feetech":
        all_ids = b"".join(bytes([motor_id]) + zero for motor_id in ids)
        at_once = feetech_packet(BROADCAST, SYNC_WRITE, bytes([address, size]) + all_ids)
        return at_once, {i: feetech_packet(i, WRITE, bytes([address]) + zero) for i in ids}
    all_ids = b"".join(bytes([motor_id]) + zero for motor_id in ids)
    at_once = dynamixel_packet(BROADCAST, SYNC_WRITE, struct.pack("<HH", address, size) + all_ids)
    return at_once, {i: dynamixel_packet(i, WRITE, struct.pack("<H", address) + zero) for i in ids}


def confirms(protocol: str, motor_id: int, data: bytes) -> bool:
    """Whether `data` holds the motor's answer to a write. An overload flag in it is no refusal: torque is off."""
    if protocol == "feetech":
        at = data.find(b"\xff\xff" + bytes([motor_id, 2]))
        return at >= 0 and len(data) >= at + 6 and ~sum(data[at + 2 : at + 5]) & 0xFF == data[at + 5]
    at = data.find(b"\xff\xff\xfd\x00" + struct.pack("<BHB", motor_id, 4, 0x55))
    whole = at >= 0 and len(data) >= at + 11 and crc16(data[at : at + 9]) == struct.unpack_from("<H", data, at + 9)[0]
    return whole and data[at + 8] & 0x7F == 0


def open_port(port: str, baudrate: int, respect_lock: bool) -> int:
    """A raw file descriptor, its input empty. Raises OSError: gone, or locked if locks are to be respected."""
    fd = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        if respect_lock:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        speed = getattr(termios, f"B{baudrate}", None)
        if speed is not None:
            termios.tcsetattr(fd, termios.TCSANOW, [0, 0, control, 0, speed, speed, [b"\0"] * 32])
        else:
            settings = bytearray(fcntl.ioctl(fd, TCGETS2, bytes(44)))
            struct.pack_into("<IIII", settings, 0, 0, 0, control | BOTHER, 0)
            struct.pack_into("<II", settings, 36, baudrate, baudrate)
            fcntl.ioctl(fd, TCSETS2, bytes(settings))
        termios.tcflush(fd, termios.TCIOFLUSH)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, termios.error):
            raise OSError(*error.args) from error
        raise
    return fd


def send(fd: int, packet: bytes) -> None:
    """Write a packet to a port, on an empty line."""
    termios.tcflush(fd, termios.TCIFLUSH)
    while packet:
        select.select([], [fd], [], 1.0)
        packet = packet[os.write(fd, packet) :]


def listen(fd: int, done: Callable[[bytes], bool]) -> bool:
    """Read until `done`, for ANSWER_S at most."""
    data, until_s = b"", time.monotonic() + ANSWER_S
    while (left_s := until_s - time.monotonic()) > 0 and select.select([fd], [], [], left_s)[0]:
        data += os.read(fd, 4096)
        if done(data):
            return True
    return False


def switch_off(order: dict[str, Any], since_s: float) -> list[int]:
    """Torque off on every motor; returns the ids that did not confirm. Raises OSError if the port cannot be had."""
    protocol = order["protocol"]
    left = list(order["ids"])
    at_once, single = off_packets(protocol, left, order["torque_register"])
    fd = open_port(order["port"], order["baudrate"], respect_lock=time.monotonic() - since_s < LOCKED_FOR_S)
    try:
        for _ in range(2):
            send(fd, at_once)
        for _ in range(ROUNDS):
            for motor_id in list(left):
                send(fd, single[motor_id])
                if listen(fd, lambda data, motor_id=motor_id: confirms(protocol, motor_id, data)):
                    left.remove(motor_id)
            if not left:
                break
    finally:
        os.close(fd)
    return left


def wait_for_end(parent: int) -> bool:
    """Until the parent says goodbye (True), or is gone, or its end of the pipe is closed (False)."""
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        return False
    said = b""
    while True:
        ready, _, _ = select.select([0, pidfd], [], [])
        if 0 in ready:
            data = os.read(0, 4096)
            said += data
            if b"goodbye\n" in said:
                return True
            if not data:
                return False
        elif pidfd in ready:
            return False


def guard(order: dict[str, Any]) -> int:
    """Exit status: 0 after a goodbye, or with every torque off; 1 if a motor did not confirm."""
    began_s = time.monotonic()
    tell(order, f"{order['port']}: the robot's process {order['parent']} is gone, or could not switch off itself")
    while True:
        try:
            left = switch_off(order, began_s)
            break
        except (OSError, termios.error) as error:
            if time.monotonic() - began_s > OPEN_FOR_S:
                tell(order, f"{order['port']} cannot be had: {error}; TORQUE MAY BE ON, cut the power")
                return 1
            time.sleep(0.01)
    spent_ms = (time.monotonic() - began_s) * 1e3
    if left:
        tell(order, f"no answer from motors {left} in {spent_ms:.0f} ms; THEIR TORQUE MAY BE ON, cut the power")
        return 1
    tell(order, f"torque off on all {len(order['ids'])} motors, {spent_ms:.0f} ms later")
    return 0


def tell(order: dict[str, Any], line: str) -> None:
    """To standard error and to the log; neither being there keeps the guardian from its work."""
    targets = [(2, f"guardian: {line}\n")]
    if order.get("log"):
        try:
            fd = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            targets.append((fd, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n"))
        except OSError as error:
            targets[0] = (2, f"guardian: {line} (no log: {error})\n")
    for fd, text in targets:
        try:
            os.write(fd, text.encode())
        except OSError:
            continue  # nobody reads any more


def read_order() -> dict[str, Any]:
    """The first line of standard input. Raises ValueError if it is no order."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    order = json.loads(line)
    if order["protocol"] not in TORQUE_REGISTERS:
        raise ValueError(f"protocol: found {order['protocol']!r}; accepted: {', '.join(TORQUE_REGISTERS)}")
    order.setdefault("torque_register", TORQUE_REGISTERS[order["protocol"]])
    off_packets(order["protocol"], order["ids"], order["torque_register"])
    return {**order, "port": str(order["port"]), "baudrate": int(order["baudrate"]), "parent": int(order["parent"])}


def main() -> int:
    """Exit status 0 or 1 as `guard` has it, 2 if the order cannot be understood."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)  # they are meant for the robot's process, which then says goodbye
    try:
        order = read_order()
    except (ValueError, KeyError, TypeError, struct.error) as error:
        print(f"guardian: this is no order: {error!r}", file=sys.stderr)
        return 2
    print("ready", flush=True)
    return 0 if wait_for_end(order["parent"]) else guard(order)


if __name__ == "__main__":
    sys.exit(main())
