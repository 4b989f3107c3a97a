"""Import and export the weights of other implementations; `peers` describes their formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..config import Settings
from ..errors import InputError
from ..files import atomic_folder, sha256
from ..model import SRGNN
from ..run import UNKNOWN_DATASET, Progress, Run, RunConfig, describe_environment, write_config
from ..training.checkpoint import save_checkpoint
from .arrays import PDPARAMS, WRITABLE, read_arrays, write_arrays
from .peers import EMBEDDING, PEERS, Peer, how_to_make_npz

GATED = ("gnn.w_ih", "gnn.w_hh", "gnn.b_ih", "gnn.b_hh")  # their last axis: reset gate, input gate, new state


def import_weights(peer: str, file: Path, run: Path, step: int = 1, max_session_length: int | None = None) -> None:
    """Create a run from another implementation's weights.

    Args:
        peer: a key of PEERS.
        file: .safetensors or .npz; for `datawhale` also .pdparams.
        run: the folder to create. It has no items.csv, because the dataset is unknown, and no optimizer state.
        step: message passing steps, which the weights do not determine.
        max_session_length: number of most recent clicks to read (default: as in the implementation).

    Raises:
        InputError: the folder exists, or the file cannot be read or comes from another implementation. The message
            names each key that differs.
    """
    if run.exists():
        raise InputError(f"{run} exists already; choose another folder")
    its = PEERS[peer]
    readable = WRITABLE + (PDPARAMS,) * (peer == "datawhale")
    if file.suffix not in readable:
        hint = f"; convert a PyTorch file to .npz: {how_to_make_npz(peer)}" if its.torch_file else ""
        raise InputError(f"{file}: weights of {peer} are read from {', '.join(readable)}{hint}")
    theirs = read_arrays(file)
    n_items, embedding_dim = _sizes(peer, theirs, file)
    length = max_session_length or its.max_session_length
    sizes = {"embedding_dim": embedding_dim, "step": step, "max_session_length": length}
    settings = Settings(**sizes, score_item_zero=its.score_item_zero)
    model = SRGNN(settings.model_config(n_items))
    ours = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    _require_alike(theirs, to_theirs(its, ours), f"{file}: not the weights of {peer}")
    model.set_state_dict(to_ours(its, theirs, ours))
    origin = {"imported": {"from": peer, "file": file.name, "sha256": sha256(file)}}
    config = RunConfig("imported", settings, UNKNOWN_DATASET, describe_environment("cpu", 1) | origin)
    with atomic_folder(run) as temporary:
        write_config(temporary, config)
        (temporary / "checkpoints").mkdir()
        save_checkpoint(temporary, ["last"], model, settings, UNKNOWN_DATASET, Progress())


def _sizes(peer: str, theirs: Mapping[str, np.ndarray], file: Path) -> tuple[int, int]:
    """The number of items and the embedding dimension d, from the shape of the item table."""
    name = PEERS[peer].renamed.get(EMBEDDING, EMBEDDING)
    if name not in theirs:
        others = [other for other, its in PEERS.items() if its.renamed.get(EMBEDDING, EMBEDDING) in theirs]
        hint = f"; its keys are those of {others[0]}" if others else ""
        raise InputError(f"{file}: not the weights of {peer}: {name}: missing, expected [n_items, d]{hint}")
    if theirs[name].ndim != 2 or 0 in theirs[name].shape:
        raise InputError(f"{file}: {name}: found {list(theirs[name].shape)}, expected [n_items, d]")
    n_items, d = theirs[name].shape
    # Before a model of that size is built. Each peer has several matrices of [d, d] or more.
    if len(theirs) > 1 and d * d > max(array.size for other, array in theirs.items() if other != name):
        raise InputError(f"{file}: {name}: found {[n_items, d]}, but no other array has {d} x {d} numbers or more")
    return n_items, d


def _require_alike(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    forms, expected_forms = (
        {key: f"{array.dtype} {list(array.shape)}" for key, array in arrays.items()} for arrays in (found, expected)
    )
    problems = []
    for key in sorted(found.keys() | expected.keys()):
        form, expected_form = forms.get(key), expected_forms.get(key, "no such key")
        if form != expected_form:
            problems.append(f"{key}: {f'found {form}' if form else 'missing'}, expected {expected_form}")
        elif not np.isfinite(found[key]).all():
            problems.append(f"{key}: found values that are not finite")
    if problems:
        raise InputError(f"{what}: {'; '.join(problems)}")


def to_ours(its: Peer, theirs: Mapping[str, np.ndarray], keys: Iterable[str]) -> dict[str, np.ndarray]:
    """A peer's arrays in our format, without those that it never reads."""
    return {key: _negated(its, key, _transposed(its, key, theirs[its.renamed.get(key, key)])) for key in keys}


def to_theirs(its: Peer, ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our arrays in a peer's format. Arrays that it never reads are zero."""
    theirs = {
        its.renamed.get(key, key): np.ascontiguousarray(_transposed(its, key, _negated(its, key, array)))
        for key, array in ours.items()
    }
    d = ours[EMBEDDING].shape[1]
    return theirs | {name: np.zeros((d, d) if name.endswith("weight") else d, np.float32) for name in its.unused}


def _transposed(its: Peer, key: str, array: np.ndarray) -> np.ndarray:
    return array.T if its.transposed and array.ndim == 2 and key != EMBEDDING else array


def _negated(its: Peer, key: str, array: np.ndarray) -> np.ndarray:
    """An array in our layout, with the input gate's third negated if the peer's gate is reversed."""
    if not its.negated or key not in GATED:
        return array
    reset_gate, input_gate, new_state = np.split(array, 3, axis=-1)
    return np.concatenate([reset_gate, -input_gate, new_state], axis=-1)


def export_weights(peer: str, run: Run, file: Path) -> str | None:
    """Write a run's weights in another implementation's format, as .safetensors or .npz by the suffix.

    Returns:
        A note if the run and the other implementation treat item 0 differently, else None.

    Raises:
        InputError: the file exists or has another suffix, or the other implementation does not support the run's
            settings.
    """
    its = PEERS[peer]
    if file.exists():
        raise InputError(f"{file} exists already; choose another name")
    checkpoint = run.checkpoint()
    switches = checkpoint.settings.scoring_switches()
    trained_with_item_zero = switches.pop("score_item_zero", True)
    if switches:
        named = ", ".join(f"{key}={value}" for key, value in switches.items())
        raise InputError(f"{checkpoint.folder}: trained with {named}, which {peer} cannot compute")
    weights = {key: tensor.numpy() for key, tensor in run.model().state_dict().items()}
    write_arrays(file, to_theirs(its, weights))
    if trained_with_item_zero == its.score_item_zero:
        return None
    if its.score_item_zero:
        return f"{peer} scores the padding item 0, which was not a candidate in training; exclude it from its ranks"
    return f"{peer} never scores the padding item 0, which was a class of the softmax that trained these weights"
