"""A `FrameReader` gives the parser what the stock transport gives it, however the bytes arrive."""

import itertools
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import KafkaConnectionError
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.protocol.parser import KafkaProtocol

from pipeline.io.frame_reader import READ_BYTES, TURN_BYTES_MAX, Frame, FrameReader

VERSION = 12
PARTITION = {"partition_index": 0, "error_code": 0, "high_watermark": 9, "aborted_transactions": None}
WAIT_S = 30


def response(correlation_id: int, records: bytes) -> bytes:
    """A fetch response as a broker sends it."""
    partition = FetchResponse.FetchableTopicResponse.PartitionData(records=records, **PARTITION)
    topic = FetchResponse.FetchableTopicResponse(topic="topic", partitions=[partition])
    found = FetchResponse[VERSION](responses=[topic])
    found.with_header(correlation_id=correlation_id)
    return bytes(found.encode(header=True, framed=True))


def pattern(size: int) -> bytes:
    """Bytes that show when a piece of them is missing, doubled or elsewhere."""
    return b"".join(struct.pack("<I", number) for number in range(size // 4 + 1))[:size]


class Connection:
    """What kafka-python's connection is to a transport: a parser, and a counter of bytes."""

    def __init__(self, answers: int) -> None:
        self.parser = KafkaProtocol(client_id="test")
        for _ in range(answers):
            self.parser.send_request(FetchRequest[VERSION](topics=[]))
        self.bytes_received = 0
        self._sensors = SimpleNamespace(bytes_received=SimpleNamespace(record=self._count))
        self.records: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.changed = threading.Condition()

    def _count(self, count: int) -> None:
        self.bytes_received += count

    def data_received(self, data: bytes) -> None:
        with self.changed:
            for _, found in self.parser.receive_bytes(data):
                self.records.append(found.responses[0].partitions[0].records)
            self.changed.notify_all()

    def connection_lost(self, error: Exception | None) -> None:
        with self.changed:
            self.lost.append(error)
            self.changed.notify_all()

    def wait(self, until: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(until, WAIT_S)


class Trickle:
    """A socket that has bytes in pieces: after each of them there is nothing for a moment, at the end it hangs up."""

    def __init__(self, data: bytes, pieces: list[int]) -> None:
        self._data = memoryview(data)
        self._pieces = iter(pieces)
        self._here = 0

    def recv(self, size: int) -> bytes:
        place = bytearray(size)
        return bytes(place[: self.recv_into(memoryview(place))])

    def recv_into(self, place: memoryview) -> int:
        if self._here == 0 and self._data:
            self._here = min(next(self._pieces), len(self._data))
            raise BlockingIOError
        count = min(self._here, len(place))
        place[:count] = self._data[:count]
        self._data, self._here = self._data[count:], self._here - count
        return count


SIZES = st.one_of(
    st.integers(0, 40),
    st.integers(READ_BYTES - 100, READ_BYTES + 100),
    st.sampled_from((200_000, TURN_BYTES_MAX + 3, 3 * TURN_BYTES_MAX)),
)
PIECES = st.one_of(st.integers(1, 9), st.integers(4000, 5000), st.sampled_from((READ_BYTES, 250_000, 4 * 1024 * 1024)))


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(SIZES, min_size=1, max_size=5), pieces=st.lists(PIECES, min_size=1, max_size=40))
def test_frames_are_whole_however_they_are_cut(sizes: list[int], pieces: list[int]) -> None:
    expected = [pattern(size) for size in sizes]
    sent = b"".join(response(number, records) for number, records in enumerate(expected, start=1))
    connection = Connection(len(sizes))
    pieces = [*pieces, 100_000]  # small ones first, and then on in pieces that end it
    sock = Trickle(sent, [*pieces, *itertools.repeat(100_000, len(sent) // 100_000 + 1)])
    reader = FrameReader(SimpleNamespace(_sock=sock, _protocol=connection))
    error, handed_over = None, 0
    while error is None:
        data, error = reader()
        handed_over += len(data)
        connection.data_received(data)
    assert connection.records == expected
    assert connection.bytes_received + handed_over == len(sent)
    assert isinstance(error, KafkaConnectionError)


def test_a_turn_ends_though_more_has_come() -> None:
    """A heartbeat waits for no more than a turn."""
    sent = response(1, pattern(5 * TURN_BYTES_MAX))
    connection = Connection(1)
    reader = FrameReader(SimpleNamespace(_sock=Trickle(sent, [1, len(sent)]), _protocol=connection))
    turns = []
    while not connection.records:
        before = connection.bytes_received
        data, error = reader()
        assert error is None
        connection.data_received(data)
        turns.append(connection.bytes_received - before + len(data))
    assert max(turns) <= 2 * TURN_BYTES_MAX
    assert len(turns) > 3


def test_the_rest_of_a_frame_is_read_without_a_copy() -> None:
    frame = Frame(6)
    frame.write(b"abcdef")
    frame.seek(0)
    assert (frame.read(2), type(frame.read(1))) == (b"ab", bytes)
    rest = frame.read()
    assert isinstance(rest, memoryview)
    assert (bytes(rest), frame.tell(), bytes(frame.read())) == (b"def", 6, b"")


def test_a_broken_connection_is_an_error_and_no_answer() -> None:
    class Broken:
        def recv(self, size: int) -> bytes:  # noqa: ARG002  # a socket's signature
            raise ConnectionResetError("reset")

    data, error = FrameReader(SimpleNamespace(_sock=Broken(), _protocol=Connection(0)))()
    assert data == b""
    assert isinstance(error, KafkaConnectionError)
    assert "reset" in str(error)


def plain(_: Path) -> None:
    """No TLS."""


def tls_1_2(_: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Without certificates: both sides are here."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.set_ciphers("aNULL:@SECLEVEL=0")
        except ssl.SSLError:
            pytest.skip("this OpenSSL was built without anonymous ciphers")
    return server, client


def tls_1_3(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """With a certificate of our own."""
    if shutil.which("openssl") is None:
        pytest.skip("a certificate is made with the command openssl: install it")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(certificate, key)
    client.load_verify_locations(certificate)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return server, client


@pytest.fixture
def network() -> Iterator[NetworkSelector]:
    net = NetworkSelector()
    net.start()
    yield net
    net.close()


@pytest.mark.parametrize("security", (plain, tls_1_2, tls_1_3))
def test_a_transport_reads_from_a_real_socket(security: Any, network: NetworkSelector, tmp_path: Path) -> None:
    expected = [pattern(size) for size in (0, 3 * TURN_BYTES_MAX, 10, READ_BYTES, 700_000, 1)]
    sent = b"".join(response(number, records) for number, records in enumerate(expected, start=1))
    contexts = security(tmp_path)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def serve() -> None:
        sock = contexts[0].wrap_socket(theirs, server_side=True) if contexts else theirs
        for begin in range(0, len(sent), 150_001):
            sock.sendall(sent[begin : begin + 150_001])
        connection.wait(lambda: len(connection.records) == len(expected))
        sock.close()

    connection = Connection(len(expected))
    server = threading.Thread(target=serve)
    server.start()
    if contexts:
        transport = KafkaSSLTransport(network, ours, host="localhost", ssl_context=contexts[1])
    else:
        transport = KafkaTCPTransport(network, ours)
    transport._sock_recv = FrameReader(transport)
    network.run(transport.handshake)
    transport.set_protocol(connection)
    network.run(transport.resume_reading)
    connection.wait(lambda: len(connection.records) == len(expected))
    assert connection.records == expected
    connection.wait(lambda: bool(connection.lost))
    assert isinstance(connection.lost[0], KafkaConnectionError)
    assert connection.bytes_received == len(sent)
    server.join(WAIT_S)
