"""Large reads from a broker's socket, the bytes of a fetch response straight into their place.

kafka-python's transports read 4 KiB a call, join the pieces, and copy them twice more on the way into the buffer of the
frame that they belong to; then the frame is copied twice to be decoded.  A `FrameReader` takes the place of one
transport's `_sock_recv`: while kafka-python's parser waits for the rest of a large frame, it reads into that frame's
buffer.  It leaves the frame's last byte, and all that lies between large frames, to the parser, which so finds a whole
frame and decodes it as ever.
"""
# ruff: noqa: SLF001  # this seam is private to kafka-python: `pipeline.io.columnar` checks it at start

from __future__ import annotations

import ssl
from typing import Any, Final, TypeVar

from kafka.errors import KafkaConnectionError
from kafka.protocol.frame import KafkaBytes

READ_BYTES: Final = 64 * 1024
"""How much is read at once between large frames; no TLS record holds more than a quarter of it."""

TURN_BYTES_MAX: Final = 1024 * 1024
"""After so many bytes of a frame the event loop's other tasks get their turn, heartbeats among them."""

_Read = TypeVar("_Read", bytes, int)
_NOTHING_YET: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Frame(KafkaBytes):  # type: ignore[misc]  # kafka-python has no type hints
    """The buffer of a frame; what decodes the whole of it gets a view and not a copy of a copy."""

    def read(self, nbytes: int | None = None) -> bytes | memoryview:
        """Read so many bytes, or all the rest."""
        if nbytes is not None:
            return bytes(super().read(nbytes))
        rest = memoryview(self)[self.tell() :]
        self.seek(len(self))
        return rest


class FrameReader:
    """Reads for one transport, plain or TLS; called where kafka-python calls the transport's `_sock_recv`."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __call__(self) -> tuple[bytes, Exception | None]:
        """Read what has come, up to a bound.

        Returns:
            What the parser has to be given, and the error that ends the connection, if there is one.
        """
        received: list[bytes] = []
        try:
            sock = self._transport._sock
            if self._fill_frame(sock):
                received.append(_some(sock.recv(READ_BYTES)))
                while isinstance(sock, ssl.SSLSocket) and sock.pending():  # nothing wakes us for what is decrypted
                    received.append(_some(sock.recv(READ_BYTES)))
        except _NOTHING_YET:
            pass
        except KafkaConnectionError as error:
            return b"", error
        except Exception as error:  # noqa: BLE001  # whatever it is, kafka-python ends the connection for it
            return b"", KafkaConnectionError(error)
        return b"".join(received), None

    def _fill_frame(self, sock: Any) -> bool:
        """Read into the frame that the parser waits for; whether the socket is to be read beyond it in this turn."""
        parser = self._transport._protocol.parser
        frame = parser._rbuffer
        if not parser._receiving or len(frame) - frame._idx <= READ_BYTES:
            return True
        frame.__class__ = Frame
        read = 0
        try:
            with memoryview(frame)[: len(frame) - 1] as places:
                while frame._idx < len(places):
                    if read >= TURN_BYTES_MAX:
                        return False
                    count = _some(sock.recv_into(places[frame._idx : frame._idx + TURN_BYTES_MAX]))
                    frame._idx += count
                    read += count
        finally:
            if read and self._transport._protocol._sensors:
                self._transport._protocol._sensors.bytes_received.record(read)
        return True


def _some(read: _Read) -> _Read:
    """What a read returned, unless it says that the other side has hung up."""
    if not read:
        raise KafkaConnectionError("socket disconnected")
    return read


def install(manager: Any) -> None:
    """Let the connections of one consumer read this way, those that are open and those to come.

    Args:
        manager: the consumer's connection manager.
    """
    build_stock = manager._build_transport

    async def build_transport(*args: Any, **kwargs: Any) -> Any:
        transport = await build_stock(*args, **kwargs)
        transport._sock_recv = FrameReader(transport)
        return transport

    manager._build_transport = build_transport
    for connection in list(manager._conns.values()):
        if connection.transport is not None:
            connection.transport._sock_recv = FrameReader(connection.transport)
