"""The course's pipeline as a person runs it: preprocess, train, evaluate, draw."""

import csv
import json
import sys

import pytest

from paddle_srgnn.datasets.sessions import open_dataset
from paddle_srgnn.run import Run

BASELINES = ["popularity", "session popularity", "Markov", "V-SKNN"]
METRICS = [f"{name}@{k}" for k in (20, 50) for name in ("recall", "hitrate", "course_ndcg", "ndcg")]
FAST = ["--recipe", "datawhale", "--set=batch_size=8", "--set=learning_rate=0.01"]


def write_log(path, header="user_id,item_id,timestamp", sep=","):
    """Thirty users in a ring of 20 items, 6 to 14 items each; one more has four items, too few."""
    rows = [(f"u{u}", 1 + (3 * u + place) % 20, 1000 * place) for u in range(30) for place in range(6 + u % 9)]
    rows += [("short", item, item) for item in range(1, 5)]
    lines = [header, *(f"{user},{item},{time}" for user, item, time in rows)]
    path.write_text("\n".join(lines).replace(",", sep) + "\n")
    return path


@pytest.fixture(scope="module")
def course_data(run_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    raw = write_log(folder / "log.csv")
    process = run_command("preprocess", "csv", "--protocol", "course", "--raw", raw, "--out", folder / "ringers")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["train", "24"], ["valid", "3"], ["test", "3"]]
    assert lines[4].split("(")[0] == "  dropped users: 1 with fewer than 5 items "
    return folder / "ringers"


@pytest.fixture(scope="module")
def trained(course_data, run_command, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    process = run_command("train", "--data", course_data, *FAST, "--epochs", 4, "--out", run)
    assert process.returncode == 0, process.stderr
    return run, process


def test_the_same_users_from_an_inter_file_and_others_from_another_seed(course_data, run_command, tmp_path):
    inter = write_log(tmp_path / "log.inter", "user_id:token,item_id:token,timestamp:float", "\t")
    renamed = write_log(tmp_path / "renamed.tsv", "who,what,when", "\t")
    columns = ["--columns", "session=who,item=what,time=when", "--sep", "tab"]
    hashes = []
    for n, arguments in enumerate((["inter", "--raw", inter], ["csv", "--raw", renamed, *columns, "--seed", 1])):
        process = run_command("preprocess", *arguments, "--protocol", "course", "--out", tmp_path / str(n))
        assert process.returncode == 0, process.stderr
        hashes.append(open_dataset(tmp_path / str(n)).hash)
    assert hashes[0] == open_dataset(course_data).hash != hashes[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fraction", "1/4"], "--fraction does not apply to --protocol course"),
        (["--test-days", "3"], "--test-days does not apply to --protocol course"),
        (["--min-item-clicks", "2"], "--min-item-clicks does not apply to --protocol course"),
        (["--to-pickle", "p"], "--to-pickle does not apply to --protocol course"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
        (["--columns", "session=visitor"], "no column visitor"),
    ],
)
def test_what_does_not_apply_is_refused(refused, tmp_path, arguments, message):
    raw = write_log(tmp_path / "log.csv")
    common = ["preprocess", "csv", "--protocol", "course", "--raw", raw, "--out", tmp_path / "d"]
    assert message in refused(*common, *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == [raw]


def test_the_protocol_is_for_logs_of_ones_own(refused, tmp_path):
    raw = write_log(tmp_path / "log.csv")
    line = refused("preprocess", "diginetica", "--protocol", "course", "--raw", raw, "--out", tmp_path / "d")
    assert "--protocol does not apply to diginetica" in line
    line = refused("preprocess", "csv", "--seed", 1, "--raw", raw, "--out", tmp_path / "d")
    assert "--seed does not apply to csv" in line
    raw.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{i}\n" for u in range(9) for i in range(4)))
    line = refused("preprocess", "csv", "--protocol", "course", "--raw", raw, "--out", tmp_path / "d")
    assert "0 of 9 users have 5 items or more" in line


def test_training_ends_with_the_courses_table_and_the_baselines(trained):
    run, process = trained
    header, _, *lines = process.stdout.splitlines()
    assert header.split() == METRICS
    epoch = Run(run).checkpoint().progress.epoch - 1
    assert lines[0].startswith(f"SR-GNN, datawhale, epoch {epoch} ")
    assert [line.split("  ")[0] for line in lines[1:5]] == BASELINES
    assert "24 users" in process.stderr
    page = (run / "report.html").read_text()
    assert "listed in order of their numbers" in page and "the middle of their ranks" not in page
    with open(run / "metrics.csv") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4 and all(row[f"valid_{name}"] for row in table for name in METRICS)
    assert [bool(row["test_recall@50"]) for row in table] == [n == epoch for n in range(1, 5)]


def test_evaluation_equals_what_training_printed(trained, run_command, tmp_path):
    run, process = trained
    out = ["--baselines", "--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv"]
    again = run_command("evaluate", run, *out)
    assert again.returncode == 0, again.stderr
    figures = [line.split()[-len(METRICS) :] for line in process.stdout.splitlines()[2:7]]
    assert [line.split()[-len(METRICS) :] for line in again.stdout.splitlines()[4:]] == figures
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["ties"] == "order of items"
    assert [result["checkpoint"] for result in report["results"]] == [str(run), *BASELINES]
    assert all(result["samples"] == 3 and list(result["metrics"]) == METRICS for result in report["results"])
    with open(tmp_path / "r.csv") as file:
        assert [float(row["recall@20"]) for row in csv.DictReader(file)] == [
            result["metrics"]["recall@20"] for result in report["results"]
        ]


def test_the_validation_users_other_places_and_the_picture(trained, run_command, tmp_path):
    run, _ = trained
    outputs = ["--json", tmp_path / "r.json", "--tsne", tmp_path / "items.png"]
    process = run_command("evaluate", run, "--split", "valid", "-k", 20, 3, "--baselines", *outputs)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "items.png").read_bytes().startswith(b"\x89PNG")
    results = {result["checkpoint"]: result for result in json.loads((tmp_path / "r.json").read_text())["results"]}
    model, markov = results[str(run)], results["Markov"]
    assert [name for name in model["metrics"] if "recall" in name] == ["recall@3", "recall@20"]
    epoch = Run(run).checkpoint().progress.epoch - 1
    with open(run / "metrics.csv") as file:
        row = list(csv.DictReader(file))[epoch - 1]
    assert model["metrics"]["recall@20"] == float(row["valid_recall@20"])
    assert markov["metrics"]["hitrate@3"] == 100  # the first label follows the last item read, in a ring for certain


def test_ties_have_one_order_only(trained, refused):
    assert "--ties does not apply to data of protocol course" in refused("evaluate", trained[0], "--ties", "mean")


def test_another_recipe_works(course_data, run_command, tmp_path):
    small = ["--recipe", "paper", "--set", "embedding_dim=4", "--epochs", 1]
    process = run_command("train", "--data", course_data, *small, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[0].split() == METRICS


def test_a_picture_that_cannot_be_is_refused_before_any_work(trained, refused, tmp_path, monkeypatch):
    run, _ = trained
    assert "name one" in refused("evaluate", run, Run(run).find_checkpoint(), "--tsne", tmp_path / "items.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "paddle_srgnn.report.picture", raising=False)
    line = refused("evaluate", run, "--tsne", tmp_path / "items.png")
    assert "matplotlib is not installed" in line
    assert not (tmp_path / "items.png").exists()
