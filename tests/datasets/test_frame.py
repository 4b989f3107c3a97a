"""dataset_from_frame against the same clicks in a CSV file, and its errors."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_srgnn.datasets.clicks import read_csv
from paddle_srgnn.datasets.load import dataset_from_frame
from paddle_srgnn.datasets.protocol import build_dataset
from paddle_srgnn.errors import InputError

DAY = 86400
COLUMNS = {"session": "visit", "item": "sku", "time": "at"}
# The last two sessions are of the test period.
FRAME = pd.DataFrame(
    {"visit": [1, 1, 2, 2, 3, 3], "sku": ["a", "b", "b", "a", "a", "b"], "at": [0, 1, 2, 3, 9 * DAY, 9 * DAY + 1]},
    index=list("uvwxyz"),
)


def dataset(frame, **options):
    return dataset_from_frame(frame, **COLUMNS, min_item_clicks=1, **options)


@settings(deadline=None, max_examples=40)
@given(
    clicks=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 20 * DAY)), min_size=1, max_size=60),
    kind=st.sampled_from(["seconds", "floats", "text", "naive", "aware"]),
    protocol=st.sampled_from(["sessions", "course"]),
)
def test_the_frame_and_its_csv_give_the_same_dataset(tmp_path_factory, clicks, kind, protocol):
    frame = pd.DataFrame(clicks, columns=["visit", "sku", "at"])
    moments = pd.to_datetime(frame["at"], unit="s")
    frame["at"] = {
        "seconds": frame["at"],
        "floats": frame["at"] + 0.25,
        "text": moments.map(pd.Timestamp.isoformat),
        "naive": moments,
        "aware": moments.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    }[kind]
    path = tmp_path_factory.getbasetemp() / "frame.csv"
    frame.to_csv(path, index=False)
    try:
        expected = build_dataset(read_csv(path, COLUMNS), "frame", "", protocol, min_item_clicks=1).hash
    except InputError as error:
        with pytest.raises(InputError) as caught:
            dataset(frame, protocol=protocol)
        assert str(caught.value) == str(error)
    else:
        assert dataset(frame, protocol=protocol).hash == expected


def test_a_hand_worked_frame():
    found = dataset(FRAME, name="shop", test_days=2, fraction="1/2")
    assert (found.name, found.path, found.is_sample) == ("shop", None, False)
    assert found.item_ids == ["", "a", "b"] and found.train.items.tolist() == [2, 1]
    assert found.test.items.tolist() == [1, 2] and found.test.dates.tolist() == [9 * DAY + 1]
    assert found.meta["parameters"] == {"test_days": 2.0, "min_item_clicks": 1, "fraction": "1/2"}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"sku": ["a", None, "b", "a", "a", "b"]}, "frame, row v: column sku is empty; expected a value in every row"),
        ({"sku": ["a", "b", "", "a", "a", "b"]}, "frame, row w: column sku is empty"),
        ({"at": [0, 1, 2, 1396860669277, 4, 5]}, "frame, row x: column at is '1396860669277'; expected a number"),
        ({"at": ["2014-04-07", "2014-13-07"] * 3}, "frame, row v: column at is '2014-13-07'; expected an ISO 8601"),
    ],
)
def test_an_error_names_the_rows_label(change, said):
    with pytest.raises(InputError, match=said):
        dataset(FRAME.assign(**change))


def test_columns_and_parameters_that_are_wrong():
    with pytest.raises(InputError, match="frame: no column sku; found visit, at; say which columns"):
        dataset(FRAME.drop(columns="sku"))
    with pytest.raises(InputError, match="column visit appears or is named twice"):
        dataset_from_frame(FRAME, "visit", "visit", "at")
    with pytest.raises(InputError, match="frame has no clicks"):
        dataset(FRAME[:0])
    with pytest.raises(InputError, match="unknown protocol 'days': expected one of sessions, course"):
        dataset(FRAME, protocol="days")
