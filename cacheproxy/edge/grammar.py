"""What both parsers and the forwarding rules mean by a host."""

from __future__ import annotations

import re

# RFC 9110 7.2 says uri-host [":" port]; of reg-name only what names of hosts and containers are made of,
# because this text goes into the addresses that we hand out.
host = re.compile(r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?").fullmatch
