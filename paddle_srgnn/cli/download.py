"""Download a benchmark's raw log for `srgnn preprocess`. Run the command again to resume an interrupted download."""

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
    parser.add_argument("dataset", choices=list(NEXT), help="the benchmark")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder, created if needed")
    parser.add_argument("--url", help="download from this URL, also a .gz or .zip (default: the dataset's mirror)")
    parser.add_argument("--sha256", type=sha256, metavar="HEX", help="expected SHA-256 (default: not checked)")
    return parser


def work(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..datasets.download import SOURCES, check_url, download
    from ..errors import InputError, WorkFailed

    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file; expected a folder")
    source = SOURCES[args.dataset]
    url = args.url or source.url
    check_url(url)
    suffix = Path(urlsplit(url).path).suffix
    path = args.out / (source.file + (suffix if suffix in (".gz", ".zip") else ""))
    then = f"{cli.command('preprocess')} {args.dataset} --raw {shlex.quote(str(path))} {NEXT[args.dataset]}"
    pause = 0.1 if sys.stderr.isatty() else 60  # seconds between updates of the progress bar
    look = {"unit": "B", "unit_scale": True, "leave": False, "delay": pause, "mininterval": pause}

    def progress(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        with tqdm(desc=path.name, **look) as bar:
            fetched = download(url, path, args.sha256, progress=progress)
    except WorkFailed as error:
        raise WorkFailed(f"{error}. Or download {url} elsewhere, put it at {path}, then: {then}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command again to resume") from None
    checked = ", SHA-256 matches" if args.sha256 else ""
    done = "downloaded" if fetched else "exists already"
    print(f"{path}: {path.stat().st_size:,} bytes, {done}{checked}; next: {then}")


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)
