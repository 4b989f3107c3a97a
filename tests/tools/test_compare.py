import json
from pathlib import Path

import pytest

REFERENCES = Path(__file__).parents[1] / "references.py"


def test_agreement_ends_with_0_and_figures(run_tool, tmp_path):
    process = run_tool("compare", "--reference", f"{REFERENCES}:SRGNN", "--json", tmp_path / "c.json", "--threads", 1)
    assert process.returncode == 0, process.stderr
    assert process.stderr.splitlines() == [f"running the code in {REFERENCES}:SRGNN"]
    assert process.stdout.endswith("comparisons pass\n") and "allowed: integers 0, A 1e-07" in process.stdout
    report = json.loads((tmp_path / "c.json").read_text())
    assert report.keys() == {"reference", "sizes", "passed", "differences", "errors", "step_ms"}
    assert report["passed"] and not report["errors"] and len(report["step_ms"]) == 7
    for row in report["differences"]:
        assert row["passed"] == (row["largest"] <= row["allowed"])
    for step in report["step_ms"].values():
        assert step["ratio"] == step["reference"] / step["ours"]


def test_a_mistake_ends_with_1_and_its_name(run_tool, tmp_path):
    process = run_tool("compare", "--reference", f"{REFERENCES}:InAndOutSwapped", "--json", tmp_path / "c.json")
    assert process.returncode == 1
    first, *_ = [line for line in process.stderr.splitlines() if line.startswith("differs: ")]
    assert first.startswith("differs: A: by 1, allowed 1e-07, on: ") and "padded; full rows" in first
    assert "comparisons pass" not in process.stdout and " !" in process.stdout
    assert not json.loads((tmp_path / "c.json").read_text())["passed"]


def test_the_course_code_as_it_is_fails_by_an_error_of_its_own(run_tool, shared):
    process = run_tool("compare", "--reference", shared / "reference" / "datawhale_srgnn.py")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    line = process.stderr.splitlines()[-1]
    assert line.startswith("the reference fails, by an error of its own: TypeError: (InvalidType) Type promotion")
    assert line.endswith("datawhale_srgnn.py), on every batch") and "line 173" in line


def test_a_file_that_cannot_be_run_ends_with_1(run_tool, tmp_path):
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    process = run_tool("compare", "--reference", tmp_path / "broken.py")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "by an error of its own: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in process.stderr


@pytest.fixture(scope="module")
def run(data, run_tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = ["--set=embedding_dim=8", "--set=batch_size=32", "--epochs", 1]
    process = run_tool("train", "--data", data, *changes, "--out", folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_trained_weights_on_real_samples(run, run_tool, data, tmp_path):
    arguments = ["--checkpoint", run, "--data", data, "--json", tmp_path / "c.json"]
    process = run_tool("compare", "--reference", REFERENCES, *arguments)
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "c.json").read_text())
    assert report["sizes"] == {"embedding_dim": 8, "step": 1, "n_items": 21}
    assert set(report["step_ms"]) == {"samples 1", "samples 2", "samples 3"}


def test_bad_input_is_one_clear_line(refused, run, tmp_path):
    def said(*arguments: object) -> str:
        return refused("compare", *arguments, cwd=tmp_path)

    assert "required: --reference" in said()
    assert "nowhere.py: no such file" in said("--reference", "nowhere.py")
    assert "--data needs --checkpoint" in said("--reference", REFERENCES, "--data", "sample")
    assert "its folder does not exist" in said("--reference", REFERENCES, "--json", "nowhere/c.json")
    assert "no such run" in said("--reference", REFERENCES, "--checkpoint", "nowhere")
    assert "21 items against 1001" in said("--reference", REFERENCES, "--checkpoint", run, "--data", "sample")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, message",
    [("Nothing", "no class Nothing in it"), ("AnotherInterface", "AnotherInterface has not the reference's interface")],
)
def test_what_is_no_such_class_is_said_after_the_file_was_run(run_tool, name, message):
    process = run_tool("compare", "--reference", f"{REFERENCES}:{name}")
    assert process.returncode == 2
    first, last = process.stderr.splitlines()
    assert first.startswith("running the code in ") and message in last
