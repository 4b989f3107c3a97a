"""Export a run for serving: Paddle Inference models, ONNX models, or item vectors for an index.

The models take item numbers and build the graph themselves, so serving them does not need this package. An export is
read back and compared with the checkpoint before it gets its final name, see `verification`.
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
from .recommender import unfinished
from .verification import Original, inner_product, latency, load_onnx, load_paddle, trial_sessions, verify

paddle = import_paddle()

FORMATS = ("paddle", "onnx", "vectors")
MANIFEST, VECTORS = "manifest.json", "items.npy"
OPSET = 13  # with the newest ones paddle2onnx 2.1 gives wrong results or aborts the process
PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")  # setup.py's extra "onnx"
INPUT = {"name": "item_seq", "dtype": "int64", "shape": ["B", "L"]}


def export_run(
    run: str | os.PathLike,
    out: str | os.PathLike,
    kind: str,
    k: int = 20,
    replace: bool = False,
    allow_unfinished: bool = False,
) -> dict:
    """Export a run's reported checkpoint and compare the export with it.

    Args:
        run: a run or checkpoint; the run's items.csv is copied.
        out: the folder to create.
        kind: one of FORMATS.
        k: the length of the ranker's lists. Of vectors, the length of the lists compared, at most the catalogue.
        replace: whether to replace an existing `out`.
        allow_unfinished: whether to export a run whose training is unfinished; the manifest says so.

    Returns:
        The manifest, as written.

    Raises:
        InputError: no such run, its training is unfinished, `out` exists, k is larger than the catalogue, or a package
            is missing.
        WorkFailed: the export and the checkpoint differ by more than the tolerance; nothing is written.
    """
    for package in PACKAGES if kind == "onnx" else ():
        try:
            __import__(package)
        except ImportError as error:
            raise InputError(f'format onnx needs {package} ({error}): pip install "paddle-srgnn[onnx]"') from None
    run = Run(run)
    checkpoint = run.checkpoint()
    if kind != "vectors" and not 1 <= k < checkpoint.n_items:
        raise InputError(f"k={k}: {run.name} has {checkpoint.n_items - 1} items; expected at least 1 and at most that")
    left = unfinished(run)
    if left and not allow_unfinished:
        raise InputError(f"{run.name}: {left}; finish it, or allow an unfinished run")
    run.items()  # fails where the raw ids are unknown
    cosine = PROTOCOLS[checkpoint.dataset["protocol"]].cosine
    original = Original(run.model(), checkpoint.settings.max_session_length, cosine)
    trial = trial_sessions(run)
    manifest = {"format": kind, "similarity": "cosine" if cosine else "inner product"} | _origin(run)
    manifest["unfinished"] = left
    with atomic_folder(out, replace) as folder:
        shutil.copyfile(run.folder / ITEMS, folder / ITEMS)
        if kind == "vectors":
            np.save(folder / VECTORS, original.table, allow_pickle=False)
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)  # (n_items-1, d)
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
    encoder = SessionEncoder(original.model, original.max_session_length, original.cosine)
    outputs = {
        "encoder": [("user_vectors", "float32", original.model.embedding_size)],
        "ranker": [("item_numbers", "int64", k), ("scores", "float32", k)],
    }
    models = {}
    for name, layer in {"encoder": encoder, "ranker": Ranker(encoder, k)}.items():
        layer.eval()
        spec = [paddle.static.InputSpec([None, None], INPUT["dtype"], INPUT["name"])]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface")  # from Paddle's own code
            paddle.jit.save(layer, str(folder / name), input_spec=spec)
        described = [{"name": output, "dtype": dtype, "shape": ["B", width]} for output, dtype, width in outputs[name]]
        models[name] = {"files": [f"{name}.json", f"{name}.pdiparams"], "inputs": [INPUT], "outputs": described}
    return models


def save_onnx(original: Original, folder: Path, k: int) -> dict[str, dict]:
    """Write encoder.onnx and ranker.onnx, as `save_paddle` does."""
    import onnx
    import paddle2onnx

    with tempfile.TemporaryDirectory() as paddle_folder:
        models = save_paddle(original, Path(paddle_folder), k)
        for name, description in models.items():
            program, weights = (str(Path(paddle_folder) / file) for file in description["files"])
            with _stdout_to_stderr():
                # Without a file name: with one it optimises the graph, by a package that runs pip on its own.
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
    """Name the outputs of an ONNX graph and drop unused constants, each of which would cause a warning."""
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
    """Redirect what native code prints."""
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
