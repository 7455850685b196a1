"""What a person does to hosted repositories, at the admin socket: list, make, set, rename, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_requested
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.routing import Bare, Routes, Target, Virtual
from cacheproxy.core.settings import Settings
from cacheproxy.edge.message import Request
from cacheproxy.registry.repositories import Repositories

BODY_LIMIT = 1 << 20


class Named(msgspec.Struct):
    name: str


class SettingsWanted(Named):
    settings: dict[str, Any]
    """What is to be other than it is; a label without a value goes."""


class RenameWanted(Named):
    new: str


class DeleteWanted(Named):
    force: bool = False


Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class Keeping:
    """Handlers raise OCIError."""

    def __init__(self, routes: Routes, repositories: Repositories) -> None:
        self._routes = routes
        self._repositories = repositories

    def handlers(self) -> Mapping[tuple[str, str], Callable[[Request], Awaitable[Any]]]:
        return {
            ("GET", "/repositories"): self._list,
            ("GET", "/meaning"): self._meaning,
            ("POST", "/repositories/create"): self._create,
            ("POST", "/repositories/set"): self._set,
            ("POST", "/repositories/rename"): self._rename,
            ("POST", "/repositories/delete"): self._delete,
        }

    async def _list(self, request: Request) -> Any:
        return [
            {"name": kept.name, "bytes": kept.bytes, "images": kept.images, "settings": kept.settings}
            for kept in await self._repositories.all()
        ]

    async def _meaning(self, request: Request) -> Any:
        """Which repository is pulled from by a name, and which one is pushed into; None: there is none."""
        name = parse_requested(first(parse_query(request.query), "name") or "")
        meant = self._routes.meaning(name, None, "")
        if isinstance(meant, Target):
            return {"pulled": meant.repository, "pushed": None}
        if isinstance(meant, Virtual):
            return {"pulled": meant.name, "pushed": meant.push}
        default = None if meant.default is None else meant.default.repository
        hosted = await self._repositories.is_hosted(meant.name)
        return {"pulled": meant.name if hosted else default, "pushed": meant.name}

    async def _create(self, request: Request) -> Any:
        wanted = await _body(request, SettingsWanted)
        await self._repositories.create(self._own(wanted.name), _changed(Settings(), wanted.settings))
        return {"name": wanted.name}

    async def _set(self, request: Request) -> Any:
        wanted = await _body(request, SettingsWanted)
        settings = _changed(await self._repositories.settings(wanted.name), wanted.settings)
        await self._repositories.configure(wanted.name, settings)
        return settings

    async def _rename(self, request: Request) -> Any:
        wanted = await _body(request, RenameWanted)
        await self._repositories.rename(wanted.name, self._own(wanted.new))
        return {"name": wanted.new}

    async def _delete(self, request: Request) -> Any:
        wanted = await _body(request, DeleteWanted)
        await self._repositories.delete(wanted.name, force=wanted.force)
        return {"name": wanted.name}

    def _own(self, name: str) -> str:
        """Raises OCIError for a name by which clients would never reach the repository."""
        meant = self._routes.meaning(name, None, "")
        if isinstance(meant, Bare):
            return meant.name
        if isinstance(meant, Virtual):
            places = " and ".join(meant.places)
            said = f"{name} is virtual, and looks into {places}: no hosted repository can have that name"
            raise OCIError("NAME_INVALID", said, status=409)
        said = f"{name} means {meant.repository}, of an upstream: no hosted repository can have that name"
        raise OCIError("NAME_INVALID", said, status=409)


def _changed(settings: Settings, wanted: dict[str, Any]) -> Settings:
    """Raises OCIError for what is no setting."""
    values = msgspec.to_builtins(settings)
    labels = {**settings.labels, **wanted.get("labels", {})}
    values |= {**wanted, "labels": {key: value for key, value in labels.items() if value}}
    try:
        settings = msgspec.convert(values, Settings, strict=True)
        if settings.except_tags:
            Patterns(settings.except_tags)
    except ValueError as error:  # msgspec.ValidationError is one
        raise OCIError("UNSUPPORTED", f"not settings of a repository: {error}", status=400) from error
    return settings


async def _body(request: Request, kind: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(await request.read_body(BODY_LIMIT), type=kind, strict=True)
    except msgspec.MsgspecError as error:
        raise OCIError("UNSUPPORTED", f"not what is asked for here: {error}", status=400) from error
