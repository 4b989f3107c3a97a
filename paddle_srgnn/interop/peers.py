"""Weight formats of other SR-GNN implementations: Datawhale, the authors' PyTorch code and RecBole.

The Datawhale reference has the same keys as this package. PyTorch's matrices are transposed. The authors' input gate is
reversed: n + z(h - n) instead of h + z(n - h). Since 1 - sigmoid(x) = sigmoid(-x), negating its weights converts it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

EMBEDDING = "item_emb.weight"


@dataclasses.dataclass(frozen=True)
class Peer:
    """An implementation's format.

    Attributes:
        renamed: its names for our keys, where they differ.
        transposed: whether its matrices, except the item table, are transposed.
        negated: whether its input gate is reversed.
        unused: names of its square matrices and biases that it never reads.
        score_item_zero: whether the padding item is a class of its softmax.
        max_session_length: number of most recent clicks that it reads by default.
        torch_file: Python expression that reads its state dict from a PyTorch file.
    """

    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    transposed: bool = False
    negated: bool = False
    unused: tuple[str, ...] = ()
    score_item_zero: bool = True
    max_session_length: int = 70
    torch_file: str = ""


_TORCH_LOAD = "torch.load('FILE', map_location='cpu', weights_only={})"
PEERS = {
    "datawhale": Peer(max_session_length=20),
    "authors-pytorch": Peer(
        renamed={EMBEDDING: "embedding.weight", "gnn.b_ioh": "gnn.b_oah"},
        transposed=True,
        negated=True,
        unused=("gnn.linear_edge_f.weight", "gnn.linear_edge_f.bias"),
        score_item_zero=False,
        torch_file=_TORCH_LOAD.format(True),
    ),
    "recbole": Peer(
        renamed={EMBEDDING: "item_embedding.weight"},
        transposed=True,
        max_session_length=50,
        torch_file=_TORCH_LOAD.format(False) + "['state_dict']",
    ),
}


def how_to_make_npz(peer: str) -> str:
    """The command that converts a PyTorch file to .npz."""
    arrays = f"{{k: v.numpy() for k, v in {PEERS[peer].torch_file}.items()}}"
    return f"python -c \"import numpy, torch; numpy.savez('FILE.npz', **{arrays})\""
