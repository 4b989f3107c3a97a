import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

from paddle_srgnn.config import load_recipe
from paddle_srgnn.evaluation.results import Result, result_of
from paddle_srgnn.evaluation.statistics import paired_tests
from paddle_srgnn.protocols.metrics import ranking_metrics
from paddle_srgnn.protocols.paper import Measured, Paper
from paddle_srgnn.report import page as pages
from paddle_srgnn.report.breakdown import break_down
from paddle_srgnn.report.page import write_page
from paddle_srgnn.report.reproduction import Origin

NASTY = """<script>alert("1")</script><img src=x onerror='alert(2)'>&amp;$content"""
KS = (5, 20)


@pytest.fixture(scope="module")
def dataset(ring):
    """The ring with raw ids, and a name, that are HTML."""
    ids = [raw and f"{NASTY}{raw}" for raw in ring.item_ids]
    return dataclasses.replace(ring, name=f"ring{NASTY}", item_ids=ids)


@pytest.fixture(scope="module", autouse=True)
def no_folders():
    """The results' runs here are their origins already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "origin_of", lambda run: run)
        yield


def origin(tmp_path, **changes) -> Origin:
    settings = dataclasses.replace(load_recipe("paper"), **changes)
    history = [{"epoch": n, "loss": 3.0 / n, "valid_P@20": 20.0 * n, "valid_NDCG@20": 9.0} for n in (1, 2)]
    data = {"name": NASTY, "path": f"/data/{NASTY}", "hash": "abc"}
    environment = {"versions": {"paddlepaddle": NASTY}, "device": "cpu", "threads": 2, "git_revision": "f00"}
    return Origin(tmp_path / NASTY, 2, "0" * 64, "paper", environment, settings, data, history)


@pytest.fixture(scope="module")
def results(dataset, tmp_path_factory):
    """Two models of which the second is better everywhere, one that failed, a baseline and a bound."""
    folder, test, rng = tmp_path_factory.mktemp("runs"), dataset.test, np.random.default_rng(0)

    def result(name, highest, **more):
        ranks = rng.integers(1, highest, test.n_samples).astype(float)
        top = rng.permuted(np.tile(np.arange(1, 21), (test.n_samples, 1)), axis=1)
        return result_of(name, Paper(), test, Measured(ranking_metrics(ranks, KS), ranks, top), **more)

    return [
        result(f"{folder}/one{NASTY}", 40, run=origin(folder)),
        result(f"{folder}/two", 5, run=origin(folder, embedding_dim=7)),
        Result(f"{folder}/broken", error=f"not finite {NASTY}"),
        result("popularity", 60),
        result("ceiling", 2, is_bound=True),
    ]


@pytest.fixture(scope="module")
def page(dataset, results, tmp_path_factory):
    done = [result for result in results if not result.error]
    labels = dataset.test.sample_starts(dataset.test.sample_positions())
    tests = paired_tests({result.name: result.ranks for result in done}, labels, permutations=50)
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, dataset, "test", "mean", results, tests, f"srgnn evaluate '{NASTY}'")
    return path


def tree(path) -> ElementTree.Element:
    """The page's content, which is XML too: nothing is left open, nothing unescaped."""
    return ElementTree.fromstring(re.search(r"<main>.*</main>", path.read_text(encoding="utf-8"), re.DOTALL).group())


def rows(table: ElementTree.Element) -> dict[str, list[ElementTree.Element]]:
    body = table.findall("tbody/tr")
    return {"".join(row.find("th").itertext()): row.findall("td") for row in body}


def table_of(content: ElementTree.Element, label: str) -> ElementTree.Element:
    return content.find(f".//div[@aria-label='{label}']/table")


def test_strings_are_text_wherever_they_come_from(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<script>") == 1 and "<img" not in text and "alert(&#34;1&#34;)" in text
    whole = "".join(tree(page).itertext())
    for place in (f"one{NASTY}", f"{NASTY}101", f"not finite {NASTY}", f"ring{NASTY}"):
        assert place in whole
    assert not [node for node in tree(page).iter() if "onerror" in node.attrib]


def test_the_page_needs_nothing_and_only_its_own_script_may_run(page):
    text = page.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    for node in tree(page).iter():
        for name, value in node.attrib.items():
            if name in ("href", "src") or "url(" in value:
                assert value.removeprefix("url(").startswith("#"), value
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert page.stat().st_size < 2_000_000


def test_names_are_unique_and_point_somewhere(page):
    names = [node.get("id") for node in tree(page).iter() if node.get("id")]
    assert len(names) == len(set(names))
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(names)


def test_the_best_contender_of_a_column_is_marked(page, results):
    found = rows(table_of(tree(page), "Results"))
    assert list(found) == [f"one{NASTY}", "two", "broken", "popularity", "ceiling"]
    marked = {name: [cell.get("class") for cell in cells] for name, cells in found.items()}
    assert set(marked["two"]) == {"figure best"}
    assert set(marked["one" + NASTY] + marked["popularity"] + marked["ceiling"]) == {"figure"}
    value = results[1].metrics["P@5"]
    assert found["two"][0].find("strong").text == f"{value:.2f}" and float(found["two"][0].get("data-value")) == value
    low, high = results[1].intervals["P@5"]
    assert found["two"][0].find("small").text == f"{low:.2f}–{high:.2f}"
    (failed,) = found["broken"]
    assert failed.text == f"failed: not finite {NASTY}" and failed.get("colspan") == "6"


def test_headings_can_be_pressed(page):
    for table in tree(page).findall(".//table"):
        headings = table.findall("thead/tr/th")
        if headings[0].find("button") is not None:
            assert all(heading.find("button").get("type") == "button" for heading in headings)
            assert {heading.get("aria-sort") for heading in headings} == {"none"}


def test_every_chart_has_its_numbers_in_words(page, results, dataset):
    charts = tree(page).findall(".//figure")
    titles = [chart.find("figcaption").text for chart in charts]
    assert titles == [
        "Training loss", "valid P@20, %",
        "P@K, %", "P@20 by length of the session, %", "P@20 by popularity of the target, %",
        "MRR@K, %", "MRR@20 by length of the session, %", "MRR@20 by popularity of the target, %",
    ]  # fmt: skip
    for chart in charts:
        svg = chart.find("svg")
        assert svg.get("role") == "img" and svg.get("tabindex") == "0"
        assert svg.get("aria-labelledby") == chart.find("figcaption").get("id")
        assert svg.get("aria-describedby") == svg.find("desc").get("id")
        assert NASTY in json.loads(svg.get("data-chart"))["lines"][0]["name"]
    assert "two: 1: 3.00, 2: 1.50" in charts[0].find("svg/desc").text
    found = break_down(results[1].ranks, results[1].top, results[1].sessions, dataset.item_clicks).by_length
    assert "; ".join(f"{group.label}: {group.p:.2f}" for group in found) in charts[3].find("svg/desc").text
    assert [text.text for text in charts[3].findall("svg/text[@class='n']")] == [str(group.samples) for group in found]


def test_differing_settings_are_marked_and_stand_first(page):
    found = tree(page).findall(".//div[@aria-label='All settings']/table/tbody/tr")
    names = ["".join(row.find("th").itertext()) for row in found]
    settings = found[names.index("Settings") + 1 :]
    marked = ["".join(row.find("th").itertext()) for row in settings if row.get("class") == "differs"]
    assert marked == ["embedding_dim"] and settings[0].get("class") == "differs"
    assert [cell.text for cell in settings[0].findall("td")] == ["100", "7"]
    assert len(settings) == len(dataclasses.fields(load_recipe("paper")))
    assert "--set embedding_dim=7 --device cpu --threads 2" in tree(page).find(".//pre").text


def test_published_figures_stand_beside_those_of_their_benchmark_whatever_its_name(
    page, dataset, results, tmp_path, monkeypatch
):
    assert table_of(tree(page), "Published figures") is None
    (tmp_path / "page.html").write_text((pages.FOLDER / "page.html").read_text())
    published = (pages.FOLDER / "published.yaml").read_text()
    for real, own in ((43097, 20), (719470, dataset.train.n_samples), (60858, dataset.test.n_samples)):
        assert str(real) in published
        published = published.replace(str(real), str(own))
    (tmp_path / "published.yaml").write_text(published)
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    for split, shown in (("valid", False), ("test", True)):
        write_page(tmp_path / "p.html", dataset, split, "mean", results, [], "")
        assert (table_of(tree(tmp_path / "p.html"), "Published figures") is not None) == shown
    found = rows(table_of(tree(tmp_path / "p.html"), "Published figures"))
    assert [cell.text for cell in found["SR-GNN (Wu et al., AAAI 2019)"]] == ["50.73", "17.59"]
    assert [cell.text for cell in found["SR-GNN in PaddleRec"]] == ["51.37", "–"]
    assert "flatters" in "".join(tree(tmp_path / "p.html").itertext())


def test_runs_that_differ_in_the_seed_get_a_mean_and_a_standard_deviation(dataset, tmp_path):
    runs = {"a/1": (1, 7, 10.0), "a/2": (2, 7, 30.0), "b": (3, 8, 90.0)}  # seed, dimension, P@20
    results = [
        Result(f"{tmp_path}/{name}", 9, {"P@20": value}, run=origin(tmp_path, seed=seed, embedding_dim=dimension))
        for name, (seed, dimension, value) in runs.items()
    ]
    write_page(tmp_path / "p.html", dataset, "test", "mean", results, [], "")
    found = rows(table_of(tree(tmp_path / "p.html"), "Results"))
    assert list(found) == ["a/1", "a/2", "a: mean of 2 seeds", "standard deviation", "b"]
    assert found["a: mean of 2 seeds"][0].text == "20.00" and found["standard deviation"][0].text == "14.14"
    write_page(tmp_path / "p.html", dataset, "test", "mean", results[:2], [], "")
    tile = [dd.text for dd in tree(tmp_path / "p.html").findall(".//dl/div/dd")][:2]
    assert tile == ["20.00 ± 14.14", "a: mean of 2 seeds"] or tile == ["20.00 ± 14.14", "mean of 2 seeds"]


def test_titles_stand_for_ids(dataset, results, tmp_path):
    titles = {raw_id: f"Title {NASTY} {n}" for n, raw_id in enumerate(dataset.item_ids) if n != 5}
    write_page(tmp_path / "p.html", dataset, "test", "mean", results, [], "", titles)
    items = tree(tmp_path / "p.html").findall(".//ol/li")
    shown = {item.text: item.get("title") for item in items}
    assert shown[f"Title {NASTY} 7"] == dataset.item_ids[7] and shown[dataset.item_ids[5]] is None


def test_a_page_on_users_says_users(ring_users, tmp_path):
    result = Result("run", 6, {"recall@20": 30.0, "hitrate@20": 60.0}, run=origin(tmp_path))
    write_page(tmp_path / "p.html", ring_users, "test", "order of items", [result], [], "")
    whole = "".join(tree(tmp_path / "p.html").itertext())
    assert "6 users" in whole and "from 48 users" in whole
    assert "samples," not in whole and "sessions," not in whole


def test_metrics_alone_make_a_page(dataset, tmp_path):
    """As of a validation that was measured in training, or of a protocol without ranks."""
    result = Result("run", 9, {"recall@20": 30.0, "hitrate@20": 60.0}, run=origin(tmp_path))
    write_page(tmp_path / "p.html", dataset, "validation", "mean", [result], [], "")
    content = tree(tmp_path / "p.html")
    assert [tile.text for tile in content.findall(".//dl/div/dt")][:2] == ["Best recall@20", "Best hitrate@20"]
    assert [heading.text for heading in content.findall(".//h2")] == ["Results", "Learning", "How to reproduce this"]


def test_nothing_but_failures_make_a_page(dataset, tmp_path):
    failures = [Result(f"{tmp_path}/{name}", error="gone") for name in "ab"]
    write_page(tmp_path / "p.html", dataset, "test", "mean", failures, [], "")
    assert list(rows(table_of(tree(tmp_path / "p.html"), "Results"))) == ["a", "b"]


def test_a_browser_shows_it_without_scrolling_sideways_and_sorts(page, tmp_path):
    """In frames as wide as a phone and a desktop."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs chromium")
    text = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{text}"></iframe>' for width in (390, 1280))
    probe = """<script>addEventListener("load", () => {
    for (const {contentDocument: shown} of document.querySelectorAll("iframe")) {
      const root = shown.documentElement, button = shown.querySelectorAll("th button")[2];
      const body = shown.querySelector("table").tBodies[0];
      const rows = () => [...body.rows].map((row) => row.textContent.trim().slice(0, 3));
      const press = () => (button.click(), `${rows()} ${button.closest("th").getAttribute("aria-sort")}`);
      const orders = [press(), press()];
      document.body.append(`[${root.scrollWidth - root.clientWidth} ${orders}]`);
    }});</script>"""
    (tmp_path / "frames.html").write_text(f"<body>{frames}{probe}</body>", encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom", f"file://{tmp_path / 'frames.html'}",
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    expected = "0 cei,two,one,pop,bro descending,pop,one,two,cei,bro ascending"
    assert shown.count(f"[{expected}]") == 2, shown[-400:]
