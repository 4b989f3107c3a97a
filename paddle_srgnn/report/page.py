"""The results as one HTML page that needs nothing but itself: no network, light and dark, on a phone and on paper."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from ..datasets.sessions import SessionDataset
from ..evaluation.results import Result
from ..files import atomic_file
from .breakdown import KS, Example, K, recommended
from .charts import Line, Style, line_chart, styles
from .markup import Html, element, figure_cell, heading, joined, table
from .reproduction import reproduction

TEMPLATE, PUBLISHED = (Path(__file__).parent / name for name in ("page.html", "published.yaml"))
TIES = {
    "mean": "Among items of equal score a target ranks in the middle.",
    "optimistic": "Among items of equal score a target ranks first.",
    "pessimistic": "Among items of equal score a target ranks last.",
}
CLICKS_SHOWN = 12  # of an example's session, the most recent ones


def write_page(
    path: Path, dataset: SessionDataset, split: str, ties: str, rows: Sequence[Result], tests: Sequence[Mapping],
    command: str,
) -> None:  # fmt: skip
    """Write the page.

    Args:
        path: of the file, which is whole or absent.
        dataset: what the results are on.
        split: "test" or "valid".
        ties: how equal scores were ranked, in words.
        tests: as `statistics.paired_tests` gives them, between results by name.
        command: the command line that made the page.
    """
    short = dict(zip([row.name for row in rows], _short(rows), strict=True))
    rows = [dataclasses.replace(row, name=short[row.name]) for row in rows]
    done = [row for row in rows if not row.error]
    names = dict(zip([row.name for row in done], styles([row.origin is not None for row in done]), strict=True))
    taken_apart = [row for row in rows if row.breakdown]
    learning = list(_learning_charts(rows, names))
    content = joined([
        *_head(dataset, split, ties, rows),
        *_results(rows, names),
        *([_tests(tests, short)] if tests else []),
        *_published(dataset.name, rows),
        _legend(names) if learning or taken_apart else "",
        *([element("h2", "Learning"), _LEARNING, _charts(learning)] if learning else []),
        *(_apart(taken_apart, names) if taken_apart else []),
        *(_recommended(dataset, taken_apart, names) if taken_apart else []),
        *reproduction([(row.name, row.origin) for row in rows if row.origin], dataset, command),
    ])  # fmt: skip
    template = TEMPLATE.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL).group(1)
    filled = string.Template(template).substitute(
        title=joined([f"SR-GNN on {dataset.name}"]),
        content=content,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(filled, encoding="utf-8")


def _short(rows: Sequence[Result]) -> list[str]:
    """The rows' names, paths without the folders that they share."""
    paths = [Path(row.name) for row in rows if row.origin or row.error]
    shared = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    names = [os.path.relpath(row.name, shared) if row.origin or row.error else row.name for row in rows]
    return names if len(set(names)) == len(names) else [row.name for row in rows]


def _head(dataset: SessionDataset, split: str, ties: str, rows: Sequence[Result]) -> Iterable[Html]:
    yield element("p", "SR-GNN · session-based recommendation", class_="kind")
    yield element("h1", f"{dataset.name} · {split}")
    counts = ", ".join(f"{n:,}" for n in sorted({row.samples for row in rows if not row.error})) or "No"
    told = (
        f"{counts} samples, each ranked against the whole catalogue of {dataset.n_items - 1:,} items. "
        f"{TIES.get(ties, f'Equal scores: {ties}.')} Metrics are in percent."
    )
    yield element("p", told, class_="soft")
    tiles = []
    contenders = [row for row in rows if not row.is_bound]
    for metric in _headline(rows):
        best = max((row for row in contenders if metric in row.metrics), key=lambda row: row.metrics[metric])
        tiles.append(_tile(f"Best {metric}", f"{best.metrics[metric]:.2f}", best.name))
    models = [row for row in contenders if row.origin and row.breakdown]
    if models:
        best = max(models, key=lambda row: row.metrics[metric])
        coverage = f"{best.breakdown.recommended.coverage:.1f} %"
        tiles.append(_tile(f"Of the catalogue in top-{K} lists", coverage, best.name))
    tiles.append(_tile("Training clicks", f"{int(dataset.item_clicks.sum()):,}", f"in {len(dataset.train):,} sessions"))
    yield element("dl", *tiles, class_="tiles")


def _headline(rows: Sequence[Result]) -> list[str]:
    """The two metrics in large figures: P and MRR at the largest K, or else the first two."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in row.metrics))
    largest = max((int(metric.partition("@")[2] or 0) for metric in metrics), default=0)
    return [metric for metric in metrics if metric in (f"P@{largest}", f"MRR@{largest}")] or metrics[:2]


def _tile(name: str, value: str, below: str) -> Html:
    return element("div", element("dt", name), element("dd", value), element("dd", below))


def _name_cell(name: str, style: Style) -> Html:
    return element("th", element("span", _sample(style), element("span", name), class_="name"), scope="row")


def _sample(style: Style) -> Html:
    """A short piece of a result's line."""
    dashes = " ".join(f"{1.8 * length:g}" for length in style.dashes) or None
    line = element("line", x1=1, y1=6, x2=29, y2=6, stroke=style.css_colour, stroke_width=2.4, stroke_dasharray=dashes)
    return element("svg", line, viewBox="0 0 30 12", class_="sample", aria_hidden="true")


def _results(rows: Sequence[Result], names: Mapping[str, Style]) -> Iterable[Html]:
    metrics = list(dict.fromkeys(metric for row in rows for metric in row.metrics))
    contenders = [row for row in rows if not row.is_bound]
    best = {m: max((row.metrics[m] for row in contenders if m in row.metrics), default=None) for m in metrics}
    body = []
    for row in rows:
        cells = [figure_cell(row.metrics.get(metric), 2, "", *_interval(row, metric),
                             best=not row.is_bound and row.metrics.get(metric) == best[metric])
                 for metric in metrics]  # fmt: skip
        if row.error:
            cells = [element("td", f"failed: {row.error}", class_="failed", colspan=max(1, len(metrics)))]
        name = element("th", row.name, scope="row") if row.error else _name_cell(row.name, names[row.name])
        body.append(element("tr", name, *cells))
    yield element("h2", "Results")
    told = "The best figure of each column is marked. Any heading sorts."
    if any(row.is_bound for row in rows):
        told += " The ceiling knows the distribution the clicks were drawn from; it does not compete."
    if any(row.intervals for row in rows):
        told += " Small figures are intervals of 95 %, by a bootstrap over sessions."
    yield element("p", told, class_="soft")
    yield table("Results", [heading("result", first=True), *map(heading, metrics)], body)


def _interval(row: Result, metric: str) -> list[Html]:
    if metric not in row.intervals:
        return []
    low, high = row.intervals[metric]
    return [element("small", f"{low:.2f}–{high:.2f}")]


def _tests(tests: Sequence[Mapping], short: Mapping[str, str]) -> Html:
    metrics = list(dict.fromkeys(test["metric"] for test in tests))
    pairs: dict[tuple[str, str], list[Html]] = {}
    for test in tests:
        cells = [figure_cell(test["difference"]), figure_cell(test["p_holm"], 4)]
        pairs.setdefault((short[test["a"]], short[test["b"]]), []).extend(cells)
    header = [heading("difference", first=True), *(heading(name) for metric in metrics for name in (metric, "p"))]
    body = [element("tr", element("th", f"{a} − {b}", scope="row"), *cells) for (a, b), cells in pairs.items()]
    told = "Paired permutation tests over sessions, in percentage points; p after Holm over the pairs of a metric."
    return element(
        "details",
        element("summary", f"Are they different? {len(pairs)} paired tests"),
        element("p", told, class_="soft"),
        table("Paired tests", header, body),
    )


def _published(dataset: str, rows: Sequence[Result]) -> Iterable[Html]:
    """The published figures on a dataset, if there are any of the rows' metrics."""
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).get(dataset, [])
    metrics = [metric for metric in ("P@20", "MRR@20") if any(metric in row.metrics for row in rows)]
    if not published or not metrics:
        return
    yield element("h3", "Published")
    told = (
        "For comparison only, as papers and implementations report them; many are of the best epoch on the test set, "
        "which flatters them."
    )
    yield element("p", told, class_="soft")
    body = [element("tr", element("th", row["model"], scope="row"), *(figure_cell(row.get(m)) for m in metrics))
            for row in published]  # fmt: skip
    yield table("Published figures", [heading("model", first=True), *map(heading, metrics)], body)


def _legend(names: Mapping[str, Style]) -> Html:
    buttons = [
        element("button", _sample(style), name, type="button", aria_pressed="true", data_line=f"s{style.number}")
        for name, style in names.items()
    ]
    return element("div", *buttons, class_="legend", role="group", aria_label="Lines shown in the charts")


def _charts(charts: Iterable[Html]) -> Html:
    return element("div", *charts, class_="charts")


_LEARNING = element(
    "p",
    "By epoch, from each run's metrics.csv. Losses compare only between runs of the same loss: label smoothing and the "
    "scale of the cosine change it.",
    class_="soft",
)


def _learning_charts(rows: Sequence[Result], names: Mapping[str, Style]) -> Iterable[Html]:
    """The loss and the metrics at 20, of which some run has more than one epoch's."""
    histories = {row.name: row.origin.history for row in rows if row.origin and row.origin.history}
    keys = dict.fromkeys(key for history in histories.values() for row in history for key in row)
    measured = [key for key in keys if key.endswith("@20") and "ndcg" not in key.lower()]
    for number, key in enumerate(["loss", *measured]):
        lines = []
        for name, history in histories.items():
            points = [(row["epoch"], row[key]) for row in history if key in row]
            if points:
                lines.append(Line(name, names[name], *zip(*points, strict=True)))
        if any(len(line.x) > 1 for line in lines):
            title = "Training loss" if key == "loss" else key.replace("_", " ", 1)
            yield line_chart(f"learning{number}", title, "epoch", lines, from_zero=False)


def _apart(rows: Sequence[Result], names: Mapping[str, Style]) -> Iterable[Html]:
    yield element("h2", "Where it is right")
    told = (
        f"P@K and MRR@K over the length of the list, and P@{K} and MRR@{K} over groups of samples. Bars are the shares "
        "of the groups: small ones are noisy."
    )
    yield element("p", told, class_="soft")
    groupings = {
        "by_length": ("length of the session", "clicks before the target"),
        "by_popularity": ("popularity of the target", "training clicks of the target"),
    }
    charts = []
    for metric in ("P", "MRR"):
        over_k = [Line(row.name, names[row.name], KS, row.breakdown.over_k[metric]) for row in rows]
        charts.append(line_chart(f"over-{metric}", f"{metric}@K, %", "K", over_k))
        charts += [_group_chart(grouping, metric, *words, rows, names) for grouping, words in groupings.items()]
    yield _charts(charts)
    yield from _novelty(rows, names)


def _group_chart(
    grouping: str, metric: str, by: str, x_label: str, rows: Sequence[Result], names: Mapping[str, Style]
) -> Html:
    groups = [getattr(row.breakdown, grouping) for row in rows]
    used = [n for n in range(len(groups[0])) if any(of_row[n].samples for of_row in groups)]
    lines = [Line(row.name, names[row.name], range(len(used)), [getattr(of_row[n], metric.lower()) for n in used])
             for row, of_row in zip(rows, groups, strict=True)]  # fmt: skip
    shares = [groups[0][n].samples for n in used]
    title = f"{metric}@{K} by {by}, %"
    return line_chart(f"{grouping}-{metric}", title, x_label, lines, [groups[0][n].label for n in used], shares)


def _novelty(rows: Sequence[Result], names: Mapping[str, Style]) -> Iterable[Html]:
    groups = rows[0].breakdown.by_novelty
    repeated = 100 * groups[1].samples / sum(group.samples for group in groups)
    yield element("h3", "New and repeated targets")
    yield element("p", f"{repeated:.1f} % of the targets were clicked before in their session.", class_="soft")
    header = [heading(f"{metric}@{K}, {group.label}") for group in groups for metric in ("P", "MRR")]
    body = [
        element("tr", _name_cell(row.name, names[row.name]),
                *(figure_cell(value) for group in row.breakdown.by_novelty for value in (group.p, group.mrr)))
        for row in rows
    ]  # fmt: skip
    yield table("New and repeated targets", [heading("result", first=True), *header], body)


def _recommended(dataset: SessionDataset, rows: Sequence[Result], names: Mapping[str, Style]) -> Iterable[Html]:
    yield element("h2", "What is recommended")
    told = (
        f"Coverage is the share of the catalogue that is in any of the lists of {K}; clicks are those in training, of "
        "the items in the lists: high figures mean popular items. The last row is of what was clicked next."
    )
    yield element("p", told, class_="soft")
    header = [heading(name) for name in ("coverage", "median clicks", "mean clicks")]
    lists = [(_name_cell(row.name, names[row.name]), row.breakdown.recommended) for row in rows]
    clicked = rows[0].sessions.items[rows[0].sessions.sample_positions()]
    lists.append((element("th", "what was clicked next", scope="row"), recommended(clicked, dataset.item_clicks)))
    body = [
        element("tr", name, figure_cell(coverage, 1, " %"), figure_cell(median, 0), figure_cell(mean, 1))
        for name, (coverage, median, mean) in lists
    ]
    yield table("Coverage and popularity", [heading("result", first=True), *header], body)
    models = [row for row in rows if row.origin] or rows
    shown = max(models, key=lambda row: float(np.mean((row.ranks <= K) / row.ranks)))
    yield element("h2", "Some sessions")
    told = f"What {shown.name} recommends, its hits and its misses evenly spread over the split; raw item ids."
    yield element("p", told, class_="soft")
    others = [row for row in rows if row is not shown and len(row.ranks) == len(shown.ranks)]
    articles = [_example(example, dataset.item_ids, others) for example in shown.breakdown.examples]
    yield element("div", *articles, class_="examples")


def _example(example: Example, item_ids: Sequence[str], others: Sequence[Result]) -> Html:
    earlier = len(example.clicks) - CLICKS_SHOWN
    clicks = [element("span", item_ids[item]) for item in example.clicks[-CLICKS_SHOWN:]]
    if earlier > 0:
        clicks.insert(0, element("span", f"{earlier} earlier", class_="none"))
    clicks += [element("span", "→", class_="none"), element("span", item_ids[example.target], class_="hit")]
    listed = [element("li", item_ids[item], class_="hit" if item == example.target else None) for item in example.top]
    ranks = ", ".join(f"{row.name} {row.ranks[example.sample]:,g}" for row in others)
    return element(
        "article",
        element("h3", f"{'Hit' if example.rank <= K else 'Miss'}: the next item has rank {example.rank:,g}"),
        element("div", *clicks, class_="items"),
        element("p", "Recommended, best first", class_="soft"),
        element("ol", *listed, class_="items"),
        element("p", f"Its rank elsewhere: {ranks}", class_="soft") if ranks else "",
    )
