import pytest

from paddle_srgnn.datasets.titles import read_titles
from paddle_srgnn.errors import InputError


def test_titles_by_raw_id(tmp_path):
    (tmp_path / "t.csv").write_bytes('\ufeffid,title\r\n1,"Rock, Paper"\r\n\r\né,\r\n'.encode())
    assert read_titles(tmp_path / "t.csv") == {"1": "Rock, Paper", "é": ""}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"id,title\n1,a,b\n", "line 2: 3 fields"),
        (b"id\n1\n", "line 1: 1 fields"),
        (b"id,title\n1,a\n1,b\n", "line 3: raw id '1' occurs twice"),
        (b"id,title\n,a\n", "line 2: the raw id is empty"),
        (b"id,title\n1,\"a\n", "line 2: not CSV"),
        (b"id,title\n1,\xff\n", "not UTF-8"),
        (b"\xff\xfei\0d\0", "not UTF-8"),
        (b"id,title\n1," + b"a" * 140_000, "line 2: not CSV (field larger than field limit"),
        (b"id,title\n" + b"a" * 140_000, "line 2: not CSV (field larger than field limit"),
        (b"", "no titles"),
        (b"id,title\n", "no titles"),
    ],
)
def test_a_bad_file_is_named_with_the_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_titles(tmp_path / "t.csv")
    assert str(error.value).startswith(str(tmp_path / "t.csv")) and message in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_titles(tmp_path / "t.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_titles(tmp_path)
