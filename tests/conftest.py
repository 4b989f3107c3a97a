"""What the tests share: the runtime as the tools set it, the oracle's files, and how to run a tool."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.runtime import tune

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # for `benchmarks`, which is not packaged
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"

tune()


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("*.npz")))
def golden(request) -> dict[str, np.ndarray]:
    """The reference's inputs and outputs on one batch, written by the unmodified reference on PaddlePaddle 2.6.2."""
    with np.load(GOLDEN / f"{request.param}.npz", allow_pickle=False) as file:
        return {"name": request.param, **file}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference code beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared, which only the maintainers' checkouts have")
    return SHARED


@dataclasses.dataclass
class Finished:
    """What a command did, with the names of subprocess.CompletedProcess."""

    returncode: int
    stdout: str
    stderr: str


def in_process(
    name: str, *arguments: object, cwd=None, stdin: bytes = b"", hidden: Iterable[str] = (), **environment: str
) -> Finished:
    """Run a command by its `main(argv)`, as a process would with this input, folder and environment.

    Packages that are hidden fail to import as if they were not installed.
    """
    main = importlib.import_module(f"paddle_srgnn.cli.{name}").main
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        patch.setattr(sys, "stdout", outputs[0])
        patch.setattr(sys, "stderr", outputs[1])
        for key, value in environment.items():
            patch.setenv(key, value)
        for package in hidden:
            patch.setitem(sys.modules, package, None)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            code = main(list(map(str, arguments)))
        finally:
            tune()  # as many threads as before, whatever --threads said
    return Finished(code, *(output.buffer.getvalue().decode() for output in outputs))


@pytest.fixture(scope="session")
def run_command():
    """Run a command in this process, where the process is not the point; returns its exit code and output."""
    return in_process


@pytest.fixture(scope="session")
def run_process():
    """Run tools/NAME.py as a person does; returns the finished process with its output as text."""

    def run(name: str, *arguments: object, cwd=None, timeout: float = 120, **environment: str):
        command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, timeout=timeout, capture_output=True, text=True, env={**os.environ, **environment}
        )

    return run


class Forked:
    """A running process of `start_process`: what these tests need of subprocess.Popen."""

    def __init__(self, server: socket.socket, code: str, arguments: tuple):
        read, self.stdin = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "w"), strict=True))
        self.stdout, write = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("r", "wb"), strict=True))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the process runs
        message = json.dumps([code, list(map(str, arguments))]).encode()
        with read, write:
            socket.send_fds(server, [message], [end.fileno() for end in (read, write, self._errors)])
        self._replies = server.makefile()
        self.pid, self.returncode = int(self._replies.readline()), None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """Close its input and wait for its end; returns what it has written to stdout since, and to stderr."""
        self.stdin.close()
        output = "" if self.stdout.closed else self.stdout.read()
        with self._replies:  # the socket stays open as long as any of its files
            self.returncode = int(self._replies.readline())
        self._errors.seek(0)
        return output, self._errors.read()


@pytest.fixture(scope="session")
def preloaded():
    """The socket of tests/preloaded.py."""
    ours, theirs = socket.socketpair()
    ours.settimeout(120)
    command = [sys.executable, ROOT / "tests" / "preloaded.py", str(theirs.fileno())]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with theirs:
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": path})
    with ours:
        yield ours
    server.wait(timeout=60)


@pytest.fixture
def start_process(preloaded):
    """Start a process that runs tools/NAME.py as a person does, but with Paddle loaded; one at a time.

    Code that is to run first may be given. It is killed after the test if it still runs.
    """
    started = []

    def start(name: str, *arguments: object, first: str = "") -> Forked:
        tool = ROOT / "tools" / f"{name}.py"
        code = f"{first}\nimport runpy, sys\nsys.path.insert(0, {str(tool.parent)!r})\n"
        code += "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        started.append(Forked(preloaded, code, (tool, *arguments)))
        return started[-1]

    yield start
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def small_sample(monkeypatch):
    """Makes the embedded sample a small one, which is trained on in a second."""
    from paddle_srgnn.datasets import synthetic

    monkeypatch.setattr(synthetic, "Knobs", functools.partial(synthetic.Knobs, sessions=1_000, items=240))


@pytest.fixture(scope="session")
def refused(run_command):
    """Run a tool on bad input: it must exit with 2 and one line on stderr; returns that line."""

    def run(name: str, *arguments: object, **options) -> str:
        process = run_command(name, *arguments, **options)
        assert process.returncode == 2, process.stderr + process.stdout
        assert "Traceback" not in process.stderr
        lines = process.stderr.strip().splitlines()
        assert len(lines) == 1 or lines[0].startswith("usage:"), process.stderr
        return lines[-1]

    return run


@pytest.fixture(scope="session")
def ring():
    """A toy world with a known answer: 20 items in a ring, and every session walks along it."""
    from paddle_srgnn.datasets.sessions import SessionDataset, Sessions

    def walks(n_sessions: int, seed: int) -> Sessions:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(2, 7, n_sessions)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        start = np.repeat(rng.integers(0, 20, n_sessions), lengths)
        items = (start + np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)) % 20 + 1
        return Sessions(items.astype(np.int32), offsets, np.arange(n_sessions) * 3600)

    train = walks(150, 0)
    clicks = np.bincount(train.items, minlength=21)
    return SessionDataset("ring", train, walks(30, 1), ["", *map(str, range(101, 121))], clicks)


@pytest.fixture(scope="session")
def data(ring, tmp_path_factory) -> Path:
    """The ring as a dataset on disk; not to be changed."""
    from paddle_srgnn.datasets.sessions import write_dataset

    folder = tmp_path_factory.mktemp("data") / "ring"
    write_dataset(ring, folder)
    return folder


@pytest.fixture(scope="session")
def ring_run(data, run_command, tmp_path_factory) -> Path:
    """A run that has learnt the ring; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "ring"
    changes = ("embedding_dim=8", "batch_size=32", "learning_rate=0.02", "lr_decay_after=", "epochs=6")
    process = run_command("train", "--data", data, *(f"--set={change}" for change in changes), "--out", folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def stopped_run(ring_run, tmp_path) -> Path:
    """The run as if it had been stopped in its third epoch."""
    from paddle_srgnn.run import Run

    shutil.copytree(ring_run, tmp_path / "stopped")
    path = Run(tmp_path / "stopped").find_checkpoint() / "state.json"
    state = json.loads(path.read_text())
    state["progress"] |= {"epoch": 3, "step": 40}
    path.write_text(json.dumps(state))
    return tmp_path / "stopped"


@pytest.fixture(scope="session")
def ring_users():
    """The same ring under the course's protocol: users walk along it, 5 to 30 items each."""
    from paddle_srgnn.datasets.sessions import SessionDataset, Sessions

    def walks(n_users: int, seed: int) -> Sessions:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(5, 31, n_users)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        start = np.repeat(rng.integers(0, 20, n_users), lengths)
        items = (start + np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)) % 20 + 1
        return Sessions(items.astype(np.int32), offsets)

    train = walks(48, 0)
    clicks = np.bincount(train.items, minlength=21)
    item_ids = ["", *map(str, range(101, 121))]
    return SessionDataset("ring users", train, walks(6, 1), item_ids, clicks, valid=walks(6, 2))
