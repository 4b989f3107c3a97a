"""The embedded sample: SYNTHETIC clicks from a seeded generator, so that a fresh clone trains without a download.

The generator is a second-order Markov chain. Its next-click distribution is known, and so is the best possible ranking,
the upper bound for any model.

A category is one brand's items of one kind. A shopper alternates between two brands of a kind: after an item of brand A
and one of brand B comes another of brand A, and sometimes any brand of the kind. Shoppers also repeat the current item,
return to the previous one, or wander to any item of the shop. First-order counts see neither the previous click nor
what the items of a category have in common. A model of whole sessions can learn both.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from .clicks import read_diginetica
from .protocol import build_sessions
from .sessions import SessionDataset

FIRST_DAY = np.datetime64("2016-05-03")  # 30 days, up to Diginetica's last
TEST_DAYS = 7  # the paper's for Diginetica


@dataclass(frozen=True)
class Knobs:
    """Parameters of the shop and its shoppers. The defaults are those of the embedded sample.

    With the defaults, first-order counts reach about half of the upper bound, and the recipe `paper`, whose learning
    rate decays after the third epoch, has enough steps to come close to it.
    """

    sessions: int = 30_000  # before the protocol, which drops sessions of one click
    items: int = 1_000
    kinds: int = 8
    brands: int = 30
    alternate: float = 0.85  # probability that a comparing shopper returns to the previous item's category
    repeat: float = 0.06  # probability that the next click repeats the current item
    back: float = 0.08  # ... that it returns to the previous item
    wander: float = 0.04  # ... that it is any item, by popularity
    # Popularity ~ 1 / (rank + shift) ** zipf: the top 1 % and 10 % of items get 13 % and 46 % of Diginetica's clicks.
    zipf: float = 0.8
    shift: float = 5.0
    # Lengths 1 + Weibull: after the protocol the quartiles are 2, 4, 6 and the mean is about 5, as in Diginetica.
    length_scale: float = 3.3
    length_shape: float = 0.91
    longest: int = 70
    days: int = 30


class World:
    """A synthetic shop and its shoppers: a second-order Markov chain over items.

    Items have codes `0 .. items - 1`, grouped by category. `item_ids[code]` is an item's raw id in the log. The shop
    (categories and popularity) and the clicks are drawn from separate random streams of `seed`.
    """

    def __init__(self, seed: int = 0, knobs: Knobs | None = None):
        self.seed = seed
        self.knobs = knobs = knobs or Knobs()
        rng = np.random.default_rng([seed, 0])
        n_categories = knobs.kinds * knobs.brands
        self.categories = np.sort(rng.integers(n_categories, size=knobs.items))  # (items,)
        rank = np.argsort(rng.random(knobs.items))  # (items,)
        weight = 1.0 / (1.0 + rank + knobs.shift) ** knobs.zipf
        self.popularity = weight / weight.sum()  # (items,)
        self.item_ids = np.argsort(rng.random(100 * knobs.items))[: knobs.items].astype(str).tolist()
        # Items are grouped by category, so one cumulative sum is enough to draw from the shop and from a category.
        self._cumulative = np.concatenate([[0.0], np.cumsum(self.popularity)])  # (items + 1,)
        self._bounds = np.searchsorted(self.categories, np.arange(n_categories + 1))  # (categories + 1,)
        category_popularity = np.diff(self._cumulative[self._bounds])  # (categories,), 0 if empty
        self._share = self.popularity / category_popularity[self.categories]  # (items,), within the category
        kind = np.arange(n_categories) // knobs.brands  # (categories,)
        within_kind = (kind[:, None] == kind) * category_popularity  # (categories, categories)
        self._within_kind = within_kind / within_kind.sum(axis=1, keepdims=True)

    def _next_categories(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Probability of each category for a shopper who compares, after items (n,) and (n,): (n, categories)."""
        before, now = self.categories[previous], self.categories[current]  # (n,) each
        alternate = self.knobs.alternate * (before != now)  # (n,)
        chance = (1.0 - alternate[:, None]) * self._within_kind[now]
        chance[np.arange(len(now)), before] += alternate
        return chance

    def next_click_probabilities(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """The true distribution of the next click.

        Args:
            previous: codes of the clicks before the current ones, (n,); at a session's first click, `current`.
            current: codes of the current clicks, (n,).

        Returns:
            Probabilities, float64 (n, items), each row summing to 1.
        """
        knobs = self.knobs
        compare = 1.0 - knobs.repeat - knobs.back - knobs.wander
        of_category = self._next_categories(previous, current)[:, self.categories]  # (n, items)
        probabilities = compare * of_category * self._share + knobs.wander * self.popularity
        rows = np.arange(len(current))
        probabilities[rows, current] += knobs.repeat
        probabilities[rows, previous] += knobs.back
        return probabilities

    def _next_clicks(self, previous: np.ndarray, current: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw from `next_click_probabilities` for each row: (n,), (n,) -> (n,)."""
        knobs = self.knobs
        habit, place, shelf = rng.random((3, len(current)))  # (n,) each
        cumulative = np.cumsum(self._next_categories(previous, current), axis=1)  # (n, categories)
        category = (cumulative <= place[:, None] * cumulative[:, -1:]).sum(axis=1)  # (n,), never an empty one
        low, high = self._cumulative[self._bounds[category]], self._cumulative[self._bounds[category + 1]]
        at = np.where(habit < knobs.wander, shelf * self._cumulative[-1], low + shelf * (high - low))
        elsewhere = np.searchsorted(self._cumulative, at, side="right") - 1
        repeats = habit >= 1.0 - knobs.repeat
        returns = habit >= 1.0 - knobs.repeat - knobs.back
        return np.where(repeats, current, np.where(returns, previous, elsewhere))

    def sessions(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw sessions: the codes of the clicked items, int64 (clicks,), and the lengths, int64 (sessions,)."""
        knobs = self.knobs
        rng = np.random.default_rng([self.seed, 1])
        waited = -np.log1p(-rng.random(knobs.sessions))  # (sessions,), exponential, by inverse transform
        lengths = (1.0 + knobs.length_scale * waited ** (1.0 / knobs.length_shape)).astype(np.int64)
        lengths = np.minimum(lengths, knobs.longest)
        starts = np.cumsum(lengths) - lengths
        clicks = np.empty(lengths.sum(), dtype=np.int64)
        first = rng.random(knobs.sessions) * self._cumulative[-1]
        clicks[starts] = np.searchsorted(self._cumulative, first, side="right") - 1
        for position in range(1, lengths.max()):
            at = starts[lengths > position] + position
            clicks[at] = self._next_clicks(clicks[at - min(position, 2)], clicks[at - 1], rng)
        return clicks, lengths

    def log(self) -> pd.DataFrame:
        """The sessions in Diginetica's raw layout, a row per click.

        As there, a session's rows come in any order, and `timeframe` (milliseconds since its start) orders them.
        """
        clicks, lengths = self.sessions()
        rng = np.random.default_rng([self.seed, 2])
        session = np.repeat(np.arange(len(lengths)), lengths)  # (clicks,)
        elapsed = np.cumsum(rng.integers(1_000, 120_000, size=len(clicks)))
        start = elapsed[np.cumsum(lengths) - lengths]  # (sessions,)
        day = FIRST_DAY + rng.integers(self.knobs.days, size=len(lengths))  # (sessions,)
        ids, timeframe, eventdate = np.array(self.item_ids)[clicks], elapsed - start[session], day.astype(str)[session]
        columns = {"sessionId": session + 1, "userId": "NA", "itemId": ids}
        table = pd.DataFrame(columns | {"timeframe": timeframe, "eventdate": eventdate})
        return table.iloc[np.lexsort((rng.random(len(clicks)), session))].reset_index(drop=True)


def sample_dataset(seed: int = 0, knobs: Knobs | None = None) -> SessionDataset:
    """The embedded sample: a world's log, read and split like a real one.

    `meta["synthetic"]` records the seed and the knobs, from which `sample_world` rebuilds the world.
    """
    world = World(seed, knobs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.csv"
        world.log().to_csv(path, sep=";", index=False)
        clicks = read_diginetica(path)
    dataset = build_sessions(clicks, "sample", f"synthetic clicks, seed {seed}", TEST_DAYS)
    return replace(dataset, meta=dataset.meta | {"synthetic": {"seed": seed, **asdict(world.knobs)}})


def sample_world(dataset: SessionDataset) -> World | None:
    """The world that generated a sample, in memory or opened from disk; None for real data."""
    if "synthetic" not in dataset.meta:
        return None
    knobs = dict(dataset.meta["synthetic"])
    return World(knobs.pop("seed"), Knobs(**knobs))
