import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_srgnn.serving.recommender import Recommender


def lines(*sessions: tuple) -> str:
    return "".join(json.dumps({"session": session, "items": items}) + "\n" for session, items in sessions)


@pytest.fixture
def sessions(tmp_path):
    """Sessions with known and unknown items, more than are answered at a time."""
    path = tmp_path / "sessions.jsonl"
    many = [(n, [str(101 + n % 20), 101 + (n + 1) % 20]) for n in range(600)]
    path.write_text(lines(*many, ({"a": "é"}, ["?", "110"]), (None, ["?", "??"])), encoding="utf-8")
    return path


def test_json_lines_in_and_out(ring_run, sessions, run_command):
    process = run_command("recommend", ring_run, "--sessions", sessions, "-k", 3)
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    asked = [json.loads(line) for line in sessions.read_text(encoding="utf-8").splitlines()]
    assert [answer["session"] for answer in answers] == [question["session"] for question in asked]
    expected = Recommender.load(ring_run).recommend_many([question["items"] for question in asked], k=3)
    for answer, result in zip(answers, expected, strict=True):
        assert list(answer) == ["session", "items", "scores", "unknown", "fallback"]
        assert answer["items"] == list(result.items)
        assert answer["scores"] == pytest.approx(result.scores, rel=1e-6)
        assert (answer["unknown"], answer["fallback"]) == (result.unknown, result.fallback)
    assert answers[0]["items"][0] == "103" and answers[-1]["fallback"] == "popular"
    assert "602 sessions" in process.stderr and "0.2 % of 1,204 clicks on unknown" in process.stderr
    assert "1 sessions without a known item" in process.stderr


def test_csv_in_and_out(ring_run, run_command, tmp_path):
    (tmp_path / "sessions.csv").write_text("session,item\na,101\na,102\nb,?\nc,118\nc,119\n")
    arguments = [ring_run, "--sessions", tmp_path / "sessions.csv", "--format", "csv", "-k", 2]
    process = run_command("recommend", *arguments)
    assert process.returncode == 0, process.stderr
    rows = list(csv.DictReader(process.stdout.splitlines()))
    assert [(row["session"], row["rank"]) for row in rows] == [(s, r) for s in "abc" for r in "12"]
    a, b, c = Recommender.load(ring_run).recommend_many([["101", "102"], ["?"], ["118", "119"]], k=2)
    assert [row["item"] for row in rows] == [*a.items, *b.items, *c.items]
    assert [float(row["score"]) for row in rows] == pytest.approx([*a.scores, *b.scores, *c.scores], rel=1e-6)


def test_the_output_format_does_not_decide_the_input_layout(ring_run, run_command, tmp_path):
    (tmp_path / "s.jsonl").write_text(lines(("a", ["101", "102"]), ("b", ["118", "119"])))
    (tmp_path / "s.csv").write_text("session,item\na,101\na,102\nb,118\nb,119\n")
    process = run_command("recommend", ring_run, "--sessions", tmp_path / "s.jsonl", "--format", "csv", "-k", 1)
    rows = list(csv.DictReader(process.stdout.splitlines()))
    assert [(row["session"], row["item"]) for row in rows] == [("a", "103"), ("b", "120")], process.stderr
    process = run_command("recommend", ring_run, "--sessions", tmp_path / "s.csv", "-k", 1)
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert [(answer["session"], answer["items"]) for answer in answers] == [("a", ["103"]), ("b", ["120"])]


def test_titles_stand_beside_the_items(ring_run, run_command, tmp_path):
    (tmp_path / "titles.csv").write_text("id,title\n103,Red shoes\n104,\"Hat, blue\"\n999,Sold out\n")
    (tmp_path / "s.jsonl").write_text('{"session": 1, "items": ["101", "102"]}\n')
    arguments = [ring_run, "--sessions", tmp_path / "s.jsonl", "-k", 1, "--titles", tmp_path / "titles.csv"]
    process = run_command("recommend", *arguments)
    assert json.loads(process.stdout)["titles"] == ["Red shoes"], process.stderr
    process = run_command("recommend", *arguments, "--format", "csv")
    header, row = list(csv.reader(process.stdout.splitlines()))
    assert header[-1] == "title" and row[:3] == ["1", "1", "103"] and row[-1] == "Red shoes"


def test_seen_items_left_out(ring_run, run_command, tmp_path):
    (tmp_path / "s").write_text(lines((1, ["101", "102", "?"])))
    process = run_command("recommend", ring_run, "--sessions", tmp_path / "s", "-k", 50, "--exclude-seen")
    answer = json.loads(process.stdout)
    assert sorted(answer["items"]) == [str(n) for n in range(103, 121)] and answer["unknown"] == 1


def test_a_bad_line_ends_the_work_and_leaves_what_was_written(ring_run, run_command, tmp_path):
    path = tmp_path / "s"
    path.write_text(lines((1, ["101"]), (2, ["102"])) + "{bad\n" + lines((3, ["103"])))
    process = run_command("recommend", ring_run, "--sessions", path)
    assert process.returncode == 2
    assert process.stderr.startswith(f"recommend: {path}, line 3: ") and process.stderr.count("\n") == 1
    assert [json.loads(line)["session"] for line in process.stdout.splitlines()] == [1, 2]
    process = run_command("recommend", ring_run, "--sessions", path, "--skip-bad")
    assert process.returncode == 0
    assert [json.loads(line)["session"] for line in process.stdout.splitlines()] == [1, 2, 3]
    assert f"1 bad lines skipped, the first: {path}, line 3" in process.stderr


def test_strict_takes_a_session_without_a_known_item_for_a_bad_line(ring_run, run_command, tmp_path):
    path = tmp_path / "s"
    path.write_text(lines((1, ["101"]), (2, ["?", "??"]), (3, ["103"])))
    process = run_command("recommend", ring_run, "--sessions", path, "--strict")
    assert process.returncode == 2 and "line 2: none of the session's 2 items" in process.stderr
    assert [json.loads(line)["session"] for line in process.stdout.splitlines()] == [1]
    process = run_command("recommend", ring_run, "--sessions", path, "--strict", "--skip-bad")
    assert process.returncode == 0 and "1 bad lines" in process.stderr
    assert [json.loads(line)["session"] for line in process.stdout.splitlines()] == [1, 3]


@pytest.fixture
def talking(ring_run, start_process):
    """The command reading from and writing to a person."""
    return start_process("recommend", ring_run, "--sessions", "-", "-k", "1")


def test_each_line_is_answered_when_it_comes(talking):
    for first in (101, 105):
        talking.stdin.write(lines((first, [first, first + 1])))
        talking.stdin.flush()
        answer = json.loads(talking.stdout.readline())
        assert (answer["session"], answer["items"]) == (first, [str(first + 2)])
    _, errors = talking.communicate()
    assert talking.returncode == 0 and errors.startswith("2 sessions")


def test_ctrl_c_is_130(talking):
    talking.stdin.write(lines((1, ["101"])))
    talking.stdin.flush()
    assert json.loads(talking.stdout.readline())["session"] == 1
    talking.send_signal(signal.SIGINT)
    _, errors = talking.communicate()
    assert talking.returncode == 130 and errors == "recommend: interrupted\n"


def test_a_reader_that_leaves_ends_it_quietly(ring_run, sessions, start_process):
    process = start_process("recommend", ring_run, "--sessions", sessions)
    process.stdout.close()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sessions", "nowhere.jsonl"], "--sessions nowhere.jsonl: No such file"),
        (["--sessions", "."], "--sessions .: Is a directory"),
        (["--sessions", "s", "-k", "0"], "whole number from 1"),
        (["--sessions", "s", "--format", "xml"], "invalid choice"),
    ],
)
def test_bad_usage(ring_run, refused, tmp_path, arguments, message):
    (tmp_path / "s").write_text("")
    assert message in refused("recommend", ring_run, *arguments, cwd=tmp_path)


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(ring_run, tmp_path, name):
    (tmp_path / "s").write_text("")
    tool = Path(__file__).parents[2] / "tools" / "recommend.py"
    sessions, closed = ("-", "<&-") if name == "stdin" else (tmp_path / "s", ">&-")
    command = f'exec "{sys.executable}" "{tool}" "{ring_run}" --sessions "{sessions}" {closed}'
    process = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    (line,) = process.stderr.splitlines()
    assert process.returncode == 2 and f"standard {name.removeprefix('std')}put is closed" in line


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_a_full_output_is_one_line(ring_run, sessions):
    tool = Path(__file__).parents[2] / "tools" / "recommend.py"
    with open("/dev/full", "wb") as full:
        command = [sys.executable, tool, ring_run, "--sessions", sessions]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (1, "recommend: [Errno 28] No space left on device\n")


def test_bad_runs(ring_run, refused, tmp_path):
    (tmp_path / "s").write_text("")
    assert "no such run" in refused("recommend", "nowhere", "--sessions", "s", cwd=tmp_path)
    shutil.copytree(ring_run, tmp_path / "imported", ignore=shutil.ignore_patterns("items.csv"))
    assert "items.csv: missing" in refused("recommend", "imported", "--sessions", "s", cwd=tmp_path)


def test_an_unfinished_run_is_named_in_one_line(stopped_run, sessions, run_command):
    process = run_command("recommend", stopped_run, "--sessions", sessions)
    assert process.returncode == 0 and len(process.stdout.splitlines()) == 602
    warning, summary = process.stderr.splitlines()
    assert warning == f"{stopped_run}: the training is unfinished: it was stopped at step 40, in epoch 3 of 6"
    assert summary.startswith("602 sessions")


def test_a_checkpoint_beside_a_damaged_last_one_still_recommends(ring_run, sessions, run_command, tmp_path):
    shutil.copytree(ring_run, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last").write_text("nothing\n")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    process = run_command("recommend", checkpoint, "--sessions", sessions)
    assert process.returncode == 0
    assert process.stderr.startswith(f"{checkpoint}: the training may be unfinished (")


def test_the_approximate_index_says_what_it_finds(ring_run, sessions, run_command):
    pytest.importorskip("faiss", reason='needs faiss: pip install -e ".[ann]"')
    exact = run_command("recommend", ring_run, "--sessions", sessions)
    process = run_command("recommend", ring_run, "--sessions", sessions, "--index", "hnsw")
    assert process.returncode == 0, process.stderr
    assert process.stderr.splitlines()[-1].startswith("hnsw found 100.00 % of the exact top 20 of the first 602 ")
    for one, other in zip(process.stdout.splitlines(), exact.stdout.splitlines(), strict=True):
        assert json.loads(one)["items"] == json.loads(other)["items"]


def test_without_faiss_it_is_refused(ring_run, refused, tmp_path):
    (tmp_path / "s").write_text("")
    arguments = [ring_run, "--sessions", tmp_path / "s", "--index", "hnsw"]
    assert "needs faiss" in refused("recommend", *arguments, hidden=["faiss"])
