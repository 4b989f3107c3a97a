"""How other implementations of SR-GNN keep its weights: Datawhale's, the authors' PyTorch code and RecBole's.

The Datawhale reference's keys are ours. PyTorch keeps its matrices transposed. The authors' input gate has the other
sense, n + z(h - n) for our h + z(n - h): as 1 - sigmoid(x) = sigmoid(-x), negating the gate's weights exchanges them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

EMBEDDING = "item_emb.weight"


@dataclasses.dataclass(frozen=True)
class Peer:
    """How an implementation keeps SR-GNN's weights.

    Attributes:
        renamed: its names for our keys where they differ.
        transposed: whether its matrices, the item table apart, are transposed.
        negated: whether its input gate has the other sense.
        unused: names of square matrices and of biases that it has and never reads.
        score_item_zero: whether its softmax has the padding item among its classes.
        max_session_length: how many of the most recent clicks it reads, by default.
        torch_file: the Python expression of its state dict in a file of PyTorch's, which we do not read.
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
    """The command that makes a readable file of a PyTorch one."""
    arrays = f"{{k: v.numpy() for k, v in {PEERS[peer].torch_file}.items()}}"
    return f"python -c \"import numpy, torch; numpy.savez('FILE.npz', **{arrays})\""
