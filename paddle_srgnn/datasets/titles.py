"""Item titles, by raw id, from a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import InputError


def read_titles(path: str | Path) -> dict[str, str]:
    """Read a CSV file with a header and two columns, the raw id and the title of an item.

    Returns:
        The titles by raw id.

    Raises:
        InputError: the file cannot be read, a row does not have two fields, or an id is empty or occurs twice; the
            message names the file and the line.
    """
    titles: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            for number, row in enumerate(filter(None, rows)):
                if len(row) != 2:
                    raise InputError(f"{path}, line {rows.line_num}: {len(row)} fields; expected raw id and title")
                if number and (not row[0] or row[0] in titles):
                    found = f"raw id {row[0]!r} occurs twice" if row[0] else "the raw id is empty"
                    raise InputError(f"{path}, line {rows.line_num}: {found}; expected each item once")
                if number:
                    titles[row[0]] = row[1]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not CSV ({error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after line {rows.line_num}: not UTF-8 ({error.reason})") from None
    if not titles:
        raise InputError(f"{path}: no titles; expected a header and a row of raw id and title for each item")
    return titles
