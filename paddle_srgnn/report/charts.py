"""Charts as SVG that takes its colours from the page around it, so that they fit a light and a dark one."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .markup import Html, element

SIZE = (4.6, 3.1)  # inches of 72 units; as wide as a phone, where its letters then have their size
COLOURS = 8
# What matplotlib draws with, and what of the page stands for it.
TEXT, RULE, BAR, MUTED = "#000001", "#000002", "#000003", "#000004"
PAGE = {TEXT: "currentColor", RULE: "var(--rule)", BAR: "var(--bar)", MUTED: "var(--muted)"}
PAGE |= {f"#0000f{n}": f"var(--s{n})" for n in range(COLOURS)}
LOOK = {
    "svg.fonttype": "none", "font.size": 10.5, "text.color": TEXT, "axes.labelcolor": TEXT, "axes.edgecolor": RULE,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": TEXT, "ytick.labelcolor": TEXT, "grid.color": RULE,
    "axes.grid": True, "axes.grid.axis": "y", "grid.linewidth": 0.6, "axes.axisbelow": True, "ytick.major.size": 0,
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "lines.solid_capstyle": "round",
}  # fmt: skip


class Style(NamedTuple):
    """How a result is drawn, in every chart alike.

    Attributes:
        number: of the result; its lines are of the class `s<number>`.
        colour: one of the keys of PAGE.
        dashes: lengths of strokes and gaps; empty for a solid line.
    """

    number: int
    colour: str
    dashes: tuple[float, ...]

    @property
    def css_colour(self) -> str:
        return PAGE[self.colour]


MODEL_DASHES = ((), (4, 1.6), (1, 1.4), (6, 1.5, 1, 1.5))
BASELINE_DASHES = ((1, 1.5), (3, 1.5), (6, 1.5), (6, 1.5, 1, 1.5), ())


def styles(is_model: Sequence[bool]) -> list[Style]:
    """A style for each result: models in colours, whatever else in grey."""
    found, models, others = [], 0, 0
    for number, model in enumerate(is_model):
        if model:
            dashes = MODEL_DASHES[models // COLOURS % len(MODEL_DASHES)]
            found.append(Style(number, f"#0000f{models % COLOURS}", dashes))
            models += 1
        else:
            found.append(Style(number, MUTED, BASELINE_DASHES[others % len(BASELINE_DASHES)]))
            others += 1
    return found


class Line(NamedTuple):
    """A result's line in a chart."""

    name: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    key: str,
    title: str,
    x_label: str,
    lines: Sequence[Line],
    categories: Sequence[str] = (),
    shares: Sequence[float] = (),
    from_zero: bool = True,
) -> Html:
    """A figure with its title, and its numbers as a text alternative.

    Args:
        key: unlike that of any other chart of the page.
        lines: NaN is a gap.
        categories: what stands at 0, 1, .. on the x axis, instead of numbers.
        shares: of the samples in each category, drawn as bars in the background.
        from_zero: whether the y axis starts at 0.
    """
    with matplotlib.rc_context({**LOOK, "svg.hashsalt": key}):
        figure = Figure(figsize=SIZE)
        axes = figure.subplots()
        if len(shares):
            behind = axes.twinx()
            behind.bar(range(len(shares)), shares, width=0.72, color=BAR, linewidth=0)
            behind.set(ylim=(0, max(shares) / 0.4))
            behind.set_axis_off()
            axes.set(zorder=behind.get_zorder() + 1, frame_on=True)
            axes.patch.set_visible(False)
        for line in lines:
            marked = {"marker": "o", "markersize": 3.6} if len(line.x) < 30 else {}
            (drawn,) = axes.plot(line.x, line.y, color=line.style.colour, linewidth=2, clip_on=False, **marked)
            drawn.set(linestyle=(0, line.style.dashes) if line.style.dashes else "-", gid=f"series-{line.style.number}")
        axes.set_xlabel(x_label)
        slanted = len(categories) > 5 and max(map(len, categories)) > 5
        if categories:
            look = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
            axes.set_xticks(range(len(categories)), categories, **look)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
        if from_zero:
            axes.set_ylim(bottom=0)
        # Margins that fit every chart of the page: a layout computed for each would double the time it takes.
        figure.subplots_adjust(left=0.1, right=0.985, top=0.97, bottom=0.29 if slanted else 0.185)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = _for_the_page(file.getvalue(), key, title, _in_words(x_label, lines, categories))
    return element("figure", element("figcaption", title), svg)


def _in_words(x_label: str, lines: Sequence[Line], categories: Sequence[str]) -> str:
    """The chart's numbers, every fifth of a long line."""
    told = []
    for line in lines:
        points = list(zip(line.x, line.y, strict=True))
        some = points if len(points) < 30 else points[4::5]
        told.append(
            f"{line.name}: "
            + ", ".join(f"{categories[int(x)] if categories else f'{x:g}'}: {y:.2f}" for x, y in some if y == y)
        )
    return f"By {x_label}. " + "; ".join(told)


def _for_the_page(svg: str, key: str, title: str, words: str) -> Html:
    """Matplotlib's file as an element of the page: without its style sheet, its fonts, its size and its names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg).group()
    named = f'role="img" aria-labelledby="{key}-title {key}-words"'
    alternative = element("title", title, id=f"{key}-title") + element("desc", words, id=f"{key}-words")
    inside = svg[svg.index(">") + 1 :]
    inside = re.sub(r' id="series-(\d+)"', r' class="s\1"', inside)
    inside = re.sub(r' id="', f' id="{key}-', inside)
    inside = re.sub(r'(?:xlink:)?(href="#)|(url\(#)', rf"\1\2{key}-", inside)
    inside = re.sub(r"font: (?:[\w.]+ )*?([\d.]+px)[^;\"]*", r"font-size: \1", inside)
    inside = re.sub(r"font-family: [^;\"]*;? ?", "", inside)
    inside = re.sub(r"#0000[0f]\d", lambda found: PAGE.get(found.group(), found.group()), inside)
    return Html(f"<svg {view} {named}>{alternative}{inside}")
