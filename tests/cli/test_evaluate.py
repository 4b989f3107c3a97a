import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_srgnn.datasets.sessions import write_dataset
from paddle_srgnn.evaluation import ranks
from paddle_srgnn.files import sha256
from paddle_srgnn.run import Run

SMALL = [f"--set={change}" for change in ("embedding_dim=8", "batch_size=32", "learning_rate=0.02", "lr_decay_after=")]


@pytest.fixture(scope="module")
def run(data, run_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = [*SMALL, "--set=valid_fraction=0.2", "--epochs", 6]
    process = run_command("train", "--data", data, *changes, "--out", folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def broken(run, tmp_path):
    """A copy of the run with a weight that is not a number, as a diverged training would leave it, hash included."""
    copy = tmp_path / "broken"
    shutil.copytree(run, copy)
    folder = Run(copy).find_checkpoint("last")
    weights = load_file(folder / "model.safetensors")
    weights["item_emb.weight"][7, 3] = np.nan
    save_file(weights, folder / "model.safetensors")
    state = json.loads((folder / "state.json").read_text())
    state["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    return copy


def test_runs_and_checkpoints_in_one_table(run, run_command, ring, tmp_path):
    checkpoint = Run(run).find_checkpoint("last")
    arguments = [run, checkpoint, "-k", 1, 3, "--baselines", "--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv"]
    process = run_command("evaluate", *arguments)
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report.keys() == {"dataset", "dataset_hash", "split", "ties", "results", "tests"}
    assert (report["dataset"], report["dataset_hash"]) == ("ring", ring.hash)
    assert (report["split"], report["ties"]) == ("test", "mean")
    names = [result["checkpoint"] for result in report["results"]]
    assert names == [str(run), str(checkpoint), "popularity", "session popularity", "Markov", "V-SKNN"]
    for result in report["results"]:
        assert result.keys() == {"checkpoint", "samples", "metrics", "intervals", "error"}
        assert result["samples"] == ring.test.n_samples and result["error"] is None
        assert list(result["metrics"]) == ["P@1", "MRR@1", "NDCG@1", "P@3", "MRR@3", "NDCG@3"]
        for name, (low, high) in result["intervals"].items():
            assert 0 <= low <= result["metrics"][name] <= high <= 100
        assert result["intervals"].keys() == result["metrics"].keys()
    assert report["results"][0]["metrics"] == report["results"][1]["metrics"]
    assert report["results"][4]["metrics"]["P@1"] == 100  # the next item of the ring is certain
    with open(tmp_path / "r.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["P@3"]) for row in rows] == [result["metrics"]["P@3"] for result in report["results"]]
    lows = [result["intervals"]["MRR@1"][0] for result in report["results"]]
    assert [float(row["MRR@1_low"]) for row in rows] == lows
    check_the_text(process.stdout, report)


def check_the_text(text: str, report: dict) -> None:
    """Three tables: the metrics; the intervals; the tests, whose rows name results by the numbers of the second."""
    metrics, intervals, tests = text.split("\n\n")[1:]
    first = report["results"][0]
    assert f"{first['metrics']['P@3']:.2f}" in metrics
    low, high = first["intervals"]["P@3"]
    assert (
        f"1 {first['checkpoint']} " in intervals
        and f"{first['metrics']['P@3']:.2f}  [{low:.2f}, {high:.2f}]" in intervals
    )
    assert len(report["tests"]) == 2 * 15 and len(tests.strip().splitlines()) == 2 + 15
    for row in report["tests"]:
        of = {result["checkpoint"]: result["metrics"][row["metric"]] for result in report["results"]}
        assert row["difference"] == pytest.approx(of[row["a"]] - of[row["b"]])
    (same,) = [row for row in report["tests"] if row["metric"] == "P@3"][:1]  # a run and its checkpoint
    assert (same["difference"], same["p"], same["p_holm"]) == (0, 1, 1)
    popularity_markov = [row for row in report["tests"] if (row["a"], row["b"]) == ("popularity", "Markov")]
    assert [row["metric"] for row in popularity_markov] == ["P@3", "MRR@3"]
    assert all(row["p_holm"] < 0.01 for row in popularity_markov)
    p, mrr = popularity_markov
    assert f"3 - 5 {p['difference']:+.2f} {p['p_holm']:.4f} {mrr['difference']:+.2f} {mrr['p_holm']:.4f}" in " ".join(
        tests.split()
    )


def test_it_equals_what_training_printed(run, run_command):
    process = run_command("evaluate", run)
    with open(run / "metrics.csv") as file:
        final = list(csv.DictReader(file))[-1]
    assert f"{float(final['test_P@5']):.2f}" in process.stdout.split("\n\n")[1].splitlines()[-1]
    assert "differences" not in process.stdout  # there is nothing to compare with


def test_the_validation_split_is_the_runs(run, run_command, ring, tmp_path):
    process = run_command("evaluate", run, "--split", "valid", "--json", tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert result["samples"] == ring.train.split_recent(0.2)[1].n_samples


def test_runs_with_validation_sets_of_their_own_are_not_compared(run, run_command, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    path = Run(tmp_path / "other").find_checkpoint("last") / "state.json"
    state = json.loads(path.read_text())
    state["settings"]["valid_fraction"] = 0.4
    path.write_text(json.dumps(state))
    process = run_command("evaluate", run, tmp_path / "other", "--split", "valid", "--json", tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["results"][0]["samples"] < report["results"][1]["samples"]
    assert report["tests"] == [] and "differences" not in process.stdout


def test_ties_order_the_ranks(run, run_command, tmp_path):
    values = {}
    for ties in ("optimistic", "mean", "pessimistic"):
        process = run_command("evaluate", run, "-k", 1, "--ties", ties, "--json", tmp_path / "r.json")
        assert process.returncode == 0
        values[ties] = json.loads((tmp_path / "r.json").read_text())["results"][0]["metrics"]["MRR@1"]
    assert values["optimistic"] >= values["mean"] >= values["pessimistic"]


def test_a_weight_that_is_not_a_number_never_gets_a_rank(broken, run_command):
    process = run_command("evaluate", broken)
    assert process.returncode == 1 and process.stdout == ""
    (line,) = process.stderr.strip().splitlines()
    assert str(Run(broken).find_checkpoint("last")) in line and "sample 0 " in line and "not finite" in line


def test_in_a_batch_a_failure_has_its_error_in_its_row_and_the_rest_go_on(run, broken, run_command, tmp_path):
    outputs = ["--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--html", tmp_path / "r.html"]
    process = run_command("evaluate", broken, tmp_path / "nowhere", run, *outputs)
    assert process.returncode == 1
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [result["checkpoint"] for result in results] == [str(broken), str(tmp_path / "nowhere"), str(run)]
    assert [result["error"] is None for result in results] == [False, False, True]
    assert "not finite" in results[0]["error"] and "no such run" in results[1]["error"]
    assert "nowhere: " in process.stderr
    table = process.stdout.split("\n\n")[1].splitlines()[2:]
    assert [line.split()[0] for line in table] == [str(broken), str(tmp_path / "nowhere"), str(run)]
    assert "failed: " in table[0] and "not finite" in table[0] and "failed: " in table[1] and "failed" not in table[2]
    assert table[2].rstrip().endswith(f"{results[2]['metrics']['NDCG@20']:.2f}")
    with open(tmp_path / "r.csv") as file:
        assert [row["error"] for row in csv.DictReader(file)] == [results[0]["error"], results[1]["error"], ""]
    page = (tmp_path / "r.html").read_text()
    assert page.count("failed: ") == 2 and "Where it is right" in page


def test_where_all_fail_the_errors_are_all_there_is(broken, run_command, data, tmp_path):
    process = run_command("evaluate", broken, tmp_path / "nowhere", "--data", data, "--html", tmp_path / "r.html")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert process.stdout.strip() == f"page: {tmp_path / 'r.html'}"
    assert (tmp_path / "r.html").read_text().count("failed: ") == 2


def test_a_folder_of_runs_is_evaluated_run_by_run(run, run_command, tmp_path):
    folder = tmp_path / "runs"
    for name in ("seed-10", "seed-9"):
        shutil.copytree(run, folder / name)
    (folder / "seeds.csv").touch()
    process = run_command("evaluate", folder, folder / "seed-9", "--json", tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [result["checkpoint"] for result in results] == [str(folder / "seed-9"), str(folder / "seed-10")]


def test_of_many_results_the_text_shows_the_tests_with_the_best(run, run_command, tmp_path):
    for name in "abc":
        shutil.copytree(run, tmp_path / "runs" / name)
    process = run_command("evaluate", tmp_path / "runs", "--baselines", "-k", 1, "--json", tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    values = [result["metrics"]["P@1"] for result in report["results"]]
    best = values.index(max(values)) + 1
    assert len(report["tests"]) == 2 * 21
    tests = process.stdout.split("\n\n")[-1].splitlines()
    assert tests[-1] == "the pairs with the best P@1; --json and --html have all of them"
    pairs = [line.split()[:3] for line in tests[2:-1]]
    assert len(pairs) == 6 and all(str(best) in (a, b) for a, _, b in pairs)


def test_the_page_shows_what_the_table_does_and_costs_no_second_pass(run, run_command, tmp_path, monkeypatch):
    count, calls = ranks.count_ranks, []
    monkeypatch.setattr(ranks, "count_ranks", lambda *args, **how: calls.append(1) or count(*args, **how))
    page = tmp_path / "<b>page.html"
    process = run_command("evaluate", run, "-k", 3, "--baselines", "--html", page)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == f"page: {page}" and len(calls) == 1
    text = page.read_text()
    for figure in process.stdout.split("\n\n")[1].splitlines()[2].split()[1:]:
        assert f">{figure}<" in text
    for part in ("Results", "Learning", "Where it is right", "What is recommended", "Some sessions", "V-SKNN"):
        assert part in text
    assert "<b>" not in text and "&lt;b&gt;page.html" in text  # in the command that makes it again


def test_a_checkpoint_that_does_not_fit_the_dataset_is_refused(run, ring, refused, tmp_path):
    renamed = dataclasses.replace(ring, name="renamed", item_ids=[*ring.item_ids[:5], "else", *ring.item_ids[6:]])
    write_dataset(renamed, tmp_path / "renamed")
    line = refused("evaluate", run, "--data", tmp_path / "renamed")
    assert "item 5 is '105', in the data 'else'" in line
    longer = dataclasses.replace(
        ring, item_ids=[*ring.item_ids, "new"], item_clicks=np.append(ring.item_clicks, 0), name="longer"
    )
    write_dataset(longer, tmp_path / "longer")
    assert "21 items against 22" in refused("evaluate", run, "--data", tmp_path / "longer")


def test_other_sessions_over_the_same_items_fit(run, ring, run_command, tmp_path):
    write_dataset(dataclasses.replace(ring, test=ring.train), tmp_path / "other")
    assert run_command("evaluate", run, "--data", tmp_path / "other").returncode == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required"),
        (["RUN", "-k", "0"], "whole number from 1"),
        (["RUN", "--ties", "random"], "invalid choice"),
        (["RUN", "--data", "nowhere"], "nowhere"),
        (["RUN", "--json", "nowhere/r.json"], "its folder does not exist"),
        (["RUN", "--html", "nowhere/r.html"], "its folder does not exist"),
        (["RUN", "--split", "valid", "--audit"], "leave out --split valid"),
        (["RUN", "--split", "valid", "--baselines"], "leave out --split valid"),
        (["nowhere"], "no such run"),
        (["."], "no checkpoint here"),
    ],
)
def test_bad_input_is_one_clear_line(run, refused, tmp_path, arguments, message):
    arguments = [run if argument == "RUN" else argument for argument in arguments]
    assert message in refused("evaluate", *arguments, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_without_validation_has_no_such_split(ring_run, refused):
    assert "no validation set" in refused("evaluate", ring_run, "--split", "valid")


def test_truncated_weights_are_refused(run, refused, tmp_path):
    shutil.copytree(run, tmp_path / "cut")
    path = Run(tmp_path / "cut").find_checkpoint("last") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert "truncated or altered" in refused("evaluate", tmp_path / "cut")


def test_a_run_finds_its_own_data_again_from_anywhere(run_command, data, small_sample, tmp_path):
    """The embedded sample, which has no folder, and a dataset that was named by a relative path."""
    (tmp_path / "elsewhere").mkdir()
    tiny = ["--epochs", 1, "--set", "embedding_dim=4"]
    assert run_command("train", *tiny, "--out", tmp_path / "sample").returncode == 0
    assert run_command("train", *tiny, "--data", data.name, "--out", tmp_path / "ring", cwd=data.parent).returncode == 0
    for run in ("sample", "ring"):
        process = run_command("evaluate", tmp_path / run, "-k", 5, cwd=tmp_path / "elsewhere")
        assert process.returncode == 0, process.stderr


def test_titles_are_shown_in_the_examples_of_the_page(run, run_command, refused, tmp_path):
    (tmp_path / "titles.csv").write_text("id,title\n" + "".join(f"{n},Item <{n}>\n" for n in range(101, 121)))
    arguments = [run, "--html", tmp_path / "p.html", "--titles", tmp_path / "titles.csv"]
    process = run_command("evaluate", *arguments)
    assert process.returncode == 0, process.stderr
    assert "Item &lt;107&gt;" in (tmp_path / "p.html").read_text()
    (tmp_path / "titles.csv").write_text("id,title\n101\n")
    assert "titles.csv, line 2: 1 fields; expected raw id and title" in refused("evaluate", *arguments)


@pytest.fixture(scope="module")
def later(ring, tmp_path_factory):
    """The ring with a test after training, as a dataset on disk."""
    test = dataclasses.replace(ring.test, dates=ring.test.dates + 10**7)
    folder = tmp_path_factory.mktemp("data") / "later"
    write_dataset(dataclasses.replace(ring, name="later", test=test), folder)
    return folder


def test_the_audit_prints_a_line_for_each_check_and_is_in_the_json(run, run_command, later, ring, tmp_path):
    process = run_command("evaluate", run, "--data", later, "--audit", "--baselines", "--json", tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    heading, *lines = process.stdout.strip().split("\n\n")[-1].splitlines()
    assert heading == f"audit of {run}, {ring.test.n_samples} samples, seed 0"
    assert [line.split("  ")[0] for line in lines] == ["pass"] * 8
    (audit,) = json.loads((tmp_path / "r.json").read_text())["audit"]
    assert (audit["checkpoint"], audit["samples"], audit["seed"]) == (str(run), ring.test.n_samples, 0)
    assert audit["passed"] and len(audit["checks"]) == 8
    for check, line in zip(audit["checks"], lines, strict=True):
        assert check["passed"] and check["name"] in line and line.endswith(check["found"])


def test_a_failed_audit_ends_with_1(run, run_command, tmp_path):
    process = run_command("evaluate", run, "--audit", "--json", tmp_path / "r.json")
    assert process.returncode == 1  # the ring's test sessions are dated as its training sessions are
    assert "FAIL  training before the test" in process.stdout and "pass  shuffled" in process.stdout
    (audit,) = json.loads((tmp_path / "r.json").read_text())["audit"]
    assert not audit["passed"]


def test_a_failed_run_is_not_audited_and_the_others_are(run, broken, run_command, later, tmp_path):
    arguments = [broken, run, "--data", later, "--audit", "--json", tmp_path / "r.json"]
    assert run_command("evaluate", *arguments).returncode == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert [audit["checkpoint"] for audit in report["audit"]] == [str(run)] and report["audit"][0]["passed"]


def test_an_unfinished_run_is_named_everywhere(run, run_command, tmp_path):
    shutil.copytree(run, tmp_path / "stopped")
    path = Run(tmp_path / "stopped").find_checkpoint("last") / "state.json"
    state = json.loads(path.read_text())
    state["settings"]["epochs"] = 9
    path.write_text(json.dumps(state))
    outputs = ["--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--html", tmp_path / "r.html"]
    process = run_command("evaluate", tmp_path / "stopped", run, *outputs)
    assert process.returncode == 0, process.stderr
    metrics, intervals, *_ = process.stdout.split("\n\n")[1:]
    for table in (metrics, intervals):
        assert f"{tmp_path / 'stopped'} (unfinished: epoch 7 of 9) " in table and table.count("(unfinished") == 1
    (line,) = process.stderr.strip().splitlines()
    assert line.startswith(f"{tmp_path / 'stopped'}: unfinished: epoch 7 of 9; ")
    assert line.endswith(f"train --out {tmp_path / 'stopped'} --resume completes it")
    assert (tmp_path / "r.html").read_text().count("unfinished: epoch 7 of 9<") == 1
    first, second = json.loads((tmp_path / "r.json").read_text())["results"]
    assert first["unfinished"] == "epoch 7 of 9" and "unfinished" not in second
    with open(tmp_path / "r.csv") as file:
        assert [row["unfinished"] for row in csv.DictReader(file)] == ["epoch 7 of 9", ""]


@pytest.fixture(scope="module")
def other_run(ring, run_command, tmp_path_factory):
    """A run on a dataset that has one item more."""
    folder = tmp_path_factory.mktemp("other")
    clicks = np.append(ring.item_clicks, 0)
    longer = dataclasses.replace(ring, name="longer", item_ids=[*ring.item_ids, "new"], item_clicks=clicks)
    write_dataset(longer, folder / "longer")
    process = run_command("train", "--data", folder / "longer", *SMALL, "--epochs", 1, "--out", folder / "run")
    assert process.returncode == 0, process.stderr
    return folder / "run"


def test_runs_of_two_datasets_have_a_table_each(run, other_run, run_command, tmp_path):
    outputs = ["--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--html", tmp_path / "r.html"]
    checkpoint = Run(run).find_checkpoint("last")
    process = run_command("evaluate", run, other_run, checkpoint, "-k", 5, *outputs)
    assert process.returncode == 0, process.stderr
    headings = [line for line in process.stdout.splitlines() if line.endswith("in percent")]
    assert headings == ["ring, test, in percent", "longer, test, in percent"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report.keys() == {"datasets"}
    first, second = report["datasets"]
    assert (first["dataset"], second["dataset"]) == ("ring", "longer")
    for one in (first, second):
        assert one.keys() == {"dataset", "dataset_hash", "split", "ties", "results", "tests"}
    assert [result["checkpoint"] for result in first["results"]] == [str(run), str(checkpoint)]
    assert [result["checkpoint"] for result in second["results"]] == [str(other_run)]
    with open(tmp_path / "r.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["dataset"] for row in rows] == ["ring", "ring", "longer"]
    assert not (tmp_path / "r.html").exists()
    for number, name in ((1, "ring"), (2, "longer")):
        assert f"page: {tmp_path / f'r-{number}.html'} ({name})" in process.stdout
        assert f"<h1>{name} " in (tmp_path / f"r-{number}.html").read_text()


def test_with_data_given_the_runs_of_other_datasets_fail_in_their_rows(run, other_run, data, run_command, tmp_path):
    process = run_command("evaluate", run, other_run, "--data", data, "--json", tmp_path / "r.json")
    assert process.returncode == 1 and "22 items against 21" in process.stderr
    assert len(json.loads((tmp_path / "r.json").read_text())["results"]) == 2


def test_a_run_whose_dataset_is_gone_says_so_in_its_row(run, other_run, run_command, tmp_path):
    shutil.copytree(other_run, tmp_path / "lost")
    for path in [tmp_path / "lost" / "config.yaml", Run(tmp_path / "lost").find_checkpoint() / "state.json"]:
        path.write_text(path.read_text().replace("/longer", "/gone"))
    process = run_command("evaluate", run, tmp_path / "lost", "--json", tmp_path / "r.json")
    assert process.returncode == 1
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert results[0]["error"] is None and "gone is not a dataset" in results[1]["error"]
