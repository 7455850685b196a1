"""Templates that never apply: nothing is pushed below an upstream's prefix, or pulled through elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cacheproxy.config.checks import Conflict, Declared, first_segment, within
from cacheproxy.config.hosting import Template
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.virtual import Virtual, overlap
from cacheproxy.core.templates import ROOT, Birth

PUSHED_ONLY = ("quota", "quota_images")
"""What means nothing to a cached repository: its bytes go by [cache] budget."""


def template_conflicts(
    templates: Sequence[tuple[int, Template]],
    upstreams: Sequence[Declared],
    virtuals: Sequence[tuple[int, Virtual]],
) -> Iterator[Conflict]:
    for number, template in templates:
        yield from _without_effect(number, template)
        if template.prefix != ROOT:
            yield from _under_virtual(number, template, virtuals)
            yield from _of_upstreams(number, template, upstreams)


def _without_effect(number: int, template: Template) -> Iterator[Conflict]:
    key: Key = ("template", number, "applied_for")
    for name in PUSHED_ONLY:
        if Birth.PUSH not in template.applied_for and getattr(template, name) is not None:
            text = (
                f"{name} is of what is pushed, and by {{other}} nothing is; cached bytes go by [cache] budget"
            )
            yield Conflict(("template", number, name), text, key)


def _under_virtual(
    number: int, template: Template, virtuals: Sequence[tuple[int, Virtual]]
) -> Iterator[Conflict]:
    for place, virtual in virtuals:
        if template.prefix == virtual.prefix or within(virtual.prefix, template.prefix):
            text = (
                f'"{template.prefix}" is virtual, by {{other}}, and has no repositories: name a member of it'
            )
            yield Conflict(("template", number, "prefix"), text, ("virtual", place, "prefix"))


def _of_upstreams(number: int, template: Template, upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    prefix: Key = ("template", number, "prefix")
    births: Key = ("template", number, "applied_for")
    reached = [each for each in upstreams if overlap(template.prefix, each[1].prefix)]
    covered = [each for each in reached if not within(template.prefix, each[1].prefix)]
    for place, _ in covered:
        if Birth.PUSH in template.applied_for:
            text = "nothing is pushed below the upstream's prefix at {other}"
            yield Conflict(births, f'"{Birth.PUSH}" never applies: {text}', ("upstream", place, "prefix"))
    named = next((each for each in upstreams if first_segment(template.prefix) == each[1].registry), None)
    if not reached and named is not None:
        text = (
            f'"{template.prefix}" is a registry\'s name; write "{named[1].prefix}", its prefix at {{other}}'
        )
        yield Conflict(prefix, text, ("upstream", named[0], "prefix"))
    elif not reached and Birth.PULL in template.applied_for:
        text = f'no upstream\'s prefix, so nothing is pulled through below "{template.prefix}"'
        yield Conflict(births, f'"{Birth.PULL}" never applies: {{other}} is {text}', prefix)
