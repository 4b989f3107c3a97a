import json
from pathlib import Path

from paddle_srgnn.comparison import random_weights
from paddle_srgnn.interop.arrays import write_arrays
from paddle_srgnn.interop.weights import import_weights

REFERENCES = Path(__file__).parents[1] / "references.py"


def test_agreement_ends_with_0_and_figures(run_command, tmp_path):
    arguments = ["--json", tmp_path / "c.json", "--threads", 1]
    process = run_command("compare", "--reference", f"{REFERENCES}:SRGNN", *arguments)
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


def test_a_mistake_ends_with_1_and_its_name(run_command, tmp_path):
    process = run_command("compare", "--reference", f"{REFERENCES}:InAndOutSwapped", "--json", tmp_path / "c.json")
    assert process.returncode == 1
    first, *_ = [line for line in process.stderr.splitlines() if line.startswith("differs: ")]
    assert first.startswith("differs: A: by 1, allowed 1e-07, on: ") and "padded; full rows" in first
    assert "comparisons pass" not in process.stdout and " !" in process.stdout
    assert not json.loads((tmp_path / "c.json").read_text())["passed"]


def test_a_scorer_that_looks_at_its_neighbours_is_named(run_command):
    process = run_command("compare", "--reference", f"{REFERENCES}:MixedWithItsNeighbour", "--threads", 1)
    assert process.returncode == 1
    _, line = process.stderr.splitlines()
    assert line.startswith(
        "looks at its neighbours in the batch: user_emb alone or in order, shuffled, reversed, in batches of 7, "
        "in one batch: by 0.0"
    )
    assert "allowed 1e-05, on: padded; " in line and "one row" not in line


def test_a_scorer_that_reads_the_target_is_named(run_command):
    process = run_command("compare", "--reference", f"{REFERENCES}:ReadsTheTarget", "--threads", 1)
    assert process.returncode == 1
    _, line = process.stderr.splitlines()
    assert line.startswith("looks at the target: user_emb with other targets: by 0.0") and line.endswith("every batch")


def test_the_course_code_as_it_is_fails_by_an_error_of_its_own(run_command, shared):
    process = run_command("compare", "--reference", shared / "reference" / "datawhale_srgnn.py")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    line = process.stderr.splitlines()[-1]
    assert line.startswith("the reference failed: TypeError: (InvalidType) Type promotion")
    assert line.endswith("datawhale_srgnn.py), on every batch") and "line 173" in line


def test_a_file_that_cannot_be_run_ends_with_1(run_command, tmp_path):
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    process = run_command("compare", "--reference", tmp_path / "broken.py")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "cannot be run: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in process.stderr


def test_trained_weights_on_real_samples(run_command, data, tmp_path):
    sizes = {"embedding_dim": 8, "step": 2, "n_items": 21}
    write_arrays(tmp_path / "w.npz", random_weights(sizes))
    import_weights("datawhale", tmp_path / "w.npz", tmp_path / "run", step=2)
    arguments = ["--checkpoint", tmp_path / "run", "--data", data, "--json", tmp_path / "c.json"]
    process = run_command("compare", "--reference", REFERENCES, *arguments)
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "c.json").read_text())
    assert report["sizes"] == sizes and set(report["step_ms"]) == {"samples 1", "samples 2", "samples 3"}


def test_bad_input_is_one_clear_line(refused, tmp_path):
    def said(*arguments: object) -> str:
        return refused("compare", *arguments, cwd=tmp_path)

    assert "required: --reference" in said()
    assert "nowhere.py: no such file" in said("--reference", "nowhere.py")
    assert "--data applies only with --checkpoint" in said("--reference", REFERENCES, "--data", "sample")
    assert "its folder does not exist" in said("--reference", REFERENCES, "--json", "nowhere/c.json")
    assert not list(tmp_path.iterdir())


def test_what_is_no_such_class_is_said_after_the_file_was_run(run_command):
    process = run_command("compare", "--reference", f"{REFERENCES}:Nothing")
    assert process.returncode == 2
    first, last = process.stderr.splitlines()
    assert first.startswith("running the code in ") and "has no class Nothing" in last
