import errno
import os
import signal
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from paddle_srgnn import files
from paddle_srgnn.errors import InputError
from paddle_srgnn.files import atomic_file, atomic_folder, locked, remove_leftovers, sha256, write_csv, write_json


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "folder"
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as temporary:
        (temporary / "a").write_text("half")
        1 / 0  # noqa: B018
    assert not path.exists() and not list(path.parent.iterdir())
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("1")
    assert [file.name for file in path.iterdir()] == ["a"]


FULL = [
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError("100000 requested and 496 written"),  # numpy's
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_named_with_the_path(tmp_path, atomic, error):
    with pytest.raises(OSError) as raised, atomic(tmp_path / "a"):
        raise error
    assert str(raised.value) == f"[Errno 28] No space left on device: '{tmp_path / 'a'}'"
    assert not list(tmp_path.iterdir())


def test_other_errors_stay_as_they_are(tmp_path):
    for error in (SafetensorError("no such type"), FileNotFoundError(errno.ENOENT, "No such file", "other"), OSError()):
        with pytest.raises(type(error)) as raised, atomic_file(tmp_path / "a"):
            raise error
        assert raised.value is error


def test_a_folder_that_exists_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(InputError, match="exists already"), atomic_folder(path):
        pass
    with atomic_folder(path, replace=True) as temporary:
        (temporary / "new").write_text("2")
    assert [file.name for file in path.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = """
import os, signal, sys
from paddle_srgnn.files import atomic_file, atomic_folder
with atomic_folder("folder"), atomic_file("file") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    (tmp_path / "kept").touch()
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_csv_and_json(tmp_path):
    write_csv(tmp_path / "a.csv", [{"b": 1}, {"a": 2, "c": "x,y"}], columns=("a",))
    assert (tmp_path / "a.csv").read_text() == 'a,b,c\n,1,\n2,,"x,y"\n'
    write_json(tmp_path / "a.json", {"é": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'


def test_a_folder_keeps_its_name_if_its_replacement_fails(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    rename = os.replace

    def fails(source, target):
        if str(source).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda *paths: False)  # as on systems without renameat2
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="No space left"), atomic_folder(path, replace=True) as temporary:
        (temporary / "new").touch()
    assert [file.name for file in path.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_locked_until_the_process_ends(tmp_path):
    code = """
import sys
from paddle_srgnn.files import locked
with locked("."):
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        message = f"is being trained by another process \\(pid {process.pid}\\)"
        with pytest.raises(InputError, match=message), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path), pytest.raises(InputError, match="another process"), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from paddle_srgnn import files
at, exchanged = map(int, sys.argv[1:])
def dying(function):
    def call(*args):
        global at
        if at == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        at -= 1
        return function(*args)
    return call
os.replace, files._remove = dying(os.replace), dying(files._remove)
files._exchange = dying(files._exchange if exchanged else lambda *paths: False)
with files.atomic_folder("folder", replace=True) as temporary:
    (temporary / "new").touch()
"""


@pytest.mark.parametrize("at, exchanged, left", [
    (1, 1, "old"), (2, 1, "new"), (1, 0, "old"), (2, 0, "old"), (3, 0, "old"), (4, 0, "new"), (5, 0, "new"),
])  # fmt: skip
def test_killed_while_it_replaces_a_folder_either_is_whole(tmp_path, at, exchanged, left):
    """Before and after the exchange, and around each of two renames where the system cannot exchange."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    process = subprocess.run([sys.executable, "-c", KILLED, str(at), str(exchanged)], cwd=tmp_path)
    assert process.returncode == -signal.SIGKILL
    assert path.exists() or (at, exchanged) == (3, 0)
    (tmp_path / f".folder.{os.getppid()}.tmp").mkdir()  # of a process that lives
    (tmp_path / ".other.999999999.tmp").mkdir()  # not ours
    with pytest.raises(InputError, match="exists already"), atomic_folder(path):
        pass
    assert [file.name for file in path.iterdir()] == [left]
    assert {one.name for one in tmp_path.iterdir()} == {
        "folder", f".folder.{os.getppid()}.tmp", ".other.999999999.tmp"}  # fmt: skip


def test_a_link_to_a_folder_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_folder(tmp_path / "link", replace=True) as temporary:
        (temporary / "new").touch()
    assert {one.name for one in tmp_path.iterdir()} == {"target", "link"}
    assert not list((tmp_path / "target").iterdir()) and [one.name for one in (tmp_path / "link").iterdir()] == ["new"]
