"""The serial port under both vendors' SDKs: reads wait in select(), and each request starts on an empty line.

The SDKs' own PortHandler polls a non-blocking read (a whole core while it waits), and feetech-servo-sdk's `clearPort`
drains the output only, so that a late reply is taken for the answer to the next request, and so on for ever.
"""

from __future__ import annotations

import errno
import os
import select
import termios
import time
from pathlib import Path
from typing import Any

import serial
import serial.tools.list_ports

from tactus.hal.servo.bus import BusError, PortLost

LOST = (OSError, termios.error)
"""How a lost port shows: serial.SerialException is an OSError, and a pty whose other end is closed gives
termios.error, which is not."""

RETURN_DELAY_S = 0.0005
"""The servos' factory setting of Return_Delay_Time, 250 times 2 µs."""

MARGIN_S = 0.010
"""For the operating system to wake the waiting thread."""

LATENCY_RULE = 'ACTION=="add", SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"'
"""udev rule that has FTDI adapters hand bytes on at once."""


class SelectPort:
    """A serial port, mixed in before an SDK's PortHandler: `class Port(SelectPort, PortHandler)`.

    latency_ms: how long the adapter may keep a byte to itself; an FTDI's factory setting is 16. It lengthens only the
    wait for answers that never come.
    """

    # what the SDKs' PortHandler sets in its __init__
    port_name: str
    baudrate: int
    is_open: bool
    is_using: bool
    ser: serial.Serial | None
    tx_time_per_byte: float
    packet_start_time: float
    packet_timeout: float

    latency_ms: float = 16.0

    def setupPort(self, cflag_baud: int) -> bool:
        """Open or reopen at `self.baudrate`. Raises BusError: which port, why not, what to do."""
        self.closePort()
        try:
            self.ser = serial.Serial(self.port_name, self.baudrate, timeout=0, exclusive=True)
        except (*LOST, ValueError) as error:
            raise BusError(explain(self.port_name, error)) from error
        self.is_open = True
        self._set_byte_time()
        set_low_latency(self.ser)
        return True

    def closePort(self) -> None:
        """Let go of the port, whatever state it is in; it can be opened again afterwards."""
        port, self.ser, self.is_open, self.is_using = self.ser, None, False, False
        if port is not None:
            try:
                port.close()
            except LOST:  # the device went before us, and nothing of it is left to close
                return

    def retune(self, baudrate: int) -> None:
        """Another baud rate without letting go of the port."""
        try:
            self._serial().baudrate = baudrate
        except LOST as error:
            raise self._lost(error) from error
        self.baudrate = baudrate
        self._set_byte_time()

    def clearPort(self) -> None:
        """Forget what has arrived; both SDKs call it before each request."""
        try:
            self._serial().reset_input_buffer()
        except LOST as error:
            raise self._lost(error) from error

    def writePort(self, packet: list[int]) -> int:
        try:
            return self._serial().write(bytes(packet)) or 0
        except LOST as error:
            raise self._lost(error) from error

    def readPort(self, length: int) -> bytes:
        """Up to `length` bytes, as soon as there are any; none once the time is up. For calls that the SDKs receive."""
        left_s = (self.packet_timeout - self.getTimeSinceStart()) / 1e3
        return self.receive(time.monotonic() + left_s, length)

    def receive(self, deadline: float, length: int = 4096) -> bytes:
        """What has arrived, as soon as there is anything; b"" at `deadline` (time.monotonic). Raises PortLost."""
        port = self._serial()
        try:
            ready, _, _ = select.select([port.fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return b""
            data = os.read(port.fd, length)
        except BlockingIOError:
            return b""
        except LOST as error:
            raise self._lost(error) from error
        if not data:
            raise self._lost("the other end is closed")
        return data

    def getBytesAvailable(self) -> int:
        try:
            return self._serial().in_waiting
        except LOST as error:
            raise self._lost(error) from error

    def getCurrentTime(self) -> float:
        """ms; monotonic, so that a clock that is set does not end or prolong a wait."""
        return time.monotonic() * 1e3

    def setPacketTimeout(self, packet_length: int) -> None:
        self.packet_start_time = self.getCurrentTime()
        self.packet_timeout = self.timeout_s(packet_length, 1) * 1e3

    def getTimeSinceStart(self) -> float:
        return self.getCurrentTime() - self.packet_start_time

    def timeout_s(self, wire_bytes: int, replies: int) -> float:
        """The longest an exchange of this many bytes (both ways) and replies may take."""
        return wire_bytes * self.tx_time_per_byte / 1e3 + replies * RETURN_DELAY_S + self.latency_ms / 1e3 + MARGIN_S

    def _set_byte_time(self) -> None:
        self.tx_time_per_byte = 10 * 1e3 / self.baudrate  # ms; start bit, 8 data bits, stop bit

    def _serial(self) -> Any:
        if self.ser is None:
            raise BusError(f"{self.port_name} is not open")
        return self.ser

    def _lost(self, error: object) -> PortLost:
        if isinstance(error, termios.error) and error.args:  # (number, text)
            error = error.args[-1]
        return PortLost(f"{self.port_name} is lost: {error}; is the adapter still plugged in and powered?")


def set_low_latency(port: serial.Serial) -> bool:
    """Ask the driver for ASYNC_LOW_LATENCY (an FTDI's latency timer then is 1 ms); False where it cannot (a pty)."""
    try:
        port.set_low_latency_mode(True)
    except (*LOST, ValueError, NotImplementedError, AttributeError):
        return False
    return True


def latency_timer_ms(port: str) -> int | None:
    """The latency timer of a USB serial adapter as the kernel has it; None if it has none (USB-CDC, pty)."""
    file = Path("/sys/bus/usb-serial/devices", Path(port).resolve().name, "latency_timer")
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def find_ports() -> dict[str, str]:
    """Serial ports of this machine, with what each says it is; without those that have no hardware behind them."""
    found = sorted(serial.tools.list_ports.comports())
    return {port.device: port.description for port in found if (port.description, port.hwid) != ("n/a", "n/a")}


def list_ports() -> list[str]:
    """The same, one line each."""
    return [f"{device} ({description})" for device, description in find_ports().items()]


def explain(port: str, error: Exception) -> str:
    """Why a port cannot be opened, and what to do."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        found = list_ports()
        return f"no serial port {port}; found: {', '.join(found) if found else 'none. Plug the adapter in'}"
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission for {port}: add yourself to its group (sudo usermod -aG dialout $USER) and log in again"
    if number in (errno.EAGAIN, errno.EBUSY):
        return f"{port} is in use by another program: end it (fuser -v {port} names it)"
    if isinstance(error, IsADirectoryError) or "Inappropriate ioctl" in str(error):
        return f"{port} is not a serial port; found: {', '.join(list_ports()) or 'none'}"
    return f"{port} cannot be opened: {error}"
