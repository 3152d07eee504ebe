"""Unpack tar and zip archives that come from elsewhere."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

MAX_BYTES = 20 * 2**30
"""Most bytes an archive may unpack to."""
MAX_FILES = 500_000


def unpack(
    archive: Path, out: Path, folder: str, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> Path:
    """Unpack the top-level `folder` of a tar or zip archive into `out`, all of it or nothing.

    Members outside `folder` are ignored. Raises ValueError for members that would leave `out`,
    for links and devices, for archives that unpack to more than the limits, and for damage.
    """
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=out) as name:
        temporary = Path(name)
        try:
            if zipfile.is_zipfile(archive):
                _zip(archive, temporary, max_bytes, max_files)
            else:
                _tar(archive, temporary, max_bytes, max_files)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{archive} cannot be unpacked: {error}. Fetch it again.") from error
        if not (temporary / folder).is_dir():
            raise ValueError(f"{archive} does not hold the folder {folder!r}.")
        (temporary / folder).rename(out / folder)
    return out / folder


def _tar(archive: Path, out: Path, max_bytes: int, max_files: int) -> None:
    total = 0
    with tarfile.open(archive) as tar:
        for number, member in enumerate(tar, 1):
            total += member.size
            _admit(archive, member.name, number, total, max_bytes, max_files)
            if not (member.isfile() or member.isdir()):
                raise ValueError(f"{archive} holds {member.name}, a link or device: refused.")
            tar.extract(member, out, filter="data")


def _zip(archive: Path, out: Path, max_bytes: int, max_files: int) -> None:
    total = 0
    with zipfile.ZipFile(archive) as data:
        for number, member in enumerate(data.infolist(), 1):
            total += member.file_size
            _admit(archive, member.filename, number, total, max_bytes, max_files)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"{archive} holds {member.filename}, a link: refused.")
            target = out / member.filename
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # zipfile reads no further than the size that was counted above
            with data.open(member) as packed, target.open("wb") as stream:
                shutil.copyfileobj(packed, stream)


def _admit(
    archive: Path, name: str, number: int, total: int, max_bytes: int, max_files: int
) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]:
        raise ValueError(f"{archive} holds {name!r}, which would leave the output folder: refused.")
    if number > max_files or total > max_bytes:
        raise ValueError(
            f"{archive} unpacks to more than {max_bytes} bytes or {max_files} files: refused."
        )
