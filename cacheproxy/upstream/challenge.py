"""The WWW-Authenticate header, read (RFC 9110 section 11.6.1).

    WWW-Authenticate = #challenge
    challenge        = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
    auth-param       = token BWS "=" BWS ( token / quoted-string )

A comma separates challenges and parameters alike; they differ in whether "=" follows the first word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST = 8 << 10
"""Characters that are looked at: more than any registry sends."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATORS = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_WORD})(?= |\t|,|$)")
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)")(?=[ \t]*(?:,|$))')
_TOKEN68 = re.compile(r"[ \t]+([A-Za-z0-9._~+/-]+=*)(?=[ \t]*(?:,|$))")
_QUOTED_PAIR = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    """In lower case."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case, values without their quotes. Of a repeated one, the first."""
    token68: str = ""


def parse(header: str) -> tuple[Challenge, ...]:
    """The challenges of one header field, or of several joined with ", ".

    Reading ends at what is malformed; what came before it counts. Never raises.
    """
    text = header[:LONGEST]
    read: list[tuple[str, dict[str, str], str]] = []
    position = _skip(text, 0)
    while position < len(text):
        takes_parameters = bool(read) and not read[-1][2]
        if takes_parameters and (found := _PARAMETER.match(text, position)):
            name, token, quoted = found.groups()
            read[-1][1].setdefault(name.lower(), token if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted))
        elif found := _SCHEME.match(text, position):
            token68 = _TOKEN68.match(text, found.end())
            read.append((found[1].lower(), {}, token68[1] if token68 else ""))
            found = token68 or found
        else:
            break
        position = _skip(text, found.end())
    return tuple(Challenge(*row) for row in read)


def _skip(text: str, position: int) -> int:
    found = _SEPARATORS.match(text, position)
    return found.end() if found else position
