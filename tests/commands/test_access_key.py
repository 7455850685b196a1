from __future__ import annotations

import re
from pathlib import Path

from tests.commands.desk import at_desk
from tests.commands.test_grant import settings as settings


async def test_a_pair_is_made_listed_and_revoked(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        assert await desk.says("account", "access-key", "list") == "there is no access key\n"
        told = await desk.says("account", "access-key", "add", "alice")
        made = re.fullmatch(r"aws_access_key_id = (AKIA\w{16})\naws_secret_access_key = (\S{40})\n", told)
        assert made is not None
        (listed,) = await desk.tells("account", "access-key", "list")
        assert (listed["id"], listed["account"]) == (made[1], "user:alice")
        assert made[2] not in str(listed)
        assert (await desk.says("account", "access-key", "list")).startswith(f"{made[1]}  user:alice  since ")
        assert "within a minute" in await desk.says("account", "access-key", "revoke", made[1])
        assert "there is no access key" in await desk.refuses("account", "access-key", "revoke", made[1])
        assert "there is no account 'nobody'" in await desk.refuses("account", "access-key", "add", "nobody")


async def test_the_configurations_pair_is_listed_and_stays(folder: Path, settings: str) -> None:
    (folder / "key").write_text("declared secret")
    pair = f'access_key = "AKIAEXAMPLE000000001"\nsecret_key = {{ file = "{folder}/key" }}\n[[grant]]'
    async with at_desk(folder, upstream=settings.replace("[[grant]]", pair, 1)) as desk:
        said = await desk.says("account", "access-key", "list")
        assert said == "AKIAEXAMPLE000000001  user:alice  by the configuration\n"
        refused = await desk.refuses("account", "access-key", "revoke", "AKIAEXAMPLE000000001")
        assert "the configuration's" in refused


async def test_where_nobody_has_a_name_there_are_no_pairs(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert "nobody has a name" in await desk.refuses("account", "access-key", "add", "alice")
