"""What stands before several nodes, at its simplest: a port whose connections go to each of them in turn."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from socketserver import BaseRequestHandler, ThreadingTCPServer

STEP = 1 << 16


@contextmanager
def round_robin(ports: Sequence[int]) -> Iterator[str]:
    """The address of a forwarder to these ports of 127.0.0.1. It ends when its clients have gone."""
    turn = cycle(ports)

    class Forwarded(BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", next(turn))) as node:
                back = threading.Thread(target=_pass_on, args=(node, self.request))
                back.start()
                _pass_on(self.request, node)
                back.join()

    with ThreadingTCPServer(("127.0.0.1", 0), Forwarded) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(STEP):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
