"""Keeps the video encoder from the front of every queue on the processor.

SVT-AV1, with which LeRobot writes videos, gives its threads and the one that calls it the highest real-time priority
(SCHED_FIFO, 99) where it runs as root, as in a container: they then run before a robot's control loop, which they are
there to record. Linux keeps that right by thread: one that has given it up passes that on to the threads it starts.
"""

from __future__ import annotations

import ctypes
import sys

VERSION_3 = 0x20080522
"""Of the kernel's capget and capset (linux/capability.h): two words of 32 bits for each of three sets."""
SYS_NICE = 1 << 23


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up_real_time() -> None:
    """This thread, and those that it starts, stay ordinary from here on. Nothing where it is no privilege of theirs."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    header, words = _Header(VERSION_3, 0), (_Words * 2)()
    if libc.capget(ctypes.byref(header), words) == 0:
        words[0].effective &= ~SYS_NICE
        words[0].permitted &= ~SYS_NICE
        libc.capset(ctypes.byref(header), words)
