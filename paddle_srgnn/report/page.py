"""The results as one HTML page that needs no other file and no network: light and dark, on a phone and on paper.

Python prepares figures, charts and examples as plain data; page.html shows and explains them.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import yaml

from ..datasets.sessions import SessionDataset
from ..evaluation.results import Result, mean_and_deviation
from ..files import atomic_file
from .breakdown import KS, Breakdown, K, break_down, recommended
from .charts import Line, Style, line_chart, styles
from .reproduction import Origin, all_but_seed, commands, facts, origin_of

FOLDER = Path(__file__).parent
CLICKS_SHOWN = 12  # of an example's session, the most recent ones
TIES = {
    "mean": "A target that shares its score with other items gets the middle of their ranks.",
    "optimistic": "A target that shares its score with other items gets the best of their ranks.",
    "pessimistic": "A target that shares its score with other items gets the worst of their ranks.",
    "order of items": "Items of equal score are listed in order of their numbers.",
}


class Words(NamedTuple):
    """A protocol's words for what a metric averages over and for what the data consist of, and its explanations."""

    samples: str
    sessions: str
    task: str
    metrics: str


WORDS = {
    "sessions": Words(
        "samples", "sessions", "The next item of each sample is ranked among all items of the catalogue.",
        "P@K is the share of samples whose next item is among the first K of the list. MRR@K is the mean of 1/rank, "
        "with 0 for ranks beyond K.",
    ),
    "course": Words(
        "users", "users", "The last items of each user are searched for in a list from all items of the catalogue.",
        "recall@K is the share of a user's last items among the first K of the list, hitrate@K the share of users "
        "with at least one of them there. ndcg@K also counts their ranks; course_ndcg@K is the course's variant.",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row(Result):
    """A result with the origin of its run."""

    origin: Origin | None = None


class Seeds(NamedTuple):
    """Results that differ in nothing but the seed, with the mean and sample standard deviation of their metrics."""

    name: str
    members: list[Row]
    mean: dict[str, float]
    deviation: dict[str, float]


def write_page(
    path: Path, dataset: SessionDataset, split: str, ties: str, rows: Sequence[Result], tests: Sequence[Mapping],
    command: str | None = None, titles: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write the page.

    Args:
        path: of the file, which is complete or absent.
        dataset: the data of the results.
        split: "test" or "valid".
        ties: how equal scores were ranked, one of `TIES`.
        tests: the output of `statistics.paired_tests`, which refers to results by name.
        command: the command line that made the page; None where a training did.
        titles: item titles by raw id, for the examples.
    """
    rows = [Row(**vars(row), origin=row.run and origin_of(row.run)) for row in rows]
    short = dict(zip([row.name for row in rows], _short_names(rows), strict=True))
    rows = [dataclasses.replace(row, name=short[row.name]) for row in rows]
    done, models = [row for row in rows if not row.error], [row for row in rows if row.origin]
    looks = dict(zip([row.name for row in done], styles([row.origin is not None for row in done]), strict=True))
    listed = [row for row in done if row.top is not None]
    details = {row.name: break_down(row.ranks, row.top, row.sessions, dataset.item_clicks) for row in listed}
    targets = listed[0].sessions.items[listed[0].sessions.sample_positions()] if listed else None
    pairs: dict[str, list[Mapping]] = {}
    for test in tests:
        pairs.setdefault(f"{short[test['a']]} − {short[test['b']]}", []).append(test)
    seeds, metrics = list(_seeds(done)), _metrics(rows)
    with atomic_file(path) as temporary:
        temporary.write_text(_template().render(
            dataset=dataset, split=split, ties=TIES[ties], words=WORDS[dataset.protocol], K=K, rows=rows, looks=looks,
            samples=sorted({row.samples for row in done}), metrics=metrics, best=_best(done, metrics),
            tiles=list(_tiles(done, seeds)), seeds={group.members[-1].name: group for group in seeds}, pairs=pairs,
            published=_published(dataset, metrics) if split == "test" else None,
            learning=list(_learning_charts(models, looks)), trained=[row for row in models if row.origin.history],
            details=details, accuracy=list(_accuracy_charts(details, looks)),
            clicked=recommended(targets, dataset.item_clicks) if listed else None,
            examples=_examples(dataset, listed, details, titles or {}), is_titled=bool(titles), models=models,
            commands=commands(models, command), facts=facts(models),
        ), encoding="utf-8")  # fmt: skip


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template("page.html")


def _short_names(rows: Sequence[Row]) -> list[str]:
    """The rows' names, paths without the folders that they share."""
    paths = [Path(row.name) for row in rows if row.origin or row.error]
    shared = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    names = [os.path.relpath(row.name, shared) if row.origin or row.error else row.name for row in rows]
    return names if len(set(names)) == len(names) else [row.name for row in rows]


def _metrics(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(metric for row in rows for metric in row.metrics))


def _best(rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, float]:
    """The highest value of each metric; a bound does not count."""
    values = {metric: [row.metrics[metric] for row in rows if metric in row.metrics and not row.is_bound]
              for metric in metrics}  # fmt: skip
    return {metric: max(found, default=float("nan")) for metric, found in values.items()}


def _seeds(rows: Sequence[Row]) -> Iterator[Seeds]:
    groups: dict[tuple, list[Result]] = {}
    for row in rows:
        if row.origin:
            groups.setdefault(all_but_seed(row.origin), []).append(row)
    for members in groups.values():
        if len(members) > 1 and len({row.origin.settings.seed for row in members}) == len(members):
            (_, mean), (_, deviation) = mean_and_deviation(members)
            shared = os.path.dirname(members[0].name)
            name = f"{shared}: mean of {len(members)} seeds" if shared else f"mean of {len(members)} seeds"
            yield Seeds(name, members, mean, deviation)


def _tiles(rows: Sequence[Row], seeds: Sequence[Seeds]) -> Iterator[tuple[str, str, str]]:
    """The best result in P and MRR at the largest K, or else in the first two metrics; of several seeds their mean."""
    summed_up = {row.name for group in seeds for row in group.members}
    contenders = [(group.name, group.mean, group.deviation) for group in seeds]
    contenders += [(row.name, row.metrics, {}) for row in rows if not row.is_bound and row.name not in summed_up]
    metrics = list(dict.fromkeys(metric for _, values, _ in contenders for metric in values))
    largest = max((int(metric.partition("@")[2] or 0) for metric in metrics), default=0)
    for metric in [metric for metric in metrics if metric in (f"P@{largest}", f"MRR@{largest}")] or metrics[:2]:
        name, values, deviation = max((c for c in contenders if metric in c[1]), key=lambda c: c[1][metric])
        spread = f" ± {deviation[metric]:.2f}" if deviation else ""
        yield f"Best {metric}", f"{values[metric]:.2f}{spread}", name


def _published(dataset: SessionDataset, metrics: Sequence[str]) -> dict | None:
    """The benchmark that the dataset is, with its published figures, if any of the metrics has some."""
    counts = {"items": dataset.n_items - 1, "train_samples": dataset.train.n_samples}
    counts["test_samples"] = dataset.test.n_samples
    benchmarks = yaml.safe_load((FOLDER / "published.yaml").read_text(encoding="utf-8"))
    shown = [metric for metric in ("P@20", "MRR@20") if metric in metrics]
    return next((b | {"metrics": shown} for b in benchmarks if shown and counts.items() <= b.items()), None)


def _learning_charts(models: Sequence[Row], looks: Mapping[str, Style]) -> Iterator[dict]:
    """The loss, and the metrics at 20, where there is more than one epoch of them."""
    histories = {row.name: {int(epoch["epoch"]): epoch for epoch in row.origin.history} for row in models}
    keys = dict.fromkeys(key for history in histories.values() for epoch in history.values() for key in epoch)
    measured = [key for key in keys if key.endswith("@20") and "ndcg" not in key.lower()]
    for number, key in enumerate(["loss", *measured]):
        found = {name: {n: epoch[key] for n, epoch in of.items() if key in epoch} for name, of in histories.items()}
        epochs = sorted({epoch for values in found.values() for epoch in values})
        if len(epochs) > 1:
            lines = [Line(name, looks[name], [values.get(epoch, float("nan")) for epoch in epochs])
                     for name, values in found.items() if values]  # fmt: skip
            title = "Training loss" if key == "loss" else f"{key.replace('_', ' ', 1)}, %"
            yield line_chart(f"learning{number}", title, "epoch", epochs, lines, from_zero=False)


def _accuracy_charts(details: Mapping[str, Breakdown], looks: Mapping[str, Style]) -> Iterator[dict]:
    groupings = {
        "by_length": ("length of the session", "clicks before the target"),
        "by_popularity": ("popularity of the target", "training clicks of the target"),
    }
    for metric in ("P", "MRR") if details else ():
        lines = [Line(name, looks[name], detail.over_k[metric].tolist()) for name, detail in details.items()]
        yield line_chart(f"over-{metric}", f"{metric}@K, %", "K", KS.tolist(), lines)
        for key, (by, x_label) in groupings.items():
            groups = {name: {group.label: group for group in getattr(of, key)} for name, of in details.items()}
            shown = [group for group in next(iter(groups.values())).values() if group.samples]
            lines = []
            for name, own in groups.items():  # a result of another split may lack a group
                values = [getattr(own.get(group.label), metric.lower(), float("nan")) for group in shown]
                lines.append(Line(name, looks[name], values))
            labels, samples = [group.label for group in shown], [group.samples for group in shown]
            yield line_chart(f"{key}-{metric}", f"{metric}@{K} by {by}, %", x_label, labels, lines, samples)


def _examples(
    dataset: SessionDataset, rows: Sequence[Row], details: Mapping[str, Breakdown], titles: Mapping[str, str]
) -> dict | None:
    """Some samples of the best model, with the ranks that other results of the same samples give them."""
    if not rows:
        return None
    models = [row for row in rows if row.origin] or rows
    shown = max(models, key=lambda row: float(np.mean((row.ranks <= K) / row.ranks)))
    others = [row for row in rows if row is not shown and len(row.ranks) == len(shown.ranks)]

    def item(number: int) -> dict:
        raw_id = dataset.item_ids[number]
        return {"number": number, "id": raw_id, "text": titles.get(raw_id, raw_id)}

    samples = [
        {
            "rank": example.rank, "target": item(example.target), "top": list(map(item, example.top)),
            "earlier": len(example.clicks) - CLICKS_SHOWN, "clicks": list(map(item, example.clicks[-CLICKS_SHOWN:])),
            "elsewhere": ", ".join(f"{row.name} {row.ranks[example.sample]:,g}" for row in others),
        }
        for example in details[shown.name].examples
    ]  # fmt: skip
    return {"name": shown.name, "samples": samples}
