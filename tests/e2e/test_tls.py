"""Clients over TLS, with the certificate renewed under them. Engines: in test_client_config.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.certificates import Certificate
from tests.e2e.clients import Crane
from tests.e2e.images import Library
from tests.e2e.programs import ProgramError
from tests.e2e.servers import daemon, distribution


class SecureCrane(Crane):
    """Trusts one authority and nobody else."""

    options = ()

    def __init__(self, folder: Path, mirror: str, authority: Path) -> None:
        super().__init__(folder, mirror)
        self.authority = authority

    def run(self, *command: str | Path, **more: str) -> str:
        return super().run(*command, **more, SSL_CERT_FILE=str(self.authority))


def test_crane_pulls_before_and_after_the_certificate_is_renewed(
    library: Library, folder: Path, client_folder: Path
) -> None:
    certificate, image = Certificate(folder / "daemon"), library.images["multi"]
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "daemon", upstream.url, server=certificate.server) as cache,
    ):
        crane = SecureCrane(client_folder, cache.host, certificate.authority)
        for _ in range(2):
            assert crane.pull("multi") == image.digest
            crane.forget()
            certificate.renew_of(cache)
        stranger = SecureCrane(client_folder, cache.host, Certificate(folder / "other").authority)
        with pytest.raises(ProgramError, match="certificate signed by unknown authority"):
            stranger.pull("multi")
