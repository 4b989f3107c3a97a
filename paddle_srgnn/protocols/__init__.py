"""The protocols: how the sessions of a dataset are split, sampled and measured."""

from __future__ import annotations

from ..datasets.sessions import SessionDataset
from .course import Course
from .paper import Paper

Protocol = Paper | Course
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (Paper(), Course())}


def protocol_of(dataset: SessionDataset) -> Protocol:
    """The protocol that a dataset was made with."""
    return PROTOCOLS[dataset.protocol]
