"""A week of pulls, drawn once and for all from a seed: which layers, when, and how large they are.

Popularity falls with the rank (Zipf, exponent 0.9), and a tenth of the ranks is dealt anew every night, as
new versions come out. Layers are log-normal (median 1.5 MiB, mean about 5 MiB, 200 MiB at most). An image
has one of forty base layers that many share, two to six layers of its own, and a small configuration. Seven
of eight pulls come by day.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

MIB = 1 << 20
HOUR, DAY = 3600.0, 86400.0
IMAGES, BASES = 500, 40
EXPONENT = 0.9


@dataclass(frozen=True)
class Layer:
    name: int
    size: int


@dataclass(frozen=True)
class Pull:
    time: float
    """Seconds since the week began."""
    layers: tuple[Layer, ...]


def week(pulls: int, seed: int = 7) -> list[Pull]:
    """The pulls in their order."""
    dice = random.Random(seed)
    images = _images(dice)
    ranks = list(range(IMAGES))
    weights = list(accumulate(1 / (rank + 1) ** EXPONENT for rank in range(IMAGES)))
    drawn = []
    for day in range(7):
        for _ in range(pulls // 7):
            (rank,) = dice.choices(range(IMAGES), cum_weights=weights)
            drawn.append(Pull(day * DAY + _hour(dice) * HOUR, images[ranks[rank]]))
        _deal_anew(dice, ranks)
    return sorted(drawn, key=lambda pull: pull.time)


def _images(dice: random.Random) -> list[tuple[Layer, ...]]:
    names = iter(range(1 << 30))

    def layer() -> Layer:
        size = dice.lognormvariate(math.log(1.5 * MIB), 1.55)
        return Layer(next(names), int(min(max(size, 200), 200 * MIB)))

    bases = [layer() for _ in range(BASES)]
    base_weights = list(accumulate(1 / (rank + 1) for rank in range(BASES)))
    return [
        (
            Layer(next(names), 8 << 10),
            dice.choices(bases, cum_weights=base_weights)[0],
            *(layer() for _ in range(dice.randint(2, 6))),
        )
        for _ in range(IMAGES)
    ]


def _hour(dice: random.Random) -> float:
    return dice.uniform(8, 20) if dice.random() < 0.75 else dice.uniform(0, 24)


def _deal_anew(dice: random.Random, ranks: list[int]) -> None:
    places = dice.sample(range(IMAGES), IMAGES // 10)
    dealt = [ranks[place] for place in places]
    dice.shuffle(dealt)
    for place, image in zip(places, dealt, strict=True):
        ranks[place] = image


def least_recently_used(requests: Iterable[Layer], budget: int) -> int:
    """Bytes that a cache of `budget` bytes serves which evicts only as much as it has to: LRU's optimum."""
    here: OrderedDict[int, int] = OrderedDict()
    used = hit = 0
    for layer in requests:
        if layer.name in here:
            here.move_to_end(layer.name)
            hit += layer.size
            continue
        while used + layer.size > budget:
            _, gone = here.popitem(last=False)
            used -= gone
        here[layer.name] = layer.size
        used += layer.size
    return hit
