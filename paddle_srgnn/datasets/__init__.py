"""From raw click logs to batches: clicks -> protocol -> sessions -> samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sessions import SessionDataset


def load_dataset(data: str) -> SessionDataset:
    """The dataset that `--data` names: "sample", generated anew, or a folder, checked against its hashes.

    Raises:
        InputError: the folder is no dataset, or was truncated or altered.
    """
    if data == "sample":
        from .synthetic import sample_dataset

        return sample_dataset()
    from .sessions import open_dataset, verify_dataset

    dataset = open_dataset(data)
    verify_dataset(dataset)
    return dataset
