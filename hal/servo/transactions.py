"""Requests to servos and their answers on one serial port, by motor id: sent through a vendor's SDK, received here."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tactus.hal.servo.bus import BusError, PortLost
from tactus.hal.servo.packets import BROADCAST, Parser, Status
from tactus.hal.servo.port import SelectPort
from tactus.hal.servo.registers import BAUDRATES, Protocol, Register

T = TypeVar("T")

SUSPECT_S = 1.0
"""For how long after an answer failed to come it may still come, late."""

GARBLED = "the request arrived corrupt"
"""The one refusal that asking again may mend."""

PADS = 15
"""How many different lengths a register is read with while late answers may come."""


@dataclass(frozen=True)
class Answers:
    """What one request brought, by motor id. ids: which were asked. part: where the register lies in the params."""

    ids: list[int]
    by_id: dict[int, Status]
    parser: Parser
    part: slice = slice(None)

    def value(self, entry: Register, motor_id: int) -> int:
        return entry.decode(self.by_id[motor_id].params[self.part])

    def corrupt(self, motor_id: int) -> bool:
        """Whether something came from this motor, whose answer is missing, that did not add up."""
        damaged, missing = self.parser.damaged, [asked for asked in self.ids if asked not in self.by_id]
        if motor_id in damaged or BROADCAST in damaged:
            return True
        # a corrupt packet may not even tell whose it was: then the first that is missing is to blame
        return self.parser.noise > 0 and motor_id == missing[0] and not {*damaged} & {*missing}


class Wire(ABC):
    """Sends requests and receives answers, in one protocol on one port. Not thread-safe.

    Packets carry no number, so a late answer looks like the answer to the next request. Each request therefore starts
    on an empty line, and for a while after an answer failed to come, registers are read together with a changing
    number of their neighbours: an answer of another length belongs to an earlier request and is dropped.

    Once the port is lost, every call raises PortLost until `open` succeeds.
    """

    protocol: Protocol
    overhead: int
    """Bytes of a status packet without params."""

    def __init__(self, handler: SelectPort, sdk: Any, latency_ms: float) -> None:
        self.handler = handler
        self.handler.latency_ms = latency_ms
        self.sdk = sdk
        self.lost: str | None = None
        self.dropped = 0  # answers that nobody was waiting for: late ones, and those of strangers
        self._pad, self._suspect_until = 0, 0.0

    @abstractmethod
    def make_parser(self, longest: int) -> Parser:
        """Of status packets with at most `longest` params."""

    @abstractmethod
    def ping_packet(self, motor_id: int) -> list[int]:
        """A ping, with room for what the SDK fills in."""

    @abstractmethod
    def refusal(self, error: int) -> str:
        """Why a motor refused a request, by the error byte of its answer; "" if it did as it was told."""

    def sync_read(self, entry: Register, ids: list[int]) -> Answers:
        """The register of several motors, in one request."""
        address, size, part = self._padded(entry)
        return self.exchange(lambda: self.send_sync_read(address, size, ids), ids, size, part)

    def send_sync_read(self, address: int, size: int, ids: list[int]) -> int:
        return self.sdk.syncReadTx(self.handler, address, size, ids, len(ids))

    def read(self, entry: Register, motor_id: int) -> Answers:
        """The register of one motor."""
        address, size, part = self._padded(entry)
        ids = [motor_id]
        answers = self.exchange(lambda: self.sdk.readTx(self.handler, motor_id, address, size), ids, size, part)
        status = answers.by_id.get(motor_id)
        if size > entry.size and status is not None and self.refusal(status.error):
            self._suspect_until = 0.0  # perhaps it minds the neighbours
            return self.read(entry, motor_id)
        return answers

    def write(self, entry: Register, motor_id: int, data: list[int]) -> Answers:
        """To one motor, which confirms it."""
        if self._suspicious():
            self.read(Register(entry.address, 1), motor_id)  # whatever is late comes before this answer
        ids = [motor_id]
        return self.exchange(
            lambda: self.sdk.writeTxOnly(self.handler, motor_id, entry.address, entry.size, data), ids, 0
        )

    def sync_write(self, entry: Register, params: list[int]) -> None:
        """To several motors, in one request that nobody confirms. params: id, bytes, and so on."""
        self._send(lambda: self.sdk.syncWriteTxOnly(self.handler, entry.address, entry.size, params, len(params)))

    def listen(self, motor_id: int, quiet_s: float) -> tuple[list[Status], int]:
        """All that answers a ping until the line has been quiet for `quiet_s`, and how many bytes of noise came."""
        parser = self.make_parser(3)
        self._send(lambda: self.sdk.txPacket(self.handler, self.ping_packet(motor_id)))
        found: list[Status] = []
        end = time.monotonic() + max(self.handler.timeout_s(2 * self.overhead + 3, 1), quiet_s)
        while data := self._receive(end):
            found += parser.feed(data)
            end = time.monotonic() + quiet_s
        found += parser.finish()
        return found, parser.noise

    def exchange(
        self,
        send: Callable[[], int],
        ids: list[int],
        size: int,
        part: slice = slice(None),
        parser: Parser | None = None,
    ) -> Answers:
        """Send a request and gather its answers, of `size` params each (or refusals), until all are there, the last
        motor in line has had its turn, or their time is up."""
        answers = Answers(ids, {}, parser or self.make_parser(size), part)
        try:
            self._send(send)
            self._gather(answers, size)
        finally:
            if len(answers.by_id) < len(ids):
                self.suspect()
        return answers

    def _gather(self, answers: Answers, size: int) -> None:
        ids = answers.ids
        # a request is about as long as one answer and a byte a motor
        wire_bytes = (self.overhead + size) * (len(ids) + 1) + len(ids)
        deadline = time.monotonic() + self.handler.timeout_s(wire_bytes, len(ids))
        while len(answers.by_id) < len(ids):
            data = self._receive(deadline)
            for status in answers.parser.feed(data):
                self._keep(status, size, answers)
            if not data or ids[-1] in answers.by_id or ids[-1] in answers.parser.damaged:
                for status in answers.parser.finish():
                    self._keep(status, size, answers)
                break

    def _keep(self, status: Status, size: int, answers: Answers) -> None:
        fits = len(status.params) == size or (not status.params and self.refusal(status.error) != "")
        if status.id in answers.ids and status.id not in answers.by_id and fits:
            answers.by_id[status.id] = status
        else:
            self.dropped += 1

    def suspect(self) -> None:
        """From now on late answers may come."""
        self._suspect_until = time.monotonic() + SUSPECT_S
        self._pad = self._pad % PADS + 1

    def _suspicious(self) -> bool:
        return time.monotonic() < self._suspect_until

    def _padded(self, entry: Register) -> tuple[int, int, slice]:
        """Address and length to ask for, and where the register is in the answer."""
        pad = self._pad if self._suspicious() else 0
        if entry.address >= pad:
            return entry.address - pad, entry.size + pad, slice(pad, None)
        return entry.address, entry.size + pad, slice(entry.size)

    # the port

    def open(self, baudrate: int) -> None:
        handler: Any = self.handler
        if not 0 < baudrate == handler.getCFlagBaud(baudrate):
            accepted = ", ".join(map(str, sorted(BAUDRATES[self.protocol])))
            raise BusError(f"{handler.port_name}: baud rate {baudrate} is none of the servos'; accepted: {accepted}")
        handler.setBaudRate(baudrate)
        self.lost = None
        self.suspect()

    def close(self) -> None:
        self.lost = None
        self.handler.closePort()

    def retune(self, baudrate: int) -> bool:
        """Listen and speak at another baud rate; False if the SDK does not know it."""
        handler: Any = self.handler
        if handler.getCFlagBaud(baudrate) != baudrate:
            return False
        self._guarded(lambda: self.handler.retune(baudrate))
        return True

    def _send(self, send: Callable[[], int]) -> None:
        try:
            result = self._guarded(send)
        finally:  # an interrupt too: the next request may be the one that stops the arm
            self.handler.is_using = False  # the SDK holds it until it has received the answer itself
        if result != 0:
            raise BusError(f"{self.handler.port_name}: request not sent: {self.sdk.getTxRxResult(result)}")

    def _receive(self, deadline: float) -> bytes:
        return self._guarded(lambda: self.handler.receive(deadline))

    def _guarded(self, call: Callable[[], T]) -> T:
        if self.lost is not None:
            raise PortLost(self.lost)
        try:
            return call()
        except PortLost as error:
            # half open it would fail for ever, and keep its name from being opened again
            self.lost = str(error)
            self.handler.closePort()
            raise
