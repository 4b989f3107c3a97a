"""Inputs changed at random for every reader: each is read, or refused in one line, and a refusal writes nothing.

Deselected by default. `python -m pytest -m campaign -s tests/campaign/test_inputs.py` tries 200 inputs;
`CAMPAIGN_INPUTS=20000` tries that many, `CAMPAIGN_SEED` draws others, and `CAMPAIGN_INPUTS_LOG=FILE` keeps the results,
so that the same command resumes a campaign that was stopped. The table names the seed of each failure.
"""

import collections
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import time
import traceback
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.comparison import random_weights
from paddle_srgnn.datasets.download import check_url
from paddle_srgnn.datasets.load import load_dataset
from paddle_srgnn.errors import InputError, WorkFailed
from paddle_srgnn.interop.arrays import write_arrays
from paddle_srgnn.interop.peers import PEERS
from paddle_srgnn.interop.weights import to_theirs
from paddle_srgnn.run import Run

pytestmark = pytest.mark.campaign

INPUTS, SEED = int(os.environ.get("CAMPAIGN_INPUTS", 200)), int(os.environ.get("CAMPAIGN_SEED", 0))
SECONDS = 20  # for an input
LONGEST = 1_000  # characters of a message
NUMBERS = [b"-1", b"0", b"1e9", b"nan", b"2147483648", b"-9223372036854775809", b"18446744073709551616", b"9" * 5000,
           b"1.5", b"true", b"null", b'"x"', b"[]", b"{}"]  # fmt: skip
TOKENS = [b"\0", b"\xff\xfe", b'"', b"\n", b"\r", b",", b";", b"[" * 3000, b"a" * 140_000, b"\xed\xa0\x80", b"\x1b[2J",
          b"\xe2\x80\xa8", b"NaN", b"Infinity", b"../../x", b"/dev/zero", b"{", b"}", b"]", b": "]  # fmt: skip
VALUES = [-1, 0, 2147483645, 2**31, 2**63, 1 << 14_000, 1.5, float("nan"), True, None, "x", b"x", [], {}, [[1]], ()]


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes: of bytes, numbers, lines or pieces."""
    for _ in range(rng.integers(1, 4)):
        at, to = sorted(rng.integers(0, len(content) + 1, 2).tolist())
        to = min(to, at + int(rng.integers(1, 200)))
        numbers, lines = list(re.finditer(rb"-?\d+", content)), content.split(b"\n")
        kind = rng.integers(7)
        if kind == 0 and content:
            flipped = bytearray(content)
            flipped[min(at, len(content) - 1)] ^= 1 << int(rng.integers(8))
            content = bytes(flipped)
        elif kind == 1:
            content = content[:at] + content[to:]
        elif kind == 2:
            content = content[:at]
        elif kind == 3:
            content = content[:at] + TOKENS[rng.integers(len(TOKENS))] + content[at:]
        elif kind == 4 and numbers:
            number = numbers[rng.integers(len(numbers))]
            content = content[: number.start()] + NUMBERS[rng.integers(len(NUMBERS))] + content[number.end() :]
        elif kind == 5:
            lines.insert(int(rng.integers(len(lines))), lines[rng.integers(len(lines))])
            content = b"\n".join(lines)
        else:
            content = content[:to] + content[at:]
    return content


def changed_value(value: object, rng: np.random.Generator) -> object:
    """A nested value with something else at one place."""
    if isinstance(value, (list, tuple, dict)) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[rng.integers(len(keys))]
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[key] = changed_value(copy[key], rng)
        return tuple(copy) if isinstance(value, tuple) else copy
    return VALUES[rng.integers(len(VALUES))]


def changed_json(content: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.5:
        return changed(content, rng)
    return json.dumps(changed_value(json.loads(content), rng), default=repr).encode()


def changed_npy(content: bytes, rng: np.random.Generator) -> bytes:
    """Half of the changes are in the header, which keeps its length where that can be."""
    if rng.random() < 0.5:
        return changed(content, rng)
    length = int.from_bytes(content[8:10], "little")
    header = changed(content[10 : 10 + length].rstrip(), rng)
    header = header.ljust(length - 1) + b"\n"
    return content[:8] + (len(header) % 2**16).to_bytes(2, "little") + header + content[10 + length :]


def changed_pickle(value: object, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.5:
        return changed(pickle.dumps(value, int(rng.integers(5))), rng)
    return pickle.dumps(changed_value(value, rng))


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Readers:
    """A method for each reader: it writes a changed input to a folder and returns a command and what checks its output.

    Without a command, the check itself reads.
    """

    def __init__(self, data: Path, run: Path, folder: Path):
        self.data, self.run = data, run
        click = np.arange(240)
        session, item = click // 4, (click // 4 * 7 + click % 4) % 20
        self.rows = list(zip(session.tolist(), item.tolist(), (1_700_000_000 + 3600 * click).tolist(), strict=True))
        self.sessions = folder / "sessions.jsonl"
        self.sessions.write_text('{"session": 1, "items": ["101", "102"]}\n{"session": "b", "items": [110]}\n' * 3)
        sizes = {"embedding_dim": 8, "step": 1, "n_items": 21}
        self.weights = {peer: to_theirs(PEERS[peer], random_weights(sizes)) for peer in PEERS}
        for suffix in (".npz", ".safetensors"):
            write_arrays(folder / f"w{suffix}", self.weights["recbole"])
        self.stored = {suffix: (folder / f"w{suffix}").read_bytes() for suffix in (".npz", ".safetensors")}

    def _log(self, kind: str, content: str, folder: Path, rng) -> tuple:
        (folder / "log").write_bytes(changed(content.encode(), rng))
        options = ("--min-item-clicks", 1, "--test-days", 1)
        return ("preprocess", kind, "--raw", folder / "log", "--out", folder / "out", *options), load_dataset

    def csv(self, folder: Path, rng) -> tuple:
        return self._log("csv", "session,item,time\n" + "".join(f"{s},{i},{t}\n" for s, i, t in self.rows), folder, rng)

    def inter(self, folder: Path, rng) -> tuple:
        header = "session_id:token\titem_id:token\ttimestamp:float\n"
        return self._log("inter", header + "".join(f"{s}\t{i}\t{t}\n" for s, i, t in self.rows), folder, rng)

    def yoochoose(self, folder: Path, rng) -> tuple:
        rows = (f"{s},{np.datetime64(t, 's')}.000Z,{i},0\n" for s, i, t in self.rows)
        return self._log("yoochoose", "".join(rows), folder, rng)

    def diginetica(self, folder: Path, rng) -> tuple:
        rows = (f"{s};NA;{i};{t % 9};{str(np.datetime64(t, 's'))[:10]}\n" for s, i, t in self.rows)
        return self._log("diginetica", "session_id;user_id;item_id;timeframe;eventdate\n" + "".join(rows), folder, rng)

    def pickles(self, folder: Path, rng) -> tuple:
        samples = ([[1, 2], [1], [3], [2, 5], [2]], [1, 2, 3, 4, 5])
        contents = {"train": samples, "test": samples}
        chosen = ("train", "test")[rng.integers(2)]
        (folder / "raw").mkdir()
        for name, value in contents.items():
            content = changed_pickle(value, rng) if name == chosen else pickle.dumps(value)
            (folder / "raw" / f"{name}.txt").write_bytes(content)
        return ("preprocess", "srgnn-pickle", "--raw", folder / "raw", "--out", folder / "out"), load_dataset

    def dataset(self, folder: Path, rng) -> tuple:
        shutil.copytree(self.data, folder / "d")
        meta = json.loads((folder / "d" / "meta.json").read_text())
        name = ("meta.json", *meta["files"])[rng.integers(1 + len(meta["files"]))]
        path = folder / "d" / name
        change = {".json": changed_json, ".npy": changed_npy, ".csv": changed}[path.suffix]
        content = change(path.read_bytes(), rng)
        path.write_bytes(content)
        if name != "meta.json" and rng.random() < 0.8:  # with the size and hash that it has now
            meta["files"][name] = {"bytes": len(content), "sha256": sha(content)}
            (folder / "d" / "meta.json").write_text(json.dumps(meta))
        return None, lambda _: load_dataset(folder / "d")

    def checkpoint(self, folder: Path, rng) -> tuple:
        run = folder / "run"
        shutil.copytree(self.run, run)
        state = Run(run).find_checkpoint() / "state.json"
        paths = [state, state, run / "config.yaml", run / "items.csv", run / "checkpoints" / "last",
                 state.with_name("model.safetensors")]  # fmt: skip
        path = paths[rng.integers(len(paths))]
        content = (changed_json if path == state else changed)(path.read_bytes(), rng)
        path.write_bytes(content)
        if path.name == "model.safetensors" and rng.random() < 0.8:
            values = json.loads(state.read_text())
            values["files"][path.name] = sha(content)
            state.write_text(json.dumps(values))
        command = ("recommend", "evaluate")[rng.integers(2)]
        return (command, run, *(("--sessions", self.sessions) if command == "recommend" else ("-k", 5))), None

    def _import(self, peer: str, suffix: str, content: bytes, folder: Path) -> tuple:
        (folder / f"w{suffix}").write_bytes(content)
        arguments = ("weights", "import", "--from", peer, folder / f"w{suffix}", "--out", folder / "out")
        return arguments, lambda out: Run(out).model()

    def npz(self, folder: Path, rng) -> tuple:
        if rng.random() < 0.3:
            return self._import("recbole", ".npz", changed(self.stored[".npz"], rng), folder)
        buffer, chosen = io.BytesIO(), rng.integers(len(self.weights["recbole"]))
        with zipfile.ZipFile(io.BytesIO(self.stored[".npz"])) as archive, zipfile.ZipFile(buffer, "w") as new:
            for number, name in enumerate(archive.namelist()):  # a changed member has a checksum that fits
                content = archive.read(name)
                new.writestr(name, changed_npy(content, rng) if number == chosen else content)
        return self._import("recbole", ".npz", buffer.getvalue(), folder)

    def safetensors(self, folder: Path, rng) -> tuple:
        return self._import("recbole", ".safetensors", changed(self.stored[".safetensors"], rng), folder)

    def pdparams(self, folder: Path, rng) -> tuple:
        return self._import("datawhale", ".pdparams", changed_pickle(self.weights["datawhale"], rng), folder)

    def json_lines(self, folder: Path, rng) -> tuple:
        (folder / "s").write_bytes(changed(self.sessions.read_bytes(), rng))
        return ("recommend", self.run, "--sessions", folder / "s", "-k", 3), None

    def csv_sessions(self, folder: Path, rng) -> tuple:
        (folder / "s").write_bytes(changed(b"session,item\n1,101\n1,102\n2,110\n", rng))
        return ("recommend", self.run, "--sessions", folder / "s", "-k", 3), None

    def titles(self, folder: Path, rng) -> tuple:
        (folder / "t").write_bytes(changed(b'id,title\n101,Hat\n102,"Red, blue"\n103,Shoe\n', rng))
        return ("recommend", self.run, "--sessions", self.sessions, "--titles", folder / "t", "-k", 3), None

    def url(self, folder: Path, rng) -> tuple:
        url = changed(b"https://host.example:8080/a%2Fb/log.csv.gz?x=1#y", rng).decode(errors="surrogateescape")
        return None, lambda _: check_url(url)


READERS = [name for name in vars(Readers) if name[0] != "_"]


class Late(BaseException):
    pass


def late(*_):
    raise Late


def strict_lines(text: str) -> None:
    def refuse(name: str):
        raise ValueError(f"{name} in the output")

    for line in text.strip("\n").split("\n") if text else ():
        json.loads(line, parse_constant=refuse)


def broken_promise(command: tuple | None, check, folder: Path, run_command) -> tuple[int, str]:
    """The exit code, and what is wrong ("" if nothing is)."""
    before = sorted(folder.rglob("*"))
    out = folder / "out"
    if command is None:
        try:
            check(out)
            return 0, ""
        except (InputError, WorkFailed) as error:
            return 2, "" if len(str(error)) <= LONGEST and "\n" not in str(error) else f"a long message: {error!s:.99}"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, ResourceWarning):  # which Python does not show
            warnings.simplefilter("ignore", kind)
        process = run_command(*command)
    lines = process.stderr.strip("\n").split("\n")
    if warned:
        return process.returncode, f"a warning: {warned[0].message!s:.99}"
    if process.returncode == 0:
        if check:
            check(out)
        if command[0] == "recommend":
            strict_lines(process.stdout)
        return 0, ""
    if process.returncode not in (1, 2):
        return process.returncode, f"exit code {process.returncode}"
    if len(lines) != 1 or len(lines[0]) > LONGEST or not lines[0].startswith(f"{command[0]}: "):
        return process.returncode, f"{len(lines)} lines, {len(process.stderr)} characters: {lines[-1][:99]!a}"
    if sorted(folder.rglob("*")) != before:
        return process.returncode, "refused, but something was written"
    return process.returncode, ""


def one_input(readers: Readers, number: int, folder: Path, run_command) -> dict:
    rng, name = np.random.default_rng([SEED, number]), READERS[number % len(READERS)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.monotonic()
    signal.alarm(SECONDS)
    try:
        code, broken = broken_promise(*getattr(readers, name)(folder, rng), folder, run_command)
    except Late:
        code, broken = -1, f"not done after {SECONDS} s"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        broken = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {error!s:.99}"
        code = -1
    finally:
        signal.alarm(0)
    seconds = round(time.monotonic() - start, 2)
    return {"number": number, "reader": name, "code": code, "broken": broken, "seconds": seconds}


def test_every_input_is_read_or_refused_in_one_line(data, ring_run, run_command, tmp_path):
    readers = Readers(data, ring_run, tmp_path)
    log = Path(os.environ.get("CAMPAIGN_INPUTS_LOG", tmp_path / "inputs.jsonl"))
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    previous = signal.signal(signal.SIGALRM, late)
    try:
        with open(log, "a", encoding="utf-8") as file:
            for number in range(len(done), INPUTS):
                done.append(one_input(readers, number, tmp_path / "one", run_command))
                file.write(json.dumps(done[-1]) + "\n")
                file.flush()
    finally:
        signal.signal(signal.SIGALRM, previous)
    print(table(done))
    assert not [one for one in done if one["broken"]]


def table(done: list[dict]) -> str:
    lines = [f"{'reader':<14}{'read':>7}{'refused':>9}{'broken':>8}{'slowest, s':>12}"]
    for reader in READERS:
        own = [one for one in done if one["reader"] == reader]
        codes = collections.Counter("broken" if one["broken"] else one["code"] for one in own)
        slowest = max((one["seconds"] for one in own), default=0)
        lines.append(f"{reader:<14}{codes[0]:>7}{codes[1] + codes[2]:>9}{codes['broken']:>8}{slowest:>12}")
    lines += [f"seed [{SEED}, {one['number']}]: {one['reader']}: {one['broken']}" for one in done if one["broken"]]
    return "\n".join(["", *lines, f"{len(done)} inputs, {sum(bool(one['broken']) for one in done)} broken"])
