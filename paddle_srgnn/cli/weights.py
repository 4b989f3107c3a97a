"""Import and export weights of other SR-GNN implementations: Datawhale's, the authors' PyTorch code's, RecBole's."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import cli


def parser() -> argparse.ArgumentParser:
    from ..interop.peers import PEERS, how_to_make_npz

    epilog = f"""\
Files are .safetensors or .npz; --from datawhale also reads .pdparams, without running code in it.
Convert a PyTorch file where torch is installed:
  the authors' state dict:   {how_to_make_npz("authors-pytorch")}
  a checkpoint of RecBole:   {how_to_make_npz("recbole")}
The second command runs code in the file, as RecBole itself does: use it only for files that you trust."""
    common = {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter}
    lengths = ", ".join(f"{peer} {its.max_session_length}" for peer, its in PEERS.items())
    parser = argparse.ArgumentParser("srgnn weights", description=__doc__, **common)
    what = parser.add_subparsers(dest="what", required=True)
    importing = what.add_parser("import", help="make a run from a file of weights", **common)
    importing.add_argument("--from", dest="peer", choices=PEERS, required=True, help="who wrote the file")
    importing.add_argument("file", type=Path, metavar="FILE", help="file of weights")
    importing.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run to make")
    importing.add_argument(
        "--step", type=cli.positive_int, default=1, metavar="N",
        help="message passing steps of the model (default: 1)",
    )  # fmt: skip
    importing.add_argument(
        "--length", type=cli.positive_int, metavar="N",
        help=f"number of most recent clicks to read (default: {lengths})",
    )  # fmt: skip
    exporting = what.add_parser("export", help="write a run's weights for another implementation", **common)
    exporting.add_argument("--to", dest="peer", choices=PEERS, required=True, help="who will read the file")
    exporting.add_argument("run", type=Path, metavar="RUN", help="a run or a checkpoint")
    exporting.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write (.safetensors, .npz)")
    return parser


def work(args: argparse.Namespace) -> None:
    from .. import runtime

    cli.check_folders(args.out)
    runtime.tune()
    runtime.set_device("cpu")
    if args.what == "import":
        import_(args)
    else:
        export(args)


def import_(args: argparse.Namespace) -> None:
    from ..interop.weights import import_weights
    from ..run import Run

    import_weights(args.peer, args.file, args.out, args.step, args.length)
    checkpoint = Run(args.out).checkpoint()
    settings = checkpoint.settings
    scored = "scored" if settings.score_item_zero else "not scored"
    print(f"{checkpoint.n_items} items with the padding, which is {scored}; embedding_dim={settings.embedding_dim}, "
          f"step={settings.step}, max_session_length={settings.max_session_length}")  # fmt: skip
    print(f"run: {args.out}\nnext: {cli.command('evaluate')} {args.out} --data DIR")


def export(args: argparse.Namespace) -> None:
    import logging

    from ..interop.weights import export_weights
    from ..run import Run

    note = export_weights(args.peer, Run(args.run), args.out)
    if note:
        logging.getLogger("paddle_srgnn").warning(note)
    print(f"weights: {args.out}")


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)
