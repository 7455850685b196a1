"""The daemon's certificate, by an authority that nobody knows, and the next one."""

from __future__ import annotations

import signal
import ssl
import time
from pathlib import Path

import trustme

from tests.e2e.servers import Daemon

RENEWED_WITHIN = 10.0


class Certificate:
    """For this host's addresses, in `folder`, which is also where the daemon's configuration is."""

    server = 'tls = { certificate = "tls.crt", key = { file = "tls.key" } }'
    """A daemon's [server]."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._signs = trustme.CA()
        self.authority = folder / "ca.pem"
        self._signs.cert_pem.write_to_path(self.authority)
        self.renew()

    def renew(self) -> None:
        """The chain goes up to its root."""
        issued = self._signs.issue_cert("127.0.0.1", "::1")
        own = issued.cert_chain_pems[0].bytes()
        self._own = own.decode()
        issued.private_key_pem.write_to_path(self._folder / "tls.key")
        (self._folder / "tls.crt").write_bytes(own + self._signs.cert_pem.bytes())

    def renew_of(self, cache: Daemon) -> None:
        """Until the daemon shows the new one."""
        self.renew()
        cache.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + RENEWED_WITHIN
        while ssl.get_server_certificate((cache.address.strip("[]"), cache.port)) != self._own:
            assert time.monotonic() < deadline
            time.sleep(0.05)
