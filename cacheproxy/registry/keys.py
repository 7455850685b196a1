"""The keys that sign our tokens."""

from __future__ import annotations

import secrets

from joserfc.jwk import ECKey


class FreshKeys:
    """One key, made at the start: clients of an earlier daemon ask for other tokens."""

    def __init__(self) -> None:
        kid = secrets.token_hex(8)
        self.current = ECKey.generate_key("P-256", {"kid": kid})
        self._known = {kid: self.current}

    def find(self, kid: str) -> ECKey | None:
        return self._known.get(kid)
