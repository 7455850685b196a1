"""The blob reader, against a server that says exactly what it is told to."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trustme

from bench.reader import Answer, Client, Plan, run

HEAD = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\n"


@contextmanager
def saying(*answers: Sequence[bytes]) -> Iterator[int]:
    """The port of a server for one connection: for each request the pieces of an answer; then it closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_say, args=(listener, answers))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def _say(listener: socket.socket, answers: Sequence[Sequence[bytes]]) -> None:
    connection = listener.accept()[0]
    with connection:
        for pieces in answers:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)


def read(port: int, paths: list[str], verify: bool = False) -> Client:
    return run(Plan(port, [paths], within=5, verify=verify))[0]


def sizes(client: Client) -> list[tuple[int, int]]:
    return [(answer.status, answer.size) for answer in client.answers]


def test_counts_the_bytes_of_each_answer() -> None:
    with saying([HEAD + b"12345"], [HEAD + b"abc", b"de"]) as port:
        client = read(port, ["/a", "/b"])
    assert sizes(client) == [(200, 5), (200, 5)]
    assert client.error is None


def test_head_may_come_in_pieces() -> None:
    with saying([HEAD[:20], HEAD[20:-1], HEAD[-1:], b"12345"]) as port:
        assert sizes(read(port, ["/"])) == [(200, 5)]


def test_empty_body_is_an_answer() -> None:
    with saying([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]) as port:
        assert sizes(read(port, ["/"])) == [(404, 0)]


def test_first_byte_comes_between_the_request_and_the_end() -> None:
    with saying([HEAD + b"1", b"2345"]) as port:
        answer: Answer = read(port, ["/"]).answers[0]
    assert 0 <= answer.began < answer.first <= answer.ended


def test_cut_body_is_an_error() -> None:
    with saying([HEAD + b"123"]) as port:
        error = read(port, ["/"]).error
    assert error is not None
    assert "2 bytes to come" in error


def test_answer_without_length_is_an_error() -> None:
    with saying([b"HTTP/1.1 200 OK\r\n\r\n12345"]) as port:
        error = read(port, ["/"]).error
    assert error is not None
    assert "no Content-Length" in error


def test_verify_gives_the_digest_of_the_body() -> None:
    with saying([HEAD + b"12345"]) as port:
        answer = read(port, ["/"], verify=True).answers[0]
    assert answer.sha256 == hashlib.sha256(b"12345").hexdigest()


def test_time_up_ends_a_client_after_the_answer_it_reads() -> None:
    with saying([HEAD + b"12345"]) as port:
        client = run(Plan(port, [["/"]], within=5, seconds=0))[0]
    assert sizes(client) == [(200, 5)]


def test_nobody_listening_is_an_error_of_that_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "ConnectionRefusedError" in str(read(port, ["/"]).error)


def test_over_tls_records_are_read_one_after_the_other() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    body = os.urandom(100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

    def say(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            for piece in (head + body, head + body[:1], body[1:], b""):
                if piece.startswith(b"HTTP"):
                    connection.recv(65536)
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=say, args=(listener,))
        thread.start()
        (client,) = run(Plan(listener.getsockname()[1], [["/a", "/b"]], within=5, verify=True, secure=True))
        thread.join(5)
    assert client.error is None
    assert [answer.sha256 for answer in client.answers] == [hashlib.sha256(body).hexdigest()] * 2
