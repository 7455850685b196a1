"""Who may do what: what the configuration says, joined with the grants that commands make.

What commands made is in rows, and here as rules. This node's own changes are in force at once, those of
others when they are heard of, or at the next look.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

import structlog
import trio

from cacheproxy.core.access import Network
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import ANONYMOUS, WORD, Right, Rule, Rules
from cacheproxy.store.errors import StoreError
from cacheproxy.store.grants import GrantRow, GrantRows

log = structlog.get_logger()

LOOK_EVERY = 20.0
"""Seconds between two looks at the rows: with what one may wait for, others' changes hold within a minute."""

READING = frozenset({Right.PULL, Right.LIST})
"""All that who gives no name can be given: nobody writes without one."""


class Grants:
    def __init__(self, rows: GrantRows, clock: Callable[[], float]) -> None:
        self._rows = rows
        self._clock = clock
        self._wake = trio.Event()
        self._looking = trio.Lock()
        self._wanted = False
        self.known: tuple[GrantRow, ...] = ()
        self.rules: tuple[Rule, ...] = ()
        self.era = 0
        """Another one whenever somebody's rights, or an account, changed."""

    def changed(self) -> None:
        """An account changed: nobody is believed to be who he was."""
        self.era += 1

    def heard(self) -> None:
        """Another node changed an account, or a grant."""
        self.changed()
        self._wake.set()

    async def look(self) -> None:
        """Read the rows. Raises StoreError."""
        self._wanted = True
        async with self._looking:  # of two looks the later one is the last word
            rows = tuple(await self._rows.all())
            if rows != self.known:
                self.known, self.rules = rows, tuple(map(rule, rows))
                self.changed()

    async def run(self) -> None:
        """Look again and again, once somebody did for the first time: without accounts nobody has to."""
        told = ""
        while True:
            with trio.move_on_after(LOOK_EVERY):
                await self._wake.wait()
            self._wake = trio.Event()
            if not self._wanted:
                continue
            try:
                await self.look()
                told = ""
            except StoreError as error:
                if not told:
                    log.warning("grants not looked at: those from before hold on", error=str(error))
                told = str(error)

    async def add(
        self,
        to: Sequence[str],
        rights: Sequence[str],
        repositories: Sequence[str],
        networks: Sequence[str] = (),
        *,
        deny: bool = False,
    ) -> int:
        """The number of a new one. Raises OCIError (400), StoreError."""
        row = GrantRow(
            0,
            tuple(sorted({_word(each) for each in to})),
            tuple(right for right in Right if right in {_right(each) for each in rights}),
            deny,
            _patterns(repositories),
            tuple(dict.fromkeys(str(_network(each)) for each in networks)),
            self._clock(),
        )
        _demand_whole(row)
        number = await self._rows.add(row)
        await self.look()
        return number

    async def remove(self, number: int) -> None:
        """Raises OCIError (404), StoreError."""
        if not await self._rows.remove(number):
            said = f"there is no grant {number} that a command made: see `cacheproxy grant list`"
            raise OCIError("UNSUPPORTED", said, status=404)
        await self.look()


class Standing:
    """api.callers.Standing: the rules of one configuration, with those of the rows."""

    def __init__(self, declared: Iterable[Rule], grants: Grants | None = None) -> None:
        self._declared = tuple(declared)
        self._grants = grants
        self._era = self.era
        self._rules = self._joined()

    @property
    def era(self) -> int:
        return 0 if self._grants is None else self._grants.era

    @property
    def rules(self) -> Rules:
        if self._era != self.era:
            self._era, self._rules = self.era, self._joined()
        return self._rules

    def _joined(self) -> Rules:
        return Rules((*self._declared, *(() if self._grants is None else self._grants.rules)))


def rule(row: GrantRow) -> Rule:
    return Rule(
        frozenset(row.principals),
        frozenset(map(Right, row.rights)),
        Patterns(row.repositories),
        row.deny,
        tuple(map(ipaddress.ip_network, row.networks)),
        f"grant {row.id}, by command",
    )


def _demand_whole(row: GrantRow) -> None:
    for there, said in (
        (row.principals, 'for nobody: name "user:NAME", "group:NAME", "*" or "anonymous"'),
        (row.rights, f"of nothing: name some of {', '.join(Right)}"),
        (row.repositories, 'for no repository: name a pattern, as "team/**"'),
    ):
        if not there:
            raise _wrong(f"a grant {said}")
    if ANONYMOUS in row.principals and not row.deny:
        if not row.networks:
            raise _wrong("who gives no name is let in from networks only: name one, as 10.0.0.0/8")
        if not READING.issuperset(row.rights):
            raise _wrong("who gives no name may pull and list at most: nobody writes without a name")


def _word(text: str) -> str:
    if text != ANONYMOUS and WORD.fullmatch(text) is None:
        raise _wrong(
            f'{text[:150]!a} is nobody\'s name: write "user:NAME", "group:NAME", "*" for all who have one,'
            ' or "anonymous"'
        )
    return text


def _right(text: str) -> str:
    if text not in tuple(Right):
        raise _wrong(f"{text[:50]!a} is no right: they are {', '.join(Right)}")
    return text


def _patterns(texts: Sequence[str]) -> tuple[str, ...]:
    try:
        return Patterns(texts).texts
    except ValueError as error:
        raise _wrong(str(error)) from None


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise _wrong(f"not a network: {error}; write it as 10.0.0.0/8 or 192.0.2.1") from None


def _wrong(said: str) -> OCIError:
    return OCIError("UNSUPPORTED", said, status=400)
