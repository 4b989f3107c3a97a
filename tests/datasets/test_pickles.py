"""The authors' pickles: what is read, what is refused, and that nothing in them is run."""

from __future__ import annotations

import os
import pickle
from itertools import pairwise

import pytest

from paddle_srgnn.datasets.pickles import export_pickles, import_pickles
from paddle_srgnn.datasets.sessions import open_dataset, write_dataset
from paddle_srgnn.errors import InputError

# Sessions 1 2 1 | 3 3 and for testing 2 5 | 1 2 3.
TRAIN = ([[1, 2], [1], [3]], [1, 2, 3])
TEST = ([[2], [1, 2], [1]], [5, 3, 2])
ALL_TRAIN = [[1, 2, 1], [3, 3]]


@pytest.fixture
def folder(tmp_path):
    def write(**contents):
        for name, content in contents.items():
            (tmp_path / f"{name}.txt").write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
        return tmp_path

    return write


def nested(sessions) -> list[list[int]]:
    bounds = sessions.offsets.tolist()
    return [sessions.items[start:end].tolist() for start, end in pairwise(bounds)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("train", [{"train": TRAIN}, {"all_train_seq": ALL_TRAIN}])
def test_import_by_hand(folder, train, protocol):
    contents = {name: pickle.dumps(content, protocol) for name, content in (train | {"test": TEST}).items()}
    dataset = import_pickles(folder(**contents), "tiny")
    assert nested(dataset.train) == ALL_TRAIN
    assert nested(dataset.test) == [[2, 5], [1, 2, 3]]
    assert dataset.train.n_samples == dataset.test.n_samples == 3
    assert dataset.n_items == 6 and dataset.item_ids == ["", "1", "2", "3", "4", "5"]
    assert dataset.item_clicks.tolist() == [0, 2, 1, 2, 0, 0]
    assert dataset.train.dates is None and dataset.train.first_samples is None


def test_train_decides_where_the_two_disagree(folder):
    cut = ([[1], [3]], [2, 3])  # the cut fell inside the first session, whose longest prefix is lost
    dataset = import_pickles(folder(train=cut, all_train_seq=ALL_TRAIN, test=TEST), "tiny")
    assert nested(dataset.train) == [[1, 2], [3, 3]]
    assert dataset.train.n_samples == 2


def test_round_trip(folder, tmp_path):
    dataset = import_pickles(folder(train=TRAIN, test=TEST), "tiny")
    write_dataset(dataset, tmp_path / "d")
    export_pickles(open_dataset(tmp_path / "d"), tmp_path / "p")
    contents = [pickle.loads((tmp_path / "p" / f"{n}.txt").read_bytes()) for n in ("train", "test", "all_train_seq")]
    assert contents == [TRAIN, TEST, ALL_TRAIN]
    assert type(contents[0]) is tuple and type(contents[0][0][0][0]) is int


class Trap:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["train", "test", "all_train_seq"])
def test_a_pickle_that_tries_to_run_code(folder, tmp_path, name, protocol):
    trap = pickle.dumps([Trap(os.mkdir, str(tmp_path / "sprung"))], protocol)
    contents = {"test": TEST, "all_train_seq": ALL_TRAIN, name: trap}
    with pytest.raises(InputError, match=rf"{name}\.txt: refuses (posix|nt)\.mkdir: expected only lists, tuples, ints"):
        import_pickles(folder(**contents), "tiny")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps([Trap(eval, "1")]), "eval"),
        (pickle.dumps([Trap(__import__, "os")]), "__import__"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "refuses numpy.core.multiarray._reconstruct"),
        (b"Pid\n.", "persistent id"),
        (b"(ios\nsystem\n.", "refuses os.system"),
        (b"\x82\x01.", "damaged"),  # an extension code
        (b"", "damaged"),
        (b"\0\xff noise", "damaged"),
        (pickle.dumps(TEST)[:-5], "damaged"),
        (pickle.dumps({}), "found|a dict"),
        (pickle.dumps([[1], [2], [3]]), "pair"),
        (pickle.dumps(([], [])), "no sequences"),
        (pickle.dumps(([[1], []], [2, 3])), "a sequence of 0 items"),
        (pickle.dumps(([[1], 5], [2, 3])), "found a value of type int; expected lists"),
        (pickle.dumps(([[1.0]], [2])), "found a value of type float; expected item numbers"),
        (pickle.dumps(([[1]], ["2"])), "found a value of type str"),
        (pickle.dumps(([[True]], [2])), "found a value of type bool"),
        (pickle.dumps(([[0]], [2])), "items 0 to 0; expected items from 1"),
        (pickle.dumps(([[1]], [2**40])), "expected items from 1"),
        (pickle.dumps(([[1]], [2, 3])), "1 inputs and 2 labels"),
        (pickle.dumps(([[1, 2]], [3])), "sample 1 of 1"),  # cut off
        (pickle.dumps(([[1, 2, 3], [1]], [4, 2])), "sample 2 of 2"),  # skips a length
        (pickle.dumps(([[1], [1, 2], [1], [1, 2], [2]], [2, 3, 2, 3, 2])), "sample 5 of 5"),  # other items
        (pickle.dumps(([[1, 2], [1]], [3, 3])), "sample 2 of 2"),  # another label
        (pickle.dumps(([[1], [1, 2], [1, 2, 3]], [2, 3, 4])), "sample 3 of 3"),  # shortest first
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_such_pickle(folder, content, said):
    with pytest.raises(InputError, match=said) as caught:
        import_pickles(folder(all_train_seq=ALL_TRAIN, test=content), "tiny")
    assert "test.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_an_item_far_beyond_the_others_is_refused_at_once(folder):
    test = ([[1, 2147483645], [1]], [2, 2147483645])
    with pytest.raises(InputError, match=r"largest item is 2,147,483,645 in a total of .* clicks; expected"):
        import_pickles(folder(all_train_seq=ALL_TRAIN, test=test), "tiny")


@pytest.mark.parametrize("item", [1 << 20_000, -(1 << 20_000)], ids=["high", "low"])
def test_an_item_of_thousands_of_digits_is_refused_in_a_short_line(folder, item):
    with pytest.raises(InputError, match="more than 64 bits") as error:
        import_pickles(folder(all_train_seq=ALL_TRAIN, test=([[1]], [item])), "tiny")
    assert len(str(error.value)) < 300


def test_a_list_repeated_a_million_times_is_refused_before_it_is_written_out(folder):
    again = [[1] * 1_000] * 1_000_000  # 10^9 items
    with pytest.raises(InputError, match=r"1,000,000,000 items in .* bytes; expected sequences that are written out"):
        import_pickles(folder(all_train_seq=again, test=TEST), "tiny")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_a_small_file_does_not_take_all_memory(folder):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    content = b"\x80\x02]r\xff\xff\xff\x1f."  # the list's number among the remembered ones is 2^29, which takes 8 GB
    with pytest.raises(InputError, match="is damaged: MemoryError"):
        import_pickles(folder(all_train_seq=ALL_TRAIN, test=content), "tiny")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_missing_files(folder, tmp_path):
    with pytest.raises(InputError, match=r"all_train_seq\.txt does not exist"):
        import_pickles(folder(test=TEST), "tiny")
    (tmp_path / "test.txt").unlink()
    with pytest.raises(InputError, match=r"test\.txt does not exist"):
        import_pickles(folder(all_train_seq=ALL_TRAIN), "tiny")
    with pytest.raises(InputError, match="not a folder"):
        import_pickles(tmp_path / "nothing", "tiny")
    with pytest.raises(InputError, match="a sequence of 1 items; expected at least 2"):
        import_pickles(folder(all_train_seq=[[1, 2], [3]], test=TEST), "tiny")


@pytest.mark.parametrize(
    ("name", "train", "test", "n_items"),
    [("diginetica", 719_470, 60_858, 43_098), ("yoochoose1_64", 369_859, 55_898, 37_484)],
)
def test_the_benchmarks(shared, name, train, test, n_items):
    dataset = import_pickles(shared / "data" / name, name)
    assert (dataset.train.n_samples, dataset.test.n_samples, dataset.n_items) == (train, test, n_items)
