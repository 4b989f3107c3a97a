"""Import and export of other implementations' weights; `peers` describes their formats."""

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
    """Make a run from another implementation's weights.

    Args:
        peer: a key of PEERS.
        file: .safetensors or .npz; for `datawhale` also .pdparams.
        run: the folder to make, without items.csv, as the dataset is unknown, and without optimizer state.
        step: message passing steps, which the weights do not determine.
        max_session_length: number of most recent clicks to read; None: the implementation's default.

    Raises:
        InputError: the folder exists, or the file is not readable or of another implementation; the message names every
            key that differs.
    """
    if run.exists():
        raise InputError(f"{run} exists already; choose another folder")
    settings, model = _model_of(peer, file, step, max_session_length)
    imported = {"imported": {"from": peer, "file": file.name, "sha256": sha256(file)}}
    config = RunConfig("imported", settings, UNKNOWN_DATASET, describe_environment("cpu", 1) | imported)
    with atomic_folder(run) as temporary:
        write_config(temporary, config)
        (temporary / "checkpoints").mkdir()
        save_checkpoint(temporary, ["last"], model, settings, UNKNOWN_DATASET, Progress())


def _model_of(peer: str, file: Path, step: int, max_session_length: int | None) -> tuple[Settings, SRGNN]:
    its = PEERS[peer]
    readable = WRITABLE + (PDPARAMS,) * (peer == "datawhale")
    if file.suffix not in readable:
        hint = f"; make an .npz of a PyTorch file: {how_to_make_npz(peer)}" if its.torch_file else ""
        raise InputError(f"{file}: weights of {peer} are read from {', '.join(readable)}{hint}")
    theirs = read_arrays(file)
    n_items, embedding_dim = _sizes(peer, theirs, file)
    settings = Settings(
        embedding_dim=embedding_dim,
        step=step,
        score_item_zero=its.score_item_zero,
        max_session_length=max_session_length or its.max_session_length,
    )
    model = SRGNN(settings.model_config(n_items))
    ours = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    _require_alike(theirs, to_theirs(its, ours), f"{file}: not the weights of {peer}")
    model.set_state_dict(to_ours(its, theirs, ours))
    return settings, model


def _sizes(peer: str, theirs: Mapping[str, np.ndarray], file: Path) -> tuple[int, int]:
    """The number of items and the embedding size d, from the item table."""
    name = PEERS[peer].renamed.get(EMBEDDING, EMBEDDING)
    if name not in theirs:
        others = [other for other, its in PEERS.items() if its.renamed.get(EMBEDDING, EMBEDDING) in theirs]
        hint = f"; its keys are those of {others[0]}" if others else ""
        raise InputError(f"{file}: not the weights of {peer}: {name}: missing, expected [n_items, d]{hint}")
    if theirs[name].ndim != 2 or 0 in theirs[name].shape:
        raise InputError(f"{file}: {name}: found {list(theirs[name].shape)}, expected [n_items, d]")
    return theirs[name].shape


def _require_alike(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    problems = []
    for key in sorted(found.keys() | expected.keys()):
        if key not in expected:
            problems.append(f"{key}: found {_form(found[key])}, expected no such key")
        elif key not in found:
            problems.append(f"{key}: missing, expected {_form(expected[key])}")
        elif _form(found[key]) != _form(expected[key]):
            problems.append(f"{key}: found {_form(found[key])}, expected {_form(expected[key])}")
        elif not np.isfinite(found[key]).all():
            problems.append(f"{key}: found values that are not finite")
    if problems:
        raise InputError(f"{what}: {'; '.join(problems)}")


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def to_ours(its: Peer, theirs: Mapping[str, np.ndarray], keys: Iterable[str]) -> dict[str, np.ndarray]:
    """A peer's arrays in our format, without those that it never reads."""
    ours = {}
    for key in keys:
        array = theirs[its.renamed.get(key, key)]
        ours[key] = _gate_turned(its, key, _turned(its, key, array))
    return ours


def to_theirs(its: Peer, ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our arrays in a peer's format; those that it never reads are zero."""
    theirs = {
        its.renamed.get(key, key): np.ascontiguousarray(_turned(its, key, _gate_turned(its, key, array)))
        for key, array in ours.items()
    }
    d = ours[EMBEDDING].shape[1]
    return theirs | {name: np.zeros((d, d) if name.endswith("weight") else d, np.float32) for name in its.unused}


def _turned(its: Peer, key: str, array: np.ndarray) -> np.ndarray:
    return array.T if its.transposed and array.ndim == 2 and key != EMBEDDING else array


def _gate_turned(its: Peer, key: str, array: np.ndarray) -> np.ndarray:
    """An array in our layout, its input gate's third negated if the peer's gate has the opposite sign."""
    if not its.negated or key not in GATED:
        return array
    reset_gate, input_gate, new_state = np.split(array, 3, axis=-1)
    return np.concatenate([reset_gate, -input_gate, new_state], axis=-1)


def export_weights(peer: str, run: Run, file: Path) -> str | None:
    """Write a run's weights in another implementation's format, .safetensors or .npz by the suffix.

    Returns:
        A note on item 0 if the run and the other implementation treat it differently, else None.

    Raises:
        InputError: the file exists or has another suffix, or the run has a setting that the other implementation lacks.
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
        return f"{peer} scores the padding item 0, which was not a candidate in training: exclude it from its ranks"
    return f"{peer} never scores the padding item 0, which was a class of the softmax that trained these weights"
