"""Files of arrays, and above all the pickles among them that were made to do something else."""

import copyreg
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from paddle_srgnn.errors import InputError
from paddle_srgnn.interop.arrays import read_arrays, write_arrays

ARRAYS = {"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([-0.0, 1.5], dtype=np.float32)}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_there_and_back_and_the_same_bytes_each_time(tmp_path, suffix):
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    write_arrays(one, ARRAYS)
    write_arrays(two, {name: np.asfortranarray(array) for name, array in ARRAYS.items()})
    assert one.read_bytes() == two.read_bytes()
    found = read_arrays(one)
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in ARRAYS.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name, two.name]


def test_an_npz_holds_no_time_of_day(tmp_path):
    write_arrays(tmp_path / "w.npz", ARRAYS)
    with zipfile.ZipFile(tmp_path / "w.npz") as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def paddles(arrays: dict) -> dict:
    """What paddle.save pickles of a state dict."""
    return arrays | {"StructuredToParameterName@@": {name: f"linear_0.{name}" for name in arrays}}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pdparams_by_hand(tmp_path, protocol):
    arrays = ARRAYS | {
        "fortran": np.asfortranarray(ARRAYS["b.weight"]),
        "int": np.array([[2**40]]),
        "scalar": np.ones(()),
    }
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(paddles(arrays), protocol))
    found = read_arrays(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class Trap:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stateful:
    """Sets a state on whatever the first value of a pickle is."""

    def __init__(self, function, arguments, state):
        self.call = function, arguments, state

    def __reduce__(self):
        return self.call


RECONSTRUCT = np.zeros(1).__reduce__()[0]
EMPTY = (np.ndarray, (0,), b"b")
FLOAT = np.dtype("f4")


def reduced(state) -> bytes:
    """A pickle of an array with a crafted state."""
    return pickle.dumps({"w": Stateful(RECONSTRUCT, EMPTY, state)})


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "wrapped",
    [lambda trap: trap, lambda trap: {"w": [{"deep": (trap,)}]}, lambda trap: paddles(ARRAYS) | {"x": trap}],
    ids=["alone", "nested", "beside arrays"],
)
def test_nothing_in_a_pickle_is_run(tmp_path, protocol, wrapped):
    path = tmp_path / "w.pdparams"
    for function, arguments in ((os.mkdir, (str(tmp_path / "sprung"),)), (os.system, (f"mkdir {tmp_path}/sprung",))):
        path.write_bytes(pickle.dumps(wrapped(Trap(function, *arguments)), protocol))
        with pytest.raises(InputError, match="refuses posix"):
            read_arrays(path)
    path.write_bytes(pickle.dumps(wrapped(Trap(eval, f"__import__('os').mkdir('{tmp_path}/sprung')")), protocol))
    with pytest.raises(InputError, match=r"refuses (builtins|__builtin__)\.eval"):
        read_arrays(path)
    assert not (tmp_path / "sprung").exists()


def test_a_registered_extension_code_is_a_name_like_any_other(tmp_path):
    copyreg.add_extension("posix", "mkdir", 240)
    try:
        content = pickle.dumps(Trap(os.mkdir, str(tmp_path / "sprung")), 2)
        assert b"\x82\xf0" in content and b"mkdir" not in content
        (tmp_path / "w.pdparams").write_bytes(content)
        with pytest.raises(InputError, match=r"refuses posix\.mkdir"):
            read_arrays(tmp_path / "w.pdparams")
    finally:
        copyreg.remove_extension("posix", "mkdir", 240)
    assert not (tmp_path / "sprung").exists()


class Plain:
    pass


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps(Plain(), 2), "refuses .*Plain|refuses copy_reg._reconstructor|refuses copyreg"),
        (b"ccopyreg\n_reconstructor\n.", r"refuses copyreg\._reconstructor"),
        (b"cnumpy\nload\n.", r"refuses numpy\.load"),
        (b"cnumpy._core.multiarray\nscalar\n.", r"refuses numpy\._core\.multiarray\.scalar"),
        (
            b"cnumpy._core.multiarray\n_reconstruct.__globals__\n.",
            "refuses numpy._core.multiarray._reconstruct.__globals",
        ),
        (b"cnumpy\nndarray\n(tR.", "refuses to call numpy.ndarray"),
        (b"cnumpy\nndarray\n}b.", "refuses a state set on a function"),
        (b"cnumpy\nndarray\n)\x81.", "damaged"),  # its __new__
        (b"(icodecs\nencode\n.", "refuses codecs.encode"),
        (b"c_codecs\nencode\n(V3\nVrot13\ntR.", "refuses to encode anything but a string in latin1"),
        (b"c_codecs\nencode\n(I3\ntR.", "refuses to encode anything but a string in latin1"),
        (b"Pid\n.", "refuses a persistent id"),
        (pickle.dumps({"w": np.array([{"an": "object"}])}), "refuses an array of type 'O8'"),
        (pickle.dumps({"w": np.array(["text"])}), "refuses an array of type 'U4'"),
        (pickle.dumps({"w": np.zeros(2, [("a", "f4"), ("b", "O")])}), "refuses an array of type"),
        (pickle.dumps({"w": np.zeros(2, ">f4")}), "expected little-endian numbers"),
        (
            pickle.dumps({"w": Stateful(np.dtype, ("f4",), (3, "<", None, ("a",), {"a": (1, 0)}, 4, 1, 0))}),
            "with fields",
        ),
        (pickle.dumps({"w": Trap(RECONSTRUCT, "ndarray", (0,), b"b")}), "reconstruction of anything but an array"),
        (reduced((1, (3,), FLOAT, False, b"1234")), "another number of bytes"),
        (reduced((1, (2**62, 4), FLOAT, False, b"")), "another number of bytes"),
        (reduced((1, (-1,), FLOAT, False, b"1234")), "refuses the shape"),
        (reduced((1, (True,), FLOAT, False, b"1234")), "refuses the shape"),
        (reduced((1, (1,), "f4", False, b"1234")), "without a dtype"),
        (reduced((1, (1,), FLOAT, False, [Trap])), "refuses .*Trap"),
        (reduced((1, (1,), FLOAT, False, ["1234"])), "another number of bytes"),
        (reduced("state"), "expected five parts"),
        (pickle.dumps({"w": Trap(RECONSTRUCT, *EMPTY)}), "'w' is a Array, expected an array under a name"),
        (pickle.dumps({"w": 1.0}), "'w' is a float, expected an array under a name"),
        (pickle.dumps({3: ARRAYS["a"]}), "3 is a Array, expected an array under a name"),
        (pickle.dumps([ARRAYS["a"]]), "found a list, expected a state dict"),
        (pickle.dumps(paddles(ARRAYS))[:-9], "damaged"),
        (b"", "damaged"),
        (b"\0noise", "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_arrays(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_pickle_leaves_no_trace_for_the_next(tmp_path):
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"cnumpy._core.multiarray\n_reconstruct\n}(V_function\nI1\nub.")
    with pytest.raises(InputError, match="refuses a state set on a function"):
        read_arrays(path)
    path.write_bytes(pickle.dumps(paddles(ARRAYS)))
    np.testing.assert_array_equal(read_arrays(path)["a"], ARRAYS["a"])


def object_npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.array([Plain()]))
    return buffer.getvalue()


def npz_of(content: bytes, name: str = "w.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def compressed_by(method: int, content: bytes) -> bytes:
    """The archive of one member with another number of its compression."""
    changed, central = bytearray(content), content.index(b"PK\1\2")
    for at in (8, central + 10):
        changed[at : at + 2] = method.to_bytes(2, "little")
    return bytes(changed)


def npy_of(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    width = 2 if version == b"\1\0" else 4
    return b"\x93NUMPY" + version + len(header).to_bytes(width, "little") + header.encode() + content


def described(shape: str, dtype: str = "'<f4'") -> bytes:
    return npy_of(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n", bytes(8))


@pytest.mark.parametrize(
    "content, message",
    [
        (npz_of(b"hello", "readme.txt"), "contains 'readme.txt'; expected only .npy arrays"),
        (npz_of(b"hello"), "magic string"),
        (npz_of(described("(2,)"))[:60], "not a zip file"),
        (compressed_by(99, npz_of(described("(2,)"))), "compression method is not supported"),
        (npz_of(npy_of("(((((")), "."),
        (npz_of(npy_of("'" + "x" * 100_000, version=b"\2\0")), "large"),
        (npz_of(npy_of("{}", version=b"\3\0")), r"version \(3, 0\); expected 1.0 or 2.0"),
        (npz_of(described("(3000000, 1280)")), "has 8 bytes; expected those of its shape"),
        (npz_of(described("(100000000, 1000000)")), "has 8 bytes; expected those of its shape"),
        (npz_of(described("(9223372036854775808, 4)")), "has 8 bytes; expected those of its shape"),
        (npz_of(described("(-1, -2)")), "has 8 bytes; expected those of its shape"),
        (npz_of(described("(" + "9" * 5000 + ",)")), "Cannot parse header"),
        (npz_of(described("(2,)", "'|S4'")), r"has the type \|S4; expected numbers"),
        (npz_of(described("(2,)", "[('a', '<f4')]")), "expected numbers"),
        (npz_of(described("(2,)", "'|O'")), "expected numbers"),
        (npz_of(bytes(300 << 20), method=zipfile.ZIP_DEFLATED), "314,572,800 bytes when unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_crafted_npz_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "w.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_arrays(path)
    text = str(error.value)
    assert text.startswith(f"{path}: not a readable .npz") and "\n" not in text and len(text) < len(str(path)) + 300


def test_the_crafted_files_differ_from_a_good_one_as_said(tmp_path):
    (tmp_path / "w.npz").write_bytes(npz_of(described("(2,)")))
    np.testing.assert_array_equal(read_arrays(tmp_path / "w.npz")["w"], np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "suffix, content, message",
    [
        (".npz", object_npz(), "not a readable .npz of plain arrays"),
        (".npz", pickle.dumps(ARRAYS), "not a readable .npz"),
        (".npz", b"PK\x03\x04 cut off", "not a readable .npz"),
        (".npz", b"", "not a readable .npz"),
        (".safetensors", b"\xff" * 20, "not a readable safetensors file"),
        (".safetensors", b"", "not a readable safetensors file"),
        (".bin", b"", "ends in '.bin', expected one of .safetensors, .npz, .pdparams"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, suffix, content, message):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_arrays(path)
    assert str(path) in str(error.value)


def test_a_single_array_is_no_file_of_named_ones(tmp_path):
    np.save(tmp_path / "w.npy", ARRAYS["a"])
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        read_arrays(tmp_path / "w.npz")


def test_only_some_kinds_are_written(tmp_path):
    with pytest.raises(InputError, match=r"expected \.safetensors or \.npz"):
        write_arrays(tmp_path / "w.pdparams", ARRAYS)
    assert not list(tmp_path.iterdir())
