"""Fetch a benchmark's raw log, as srgnn preprocess reads it. What broke off goes on where it stopped."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

from .. import cli

NEXT = {"diginetica": "--out data/diginetica", "yoochoose": "--fraction 1/64 --out data/yoochoose1_64"}


def sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text} is not a SHA-256: expected 64 hexadecimal digits")
    return text.lower()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn download", description=__doc__)
    parser.add_argument("dataset", choices=list(NEXT))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the file")
    parser.add_argument("--url", help="fetch from here; a .gz or .zip is kept as one (default: the dataset's mirror)")
    parser.add_argument("--sha256", type=sha256, metavar="HEX", help="what the file's SHA-256 must be")
    return parser


def work(args: argparse.Namespace) -> None:
    from ..datasets.download import SOURCES, download
    from ..errors import InputError, WorkFailed

    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file; expected a folder")
    source = SOURCES[args.dataset]
    url = args.url or source.url
    suffix = Path(urlsplit(url).path).suffix
    path = args.out / (source.file + (suffix if suffix in (".gz", ".zip") else ""))
    then = f"{cli.command('preprocess')} {args.dataset} --raw {shlex.quote(str(path))} {NEXT[args.dataset]}"
    try:
        fetched = fetch(download, url, path, args.sha256)
    except WorkFailed as error:
        raise WorkFailed(f"{error}. By hand: fetch {url} elsewhere, put it at {path}, then: {then}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    checked = ", its SHA-256 is as given" if args.sha256 else ""
    print(f"{path}: {path.stat().st_size:,} bytes, {'fetched' if fetched else 'there already'}{checked}; next: {then}")


def fetch(download, url: str, path: Path, digest: str | None) -> bool:
    """`download` with a bar on stderr: a live one on a terminal, a line a minute in a log."""
    from tqdm import tqdm

    pause = 0.1 if sys.stderr.isatty() else 60
    look = {"unit": "B", "unit_scale": True, "leave": False, "delay": pause, "mininterval": pause}
    with tqdm(desc=path.name, **look) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return download(url, path, digest, progress=progress)


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)
