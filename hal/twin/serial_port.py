"""The serial port that a host opens: a pseudo-terminal behind a stable name, its baud rate honoured."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import tty
from pathlib import Path

from tactus.hal.twin.bus import EmulatedBus
from tactus.hal.twin.usb_adapter import UsbAdapter

TCGETS2 = 0x802C542A
"""ioctl: struct termios2, four words of flags, 20 bytes, then the input and the output speed (asm-generic/ioctls.h)."""


class SerialPort:
    """One emulated USB adapter with its bus: `link` points to the terminal while it is plugged in."""

    def __init__(self, link: Path, bus: EmulatedBus, latency_s: float) -> None:
        self.link, self.bus = link, bus
        self.adapter = UsbAdapter(latency_s)
        self.master = -1
        self._slave = -1
        self.plug()

    @property
    def plugged(self) -> bool:
        return self.master >= 0

    def plug(self) -> None:
        """Appear under the link's name; the device behind it is a new one each time."""
        if self.plugged:
            return
        self.master, self._slave = os.openpty()  # the slave stays open: hosts come and go without a hang-up
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        fresh = self.link.with_name(f".{self.link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self.link)

    def unplug(self) -> None:
        """Disappear: the host's next call on the port fails."""
        if not self.plugged:
            return
        self.link.unlink(missing_ok=True)
        os.close(self.master)
        os.close(self._slave)
        self.master = self._slave = -1
        self.adapter.clear()
        self.bus.buffer.clear()

    @property
    def baudrate(self) -> int:
        """What the host has set, bit/s."""
        state = array.array("I", bytes(64))
        fcntl.ioctl(self.master, TCGETS2, state)
        return state[10]

    def receive(self, now_s: float) -> None:
        """Take what the host has written to the bus."""
        try:
            data = os.read(self.master, 4096)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EIO):
                return
            raise
        baudrate = self.baudrate or 1
        end_s = self.adapter.request(now_s, len(data), baudrate)
        for delay_s, answer in self.bus.receive(data, now_s, baudrate):
            self.adapter.answer(end_s + delay_s, answer, baudrate)

    def deliver(self, now_s: float) -> None:
        """Give the host what has arrived by now. A host that never reads loses bytes, as with a real UART."""
        if self.plugged and (data := self.adapter.deliver(now_s)):
            with contextlib.suppress(BlockingIOError):
                os.write(self.master, data)
