"""A run as something to serve: Paddle Inference models, ONNX models, or item vectors for an index.

Both kinds of model read item numbers and build the graph inside, so that whoever calls them needs none of this package.
Nothing takes its name before it has been read back and compared with the checkpoint, see `verification`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import InputError, WorkFailed
from ..files import atomic_folder, sha256
from ..protocols import PROTOCOLS
from ..run import ITEMS, MODEL, Run
from ..runtime import import_paddle
from .padded import Ranker, SessionEncoder
from .verification import Original, inner_product, latency, load_onnx, load_paddle, trial_sessions, verify

paddle = import_paddle()

FORMATS = ("paddle", "onnx", "vectors")
MANIFEST, VECTORS = "manifest.json", "items.npy"
OPSET = 13  # paddle2onnx 2.1 is wrong or aborts the process at the newest ones
PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")  # setup.py's extra "onnx"
INPUT = {"name": "item_seq", "dtype": "int64", "shape": ["B", "L"]}


def export_run(run: str | os.PathLike, out: str | os.PathLike, kind: str, k: int = 20, replace: bool = False) -> dict:
    """Export a run's reported checkpoint, compare it with the checkpoint, and only then give it its name.

    Args:
        run: a run or checkpoint; the run's items.csv is copied.
        out: the folder to make.
        kind: one of FORMATS.
        k: how many items the ranker lists; of vectors, how many are compared, or all where there are fewer.
        replace: whether what is in `out` is replaced.

    Returns:
        The manifest, as written.

    Raises:
        InputError: no such run, `out` exists, more items are asked for than there are, or a package is missing.
        WorkFailed: the export and the checkpoint differ by more than the tolerance; nothing is left.
    """
    if kind == "onnx":
        check_packages()
    run = Run(run)
    checkpoint = run.checkpoint()
    if kind != "vectors" and not 1 <= k < checkpoint.n_items:
        raise InputError(f"k={k}: {run.name} has {checkpoint.n_items - 1} items; list from 1 to as many")
    run.items()  # what a number means must be known
    cosine = PROTOCOLS[checkpoint.dataset["protocol"]].cosine
    original = Original(run.model(), checkpoint.settings.max_session_length, cosine)
    trial = trial_sessions(run)
    manifest = {"format": kind, "similarity": "cosine" if cosine else "inner product"} | _origin(run)
    with atomic_folder(out, replace) as folder:
        shutil.copyfile(run.folder / ITEMS, folder / ITEMS)
        if kind == "vectors":
            vectors = save_vectors(original, folder)
            manifest["items"] = {"file": VECTORS, "dtype": str(vectors.dtype), "shape": list(vectors.shape)}
            manifest["verified"] = verify(original, trial, inner_product(original, vectors, min(k, len(vectors))))
        else:
            save, load = (save_paddle, load_paddle) if kind == "paddle" else (save_onnx, load_onnx)
            manifest |= {"k": k, "models": save(original, folder, k)}
            ranker = load(folder, "ranker")
            manifest["verified"] = verify(original, trial, ranker, load(folder, "encoder"))
            manifest["latency"] = latency(ranker, trial)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def check_packages() -> None:
    """See that what ONNX needs is installed.

    Raises:
        InputError: a package is missing; the message names the extra.
    """
    for name in PACKAGES:
        try:
            __import__(name)
        except ImportError as error:
            raise InputError(f'format onnx needs {name} ({error}): pip install "paddle-srgnn[onnx]"') from None


def _origin(run: Run) -> dict:
    checkpoint = run.checkpoint()
    versions = {"paddle-srgnn": __version__}
    for package in ("paddlepaddle", "paddlepaddle-gpu", *PACKAGES):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "checkpoint": str(checkpoint.folder.resolve()),
        "weights_sha256": sha256(checkpoint.folder / MODEL),
        "dataset": {key: checkpoint.dataset[key] for key in ("name", "hash")},
        "n_items": checkpoint.n_items,
        "max_session_length": checkpoint.settings.max_session_length,
        "model": vars(checkpoint.settings.model_config(checkpoint.n_items)),
        "versions": versions,
    }


def save_paddle(original: Original, folder: Path, k: int) -> dict[str, dict]:
    """Write encoder.json, .pdiparams and ranker.json, .pdiparams; returns their description for the manifest."""
    width = original.model.embedding_size
    encoder = SessionEncoder(original.model, original.max_session_length, original.cosine)
    layers = {"encoder": encoder, "ranker": Ranker(encoder, k)}
    outputs = {
        "encoder": [{"name": "user_vectors", "dtype": "float32", "shape": ["B", width]}],
        "ranker": [
            {"name": "item_numbers", "dtype": "int64", "shape": ["B", k]},
            {"name": "scores", "dtype": "float32", "shape": ["B", k]},
        ],
    }
    models = {}
    for name, layer in layers.items():
        layer.eval()
        spec = [paddle.static.InputSpec([None, None], INPUT["dtype"], INPUT["name"])]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface")  # Paddle's about itself
            paddle.jit.save(layer, str(folder / name), input_spec=spec)
        files = [f"{name}.json", f"{name}.pdiparams"]
        models[name] = {"files": files, "inputs": [INPUT], "outputs": outputs[name]}
    return models


def save_onnx(original: Original, folder: Path, k: int) -> dict[str, dict]:
    """Write encoder.onnx and ranker.onnx, see `save_paddle`."""
    import onnx
    import paddle2onnx

    with tempfile.TemporaryDirectory() as paddle_folder:
        models = save_paddle(original, Path(paddle_folder), k)
        for name, description in models.items():
            program, weights = (str(Path(paddle_folder) / file) for file in description["files"])
            with _stdout_to_stderr():
                # Not into a file: then it would optimise the graph by a package that installs others by pip on its own.
                try:
                    content = paddle2onnx.export(program, weights, opset_version=OPSET, auto_upgrade_opset=False)
                except Exception as error:
                    raise WorkFailed(f"paddle2onnx cannot convert the {name}: {error}") from error
            whole = onnx.load_model_from_string(content)
            _tidy(whole.graph, [output["name"] for output in description["outputs"]])
            onnx.checker.check_model(whole)
            onnx.save(whole, folder / f"{name}.onnx")
            description["files"] = [f"{name}.onnx"]
    return models


def _tidy(graph, names: list[str]) -> None:
    """Name the outputs of an ONNX graph, and drop the constants that nothing reads: each would be a warning."""
    new = dict(zip((output.name for output in graph.output), names, strict=True))
    for output in graph.output:
        output.name = new[output.name]
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [new.get(end, end) for end in ends]
    read = {end for node in graph.node for end in node.input}
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in read]:
        graph.node.remove(node)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """For native code that prints its progress."""
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def save_vectors(original: Original, folder: Path) -> np.ndarray:
    """Write the vectors of the items 1, 2, ... (n_items-1, d) float32; returns them as read back."""
    np.save(folder / VECTORS, original.table, allow_pickle=False)
    return np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
