"""cosign signs what was pushed with a key of its own, and verifies it: by referrers, and by tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clients import NAME as OFFICIAL_NAME
from tests.e2e.images import Library
from tests.e2e.programs import ProgramError, installed, run
from tests.e2e.test_pushes import NAME, SECRET, ask, hosting, tags
from tests.e2e.test_pushes import source as source

OFFLINE = ("--tlog-upload=false", "--use-signing-config=false")
"""Without a transparency log, and without asking anybody where there is one."""

SCHEMES = {
    "referrers": ("--new-bundle-format=true",),
    "tags": ("--new-bundle-format=false", "--registry-referrers-mode=legacy"),
}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_signature_is_kept_and_found(library: Library, folder: Path, source: str, scheme: str) -> None:
    image = library.images["multi"]
    with hosting(folder / "daemon") as registry:
        target = f"{registry.host}/team/debian"

        def cosign(*words: str) -> str:
            return run([installed("cosign"), *words], folder, {"COSIGN_PASSWORD": ""})

        crane = installed("crane")
        run([crane, "auth", "login", "-u", NAME, "-p", SECRET, registry.host], folder)
        run([crane, "copy", "--insecure", f"{source}/{OFFICIAL_NAME}:multi", f"{target}:1"], folder)
        run([crane, "auth", "logout", registry.host], folder)
        signed = f"{target}@{image.digest}"
        cosign("generate-key-pair", "--output-key-prefix", f"{folder}/key")
        sign = ("sign", "--yes", "--allow-http-registry", "--key", f"{folder}/key.key", *OFFLINE)
        verify = ("verify", "--allow-http-registry", "--insecure-ignore-tlog", "--key", f"{folder}/key.pub")
        with pytest.raises(ProgramError, match="UNAUTHORIZED"):
            cosign(*sign, *SCHEMES[scheme], signed)
        cosign("login", registry.host, "-u", NAME, "-p", SECRET)
        with pytest.raises(ProgramError, match=r"no (matching )?signatures"):
            cosign(*verify, SCHEMES[scheme][0], signed)
        cosign(*sign, *SCHEMES[scheme], signed)
        assert image.digest in cosign(*verify, SCHEMES[scheme][0], signed)
        referrers = ask(registry, f"/v2/team/debian/referrers/{image.digest}")["manifests"]
        assert bool(referrers) == (scheme == "referrers")
        assert len(tags(registry, "team/debian")) == (1 if scheme == "referrers" else 2)
