"""Session graphs in numpy: the reference's padded layout, and the packed layout that training uses.

A session 1, 2, 3, 2, 4 has the nodes 1, 2, 3, 4 (its distinct items, ascending), and an edge from each click's node to
the next click's: 1->2, 2->3, 3->2, 2->4. A repeated edge counts once, and a self-loop is an edge. The weight of an edge
u->v is 1/indegree(v) among v's incoming edges and 1/outdegree(u) among u's outgoing ones. This is the paper's
connection matrix (section 3.2) without weights by occurrence, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class PaddedGraph(NamedTuple):
    """The graphs of B sessions of at most L clicks, padded to L, as the reference's `_get_slice` returns them."""

    alias_inputs: np.ndarray  # (B, L) int64, each click's node in its row
    A: np.ndarray  # (B, L, 2L) float32, [incoming | outgoing] edge weights
    items: np.ndarray  # (B, L) int64, each node's item; 0 is the first node of a row with padding
    mask: np.ndarray  # (B, L) int32, 1 for a click


class PackedGraph(NamedTuple):
    """The graphs of B sessions end to end: N nodes, C clicks and M messages, without padding.

    An edge u->v sends two messages: one along it, from u to v with weight 1/indegree(v), and one against it, from v to
    u with weight 1/outdegree(u). Node n is number 2n for messages along edges and 2n + 1 for messages against them.
    A matrix (2N, d) of messages can therefore be viewed, in the same memory, as (N, 2d): both kinds for each node.
    """

    items: np.ndarray  # (N,) int64, each node's item
    message_from: np.ndarray  # (M,) int64 in [0, 2N)
    message_to: np.ndarray  # (M,) int64 in [0, 2N), ascending
    message_weight: np.ndarray  # (M,) float32
    click_node: np.ndarray  # (C,) int64, each click's node
    click_session: np.ndarray  # (C,) int64, each click's session, ascending
    last_click: np.ndarray  # (B,) int64, each session's last click


def padded_graph(item_seq: np.ndarray) -> PaddedGraph:
    """Build the reference's tensors for a batch of left-aligned, zero-padded sessions.

    This also reproduces two oddities of the reference: padding is a node (item 0, sorted first), and edges stop at a
    row's first zero after the first position.

    Args:
        item_seq: (B, L) integers >= 0, L >= 1.
    """
    item_seq = np.asarray(item_seq, dtype=np.int64)
    n_rows, length = item_seq.shape
    # Sorting item and position in one integer is several times faster than argsort.
    shift = int(length).bit_length()
    keys = np.sort((item_seq << shift) | np.arange(length), axis=1)  # (B, L)
    position, item = keys & ((1 << shift) - 1), keys >> shift
    node = np.zeros_like(item)  # (B, L), the node of the click at `position`
    np.cumsum(item[:, 1:] != item[:, :-1], axis=1, out=node[:, 1:])
    rows = np.arange(n_rows)[:, None]  # (B, 1)
    alias_inputs = np.empty_like(item)
    alias_inputs[rows, position] = node
    items = np.zeros_like(item)
    items[rows, node] = item

    walked = np.logical_and.accumulate(item_seq[:, 1:] != 0, axis=1)  # (B, L-1)
    row = np.nonzero(walked)[0]
    source, target = alias_inputs[:, :-1][walked], alias_inputs[:, 1:][walked]  # (steps,)
    A = np.zeros((n_rows, length, 2 * length), dtype=np.float32)
    flat = A.reshape(-1)
    incoming = (row * length + target) * (2 * length) + source
    outgoing = (row * length + source) * (2 * length) + length + target
    # An edge counts once: each repetition writes its number into the edge's cell, and the last one written is kept.
    step = np.arange(len(row), dtype=np.int32)
    cells = flat.view(np.int32)
    cells[incoming] = step
    once = cells[incoming] == step
    in_degree = np.bincount((row * length + target)[once], minlength=n_rows * length)
    out_degree = np.bincount((row * length + source)[once], minlength=n_rows * length)
    flat[incoming] = 1 / in_degree[row * length + target]
    flat[outgoing] = 1 / out_degree[row * length + source]
    return PaddedGraph(alias_inputs, A, items, (item_seq > 0).astype(np.int32))


def packed_graph(clicks: np.ndarray, lengths: np.ndarray) -> PackedGraph:
    """Build the packed graphs of a batch of sessions.

    Args:
        clicks: (C,) integers >= 0, the clicked items of all sessions, end to end.
        lengths: (B,) integers >= 1, the number of clicks in each session; B >= 1.
    """
    clicks, lengths = np.asarray(clicks, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    n_clicks = len(clicks)
    click_session = np.repeat(np.arange(len(lengths)), lengths)  # (C,)
    # Distinct (session, item) pairs, with the position in the low bits: sorting is several times faster than argsort.
    shift = int(n_clicks).bit_length()
    keys = click_session * (clicks.max() + 1) + clicks
    keys = np.sort((keys << shift) | np.arange(n_clicks))
    position, pair = keys & ((1 << shift) - 1), keys >> shift
    is_new = np.ones(n_clicks, dtype=bool)
    np.not_equal(pair[1:], pair[:-1], out=is_new[1:])
    click_node = np.empty(n_clicks, dtype=np.int64)
    click_node[position] = np.cumsum(is_new) - 1
    items = clicks[position[is_new]]  # (N,)

    last_click = np.cumsum(lengths) - 1
    step = np.delete(np.arange(n_clicks), last_click)
    messages = _messages(click_node[step], click_node[step + 1], len(items))
    return PackedGraph(items, *messages, click_node, click_session, last_click)


def _messages(source: np.ndarray, target: np.ndarray, n_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The messages along and against the distinct edges source->target, ordered by receiver."""
    if len(source) == 0:
        # A batch without edges gets one message of weight 0, so that every parameter has a gradient.
        nothing = np.zeros(1, dtype=np.int64)
        return nothing, nothing, np.zeros(1, dtype=np.float32)
    along, against = 2 * target * (2 * n_nodes) + 2 * source, (2 * source + 1) * (2 * n_nodes) + 2 * target + 1
    keys = np.sort(np.concatenate([along, against]))
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    receiver, sender = np.divmod(keys, 2 * n_nodes)
    weight = 1 / np.bincount(receiver)[receiver]
    return sender, receiver, weight.astype(np.float32)


def pad(sessions: Sequence[Sequence[int]], length: int | None = None) -> np.ndarray:
    """Left-align sessions and pad them with 0 to `length` (default: the longest session): int64 (B, length)."""
    lengths = np.array([len(session) for session in sessions])
    rows = np.zeros((len(sessions), lengths.max() if length is None else length), dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = np.concatenate(sessions)
    return rows


def unpad(item_seq: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """The clicks and lengths of left-aligned, zero-padded sessions, for `packed_graph`.

    Args:
        item_seq: (B, L) integers.
        n_items: the number of items, including the padding.

    Returns:
        clicks (C,) and lengths (B,), int64.

    Raises:
        ValueError: a row has only padding, a 0 before a click (the reference would read a wrong last click), or an id
            outside [0, n_items). The message names the row.
    """
    item_seq = np.asarray(item_seq)
    if item_seq.ndim != 2 or not np.issubdtype(item_seq.dtype, np.integer):
        raise ValueError(f"item_seq must be integers of shape (B, L), found {item_seq.dtype} of shape {item_seq.shape}")
    if item_seq.size == 0:
        raise ValueError(f"item_seq is empty: shape {item_seq.shape}, expected at least one session of one click")
    outside = (item_seq < 0) | (item_seq >= n_items)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(f"row {row}: item id {item_seq[row, column]} is outside [0, {n_items})")
    is_click = item_seq != 0
    lengths = is_click.sum(axis=1)
    if not lengths.all():
        raise ValueError(f"row {np.argmin(lengths)}: padding only, expected at least one click")
    gap = is_click[:, 1:] & ~is_click[:, :-1]
    if gap.any():
        raise ValueError(f"row {np.argmax(gap.any(axis=1))}: a 0 before a click; put the padding after the clicks")
    return item_seq[is_click].astype(np.int64), lengths.astype(np.int64)
