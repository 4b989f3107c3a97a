"""HTML that cannot forget to escape: whatever is not HTML already becomes text on its way into an element."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """A piece of HTML, as `element` makes it."""


def element(name: str, *content: object, **attributes: object) -> Html:
    """An element.

    Args:
        content: `Html` as it is, anything else as text.
        attributes: True stands without a value, None is left out; `class_` is class, `aria_label` is aria-label.
    """
    return Html(f"<{name}{''.join(_attributes(attributes))}>{joined(content)}</{name}>")


def joined(content: Iterable[object]) -> Html:
    """Pieces of HTML and of text one after another."""
    return Html("".join(part if isinstance(part, Html) else html.escape(str(part)) for part in content))


def _attributes(attributes: dict[str, object]) -> Iterable[str]:
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            yield f" {name}"
        elif value is not None:
            yield f' {name}="{html.escape(str(value))}"'


def heading(text: str, first: bool = False) -> Html:
    """A column's heading that sorts the table when pressed; the first column is text, the others are figures."""
    button = element("button", text, type="button")
    return element("th", button, scope="col", aria_sort="none", class_=None if first else "figure")


def figure_cell(value: float | None, digits: int = 2, unit: str = "", *below: Html, best: bool = False) -> Html:
    """A cell with a figure, or with a dash where there is none; the best of its column is marked."""
    if value is None or value != value:
        return element("td", "–", class_="figure")
    text = f"{value:,.{digits}f}{unit}"
    shown = element("strong", text, element("span", " best", class_="hidden")) if best else text
    return element("td", shown, *below, class_="figure best" if best else "figure", data_value=value)


def table(label: str, header: Iterable[Html], rows: Iterable[Html]) -> Html:
    """A table in a box of its own, which scrolls where the table is wider than the page."""
    inner = element("table", element("thead", element("tr", *header)), element("tbody", *rows))
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=label)
