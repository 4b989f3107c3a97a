"""Processes killed at random moments, and started again until they are done: the bytes are those of an undisturbed one.

Deselected by default. `python -m pytest -m campaign -s tests/campaign/test_kills.py` kills 12 processes;
`CAMPAIGN_KILLS=300` kills that many, `CAMPAIGN_SEED` draws others, and `CAMPAIGN_LOG=FILE` keeps the results, so that
the same command resumes a campaign that was stopped. The table names the seed of each failure.
"""

import collections
import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.datasets.load import load_dataset
from paddle_srgnn.run import Run

pytestmark = pytest.mark.campaign

KILLS, SEED = int(os.environ.get("CAMPAIGN_KILLS", 12)), int(os.environ.get("CAMPAIGN_SEED", 0))
SMALL = ("embedding_dim=8", "batch_size=32", "epochs=3", "save_every_steps=4")
RECIPES = {
    "paper": ("--recipe", "paper"),
    "strong": ("--recipe", "strong", "--set", "warmup_steps=5"),
    "datawhale": ("--recipe", "datawhale", "--set", "learning_rate=0.01"),
    "validation": ("--set", "valid_fraction=0.2", "--set", "patience=2"),
    "no test": ("--set", "valid_fraction=0.2", "--no-test"),
}
SIGNALS = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM, SIGINT": (signal.SIGTERM, signal.SIGINT),
}
CODES = {"SIGKILL": {-9}, "SIGTERM": {130, 143}, "SIGINT": {130}}


class Training:
    """A training of a recipe; what counts is its weights and what it measured."""

    def __init__(self, data: Path, recipe: str):
        self.data, self.recipe = data, recipe

    def command(self, out: Path) -> tuple:
        changes = (argument for change in SMALL for argument in ("--set", change))
        if out.exists():
            return ("train", "--out", out, "--resume", *(("--no-test",) if self.recipe == "no test" else ()))
        return ("train", "--data", self.data, *changes, *RECIPES[self.recipe], "--out", out)

    def result(self, out: Path) -> object:
        run = Run(out)
        assert run.is_finished
        weights = [(run.find_checkpoint(name) / "model.safetensors").read_bytes() for name in ("last", None)]
        timed = ("seconds", "samples_per_second")
        return weights, [{key: value for key, value in row.items() if key not in timed} for row in run.metrics]

    def files(self, out: Path) -> set[str]:
        """The names there may be."""
        pointers = {f"checkpoints/{name}" for name in ("last", "best") if (out / "checkpoints" / name).exists()}
        folders = {(out / pointer).read_text().strip() for pointer in pointers}
        checkpoints = {f"checkpoints/{folder}" for folder in folders}
        parts = ("model.safetensors", "training.safetensors", "state.json")
        inside = {f"{folder}/{part}" for folder in checkpoints for part in parts}
        fixed = {"config.yaml", "items.csv", "metrics.csv", "train.log", "report.html", "checkpoints"}
        return fixed | pointers | checkpoints | inside


class Preprocessing:
    """A dataset made anew with --force."""

    def __init__(self, raw: Path):
        self.raw = raw

    def command(self, out: Path) -> tuple:
        return ("preprocess", "csv", "--raw", self.raw, "--out", out, "--name", "d", "--test-days", 1, "--force")

    def result(self, out: Path) -> object:
        return load_dataset(out).hash, {path.name: path.read_bytes() for path in out.iterdir()}

    def files(self, out: Path) -> set[str]:
        return {path.name for path in out.iterdir()}


class Export:
    def __init__(self, run: Path):
        self.run = run

    def command(self, out: Path) -> tuple:
        return ("export", self.run, "--format", "vectors", "--out", out, "--force")

    def result(self, out: Path) -> object:
        return {name: (out / name).read_bytes() for name in ("items.csv", "items.npy")}

    def files(self, out: Path) -> set[str]:
        return {"items.csv", "items.npy", "manifest.json"}


@pytest.fixture(scope="module")
def work(data, ring_run, tmp_path_factory):
    """What is killed, by name."""
    raw = tmp_path_factory.mktemp("raw") / "clicks.csv"
    click = np.arange(4000)
    rows = zip(click // 4, (click // 4 * 7 + click % 4) % 50, 1_700_000_000 + 180 * click, strict=True)
    raw.write_text("session,item,time\n" + "".join(f"{s},{i},{t}\n" for s, i, t in rows))
    trainings = {f"train, {recipe}": Training(data, recipe) for recipe in RECIPES}
    return trainings | {"preprocess": Preprocessing(raw), "export": Export(ring_run)}


def leftovers(job, out: Path) -> list[str]:
    found = {str(path.relative_to(out)) for path in out.rglob("*")} - job.files(out)
    beside = {path.name for path in out.parent.iterdir()} - {out.name}
    return sorted(found) + sorted(beside)


def test_killed_work_ends_as_if_undisturbed(work, start_process, tmp_path):
    undisturbed, seconds = {}, {}
    for name, job in work.items():
        (tmp_path / name).mkdir()
        start = time.monotonic()
        process = start_process(*job.command(tmp_path / name / "out"))
        _, errors = process.communicate()
        assert process.returncode == 0, f"{name}: {errors}"
        undisturbed[name], seconds[name] = job.result(tmp_path / name / "out"), time.monotonic() - start
    log = Path(os.environ.get("CAMPAIGN_LOG", tmp_path / "kills.jsonl"))
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    with open(log, "a", encoding="utf-8") as file:
        for number in range(len(done), KILLS):
            name = list(work)[number % len(work)]
            one = kill(work[name], undisturbed[name], seconds[name], [SEED, number], start_process, tmp_path / "one")
            done.append({"number": number, "work": name} | one)
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    print(table(done))
    assert not [one for one in done if one["broken"]]


def kill(job, expected: object, seconds: float, seed: list[int], start_process, folder: Path) -> dict:
    """Start the work, kill it, start it again, and see what it comes to: {"signal", "after", "broken"}."""
    rng = np.random.default_rng(seed)
    signals, after = rng.choice(list(SIGNALS)), float(rng.uniform(0, 1.1 * seconds))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    out, broken = folder / "out", []
    process = start_process(*job.command(out))
    time.sleep(after)
    for number in SIGNALS[signals]:
        with contextlib.suppress(ProcessLookupError):  # it is done already
            process.send_signal(number)
        time.sleep(float(rng.uniform(0.005, 0.05)))
    _, errors = process.communicate()
    if process.returncode not in CODES.get(signals, {130, 143}) | {0}:
        broken.append(f"exit code {process.returncode}")
    if "Traceback" in errors:
        broken.append("traceback: " + errors.strip().splitlines()[-1])
    process = start_process(*job.command(out))
    _, errors = process.communicate()
    if process.returncode:
        broken.append(f"started again: {process.returncode}, {errors.strip().splitlines()[-1:]}")
    elif job.result(out) != expected:
        broken.append("another result")
    else:
        broken += [f"left over: {name}" for name in leftovers(job, out)]
    return {"signal": str(signals), "after": round(after, 3), "broken": broken}


def table(done: list[dict]) -> str:
    counts = collections.Counter((one["work"], one["signal"], bool(one["broken"])) for one in done)
    lines = [f"{work:<18} {sign:<16} {counts[work, sign, False]:>4} kept, {counts[work, sign, True]:>3} broken"
             for work, sign in sorted({key[:2] for key in counts})]  # fmt: skip
    lines += [f"seed [{SEED}, {one['number']}]: {one['work']}, {one['signal']} after {one['after']} s: {one['broken']}"
              for one in done if one["broken"]]  # fmt: skip
    return "\n".join(["", *lines, f"{len(done)} kills, {sum(bool(one['broken']) for one in done)} broken"])
