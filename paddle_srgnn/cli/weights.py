"""Import and export weights of other SR-GNN implementations: Datawhale's, the authors' PyTorch code's, RecBole's."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from .. import cli


def parser() -> argparse.ArgumentParser:
    from ..interop.peers import PEERS, how_to_make_npz

    epilog = f"""\
Files are .safetensors or .npz. --from datawhale also reads .pdparams, without running code from the file.
To convert a PyTorch file, run this where torch is installed:
  the authors' state dict:   {how_to_make_npz("authors-pytorch")}
  a RecBole checkpoint:      {how_to_make_npz("recbole")}
The second command runs code from the file, as RecBole itself does. Use it only on files that you trust."""
    common = {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter}
    lengths = ", ".join(f"{peer} {its.max_session_length}" for peer, its in PEERS.items())
    parser = argparse.ArgumentParser("srgnn weights", description=__doc__, **common)
    what = parser.add_subparsers(dest="what", required=True)
    add = what.add_parser("import", help="create a run from a file of weights", **common).add_argument
    add("--from", dest="peer", choices=PEERS, required=True, help="implementation that wrote the file")
    add("file", type=Path, metavar="FILE", help="file of weights")
    add("--out", type=Path, required=True, metavar="RUN", help="folder of the run to create")
    count = {"type": cli.positive_int, "metavar": "N"}
    add("--step", **count, default=1, help="message passing steps of the model (default: 1)")
    add("--length", **count, help=f"number of most recent clicks to read (default: {lengths})")
    add = what.add_parser("export", help="write a run's weights for another implementation", **common).add_argument
    add("--to", dest="peer", choices=PEERS, required=True, help="implementation that will read the file")
    add("run", type=Path, metavar="RUN", help="run or checkpoint")
    add("--out", type=Path, required=True, metavar="FILE", help="file to write (.safetensors or .npz)")
    return parser


def work(args: argparse.Namespace) -> None:
    from .. import runtime

    cli.check_folders(args.out)
    runtime.tune()
    runtime.set_device("cpu")

    from ..interop.weights import export_weights, import_weights
    from ..run import Run

    if args.what == "export":
        note = export_weights(args.peer, Run(args.run), args.out)
        if note:
            logging.getLogger("paddle_srgnn").warning(note)
        print(f"weights: {args.out}")
        return
    import_weights(args.peer, args.file, args.out, args.step, args.length)
    checkpoint = Run(args.out).checkpoint()
    settings = checkpoint.settings
    scored = "scored" if settings.score_item_zero else "not scored"
    print(f"{checkpoint.n_items} items with the padding, which is {scored}; embedding_dim={settings.embedding_dim}, "
          f"step={settings.step}, max_session_length={settings.max_session_length}")  # fmt: skip
    print(f"run: {args.out}\nnext: {cli.command('evaluate')} {args.out} --data DIR")


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)
