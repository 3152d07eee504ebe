"""The verb `data` of the command line: what sets there are, check, prepare, get."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from tenfold.core.errors import nearest, require_file_or_folder
from tenfold.printable import printable

from .arguments import add_row, parse, positional, say, show, table_of


def data(rest: list[str]) -> None:
    """List data sets, check, prepare or get them."""
    usage = (
        "usage: tenfold data                         a table of all data sets\n"
        "       tenfold data info NAME               where it is from, licence, layout\n"
        "       tenfold data check [NAME] [--path P] counts, shapes, ranges; names each bad file\n"
        "       tenfold data prepare NAME SOURCE OUT original files to the compact form\n"
        "       tenfold data get NAME OUT            download it, where it is a plain download\n"
        "       tenfold data tokenise SOURCE OUT     text of any size to tokens, for ppmoe\n\n"
        "Data is looked for under $TENFOLD_DATA/<name>. What is not found is generated, and every\n"
        "result says so."
    )
    actions = {
        "info": _data_info, "check": _data_check, "prepare": _data_prepare, "get": _data_get,
        "tokenise": _data_tokenise,
    }  # fmt: skip
    if not rest:
        _data_table()
    elif rest[0] in ("-h", "--help"):
        say(usage)
    elif rest[0] in actions:
        actions[rest[0]](rest[1:])
    else:
        nearest(rest[0], list(actions), "action of `tenfold data`")


def _data_table() -> None:
    from tenfold.data import catalog

    table = table_of("data sets", "name", "what", "kind", "licence", "origin", "size", "present")
    for row in catalog.table():
        add_row(table, row.name, row.what, row.kind, row.licence, row.origin, row.size, row.present)
    show(table)


def _data_info(rest: list[str]) -> None:
    def verb(name: Annotated[str, *positional("NAME")]) -> None:
        """Say what a data set is, where it is from, its licence and its layout.

        Args:
            name: Data set; `tenfold data` lists them.
        """
        from tenfold.data import catalog

        say(catalog.info(name))

    parse(verb, rest, "tenfold data info", [])


def _data_check(rest: list[str]) -> None:
    def verb(
        name: Annotated[str, *positional("NAME")] = "", path: str = "", limit: int = 0
    ) -> None:
        """Check counts, shapes and ranges; name each bad file. Exit code 1 if any is bad.

        Args:
            name: Data set, or `folder` for one of your own (pictures, captions, BVH); by default
                every one that is found, or with --path your own.
            path: Its folder, if it is not under $TENFOLD_DATA.
            limit: Look into at most so many files of each kind; 0 looks into all.
        """
        from tenfold.data import catalog, checks

        if path and not name:
            name = checks.OWN
        names = [name] if name else [n for n in catalog.SETS if catalog.find(n)]
        if not names:
            raise FileNotFoundError("no data found; set TENFOLD_DATA, or give a name and --path")
        bad = 0
        for one in names:
            # absolute, since "." is a path that was given
            given = os.path.abspath(path) if path else ""
            if given:
                require_file_or_folder(Path(given), "--path")
            found = checks.check(one, given, limit=limit)
            bad += len(found.problems)
            count = len(found.problems)
            said = f"{count} problem{'' if count == 1 else 's'}"
            say(f"{one}: {found.files} file{'' if found.files == 1 else 's'}, {said}")
            for problem in found.problems:
                say(printable(f"  BAD {problem.file}: {problem.what}"))
            for note in found.notes:
                say(printable(f"  note: {note}"))
        if bad:
            sys.exit(1)

    parse(verb, rest, "tenfold data check", ["--path", "--limit"])


def _data_prepare(rest: list[str]) -> None:
    def verb(
        name: Annotated[str, *positional("NAME")],
        source: Annotated[Path, *positional("SOURCE")],
        out: Annotated[Path, *positional("OUT")],
        overwrite: bool = False,
    ) -> None:
        """Turn original files into the compact form.

        Args:
            name: Data set.
            source: Folder of the original files.
            out: Folder to write.
            overwrite: Replace what is there.
        """
        from tenfold.data.prepare import prepare

        for path in prepare(name, source, out, overwrite=overwrite):
            say(path)

    parse(verb, rest, "tenfold data prepare", ["--overwrite"])


def _data_get(rest: list[str]) -> None:
    def verb(
        name: Annotated[str, *positional("NAME")], out: Annotated[Path, *positional("OUT")]
    ) -> None:
        """Download a data set that is a plain download; a cut download is resumed.

        Args:
            name: Data set.
            out: Folder to write.
        """
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        from tenfold.data.download import get

        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task(f"{name} (bytes, or files where there are several)", total=None)

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total or None)

            path = get(name, out, progress=advance)
        say(path)

    parse(verb, rest, "tenfold data get", [])


def _data_tokenise(rest: list[str]) -> None:
    def verb(
        source: Annotated[Path, *positional("SOURCE")],
        out: Annotated[Path, *positional("OUT")],
        tokenizer: str = "bpe",
        bpe_vocab: int = 32_000,
        field: str = "text",
    ) -> None:
        """Turn text into tokens on disk, in constant memory; train on them with --data.path OUT.

        Args:
            source: File (plain, .gz, .xz, .jsonl), or folder of such: up to 16 files are a domain
                each, more are grouped by folder.
            out: New folder.
            tokenizer: byte, bpe (learned from the text), or a tokenizer.json.
            bpe_vocab: Vocabulary of bpe.
            field: Field of .jsonl files that holds the text.
        """
        from rich.progress import DownloadColumn, Progress, TimeRemainingColumn

        from tenfold.data.text import shards
        from tenfold.data.text.corpus import walked

        _, files, _ = walked(source)
        made, name = shards.tokenizer_of(tokenizer, bpe_vocab, source, field)
        total = sum(file.stat().st_size for file in files)
        columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task("text", total=total)
            found = shards.write(source, out, made, name, field, lambda n: bar.advance(task, n))
        for one in found.domains:
            say(printable(f"{one.name}: {one.tokens} tokens of {one.bytes} bytes"))
        say(found.note)
        say(out)

    parse(verb, rest, "tenfold data tokenise", ["--tokenizer", "--bpe-vocab", "--field"])
