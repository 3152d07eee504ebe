"""Fetch the data sets that are plain downloads: resumable, verified, unpacked safely."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .catalog import entry
from .dataset import Download
from .io.unpack import unpack

Progress = Callable[[int, int], None]

CHUNK = 2**18
TRIES = 5
"""Attempts in a row that may fail without a single new byte."""
WAIT_S = 1.0
"""Pause after the first failure; it doubles with each further one."""
TIMEOUT_S = 30.0
"""Longest silence of a server."""


class _Cut(Exception):
    """The connection broke or the server is busy: worth another try."""


def get(
    name: str,
    out: str | Path,
    *,
    progress: Progress | None = None,
    urls: Sequence[Download] | None = None,
    timeout: float = TIMEOUT_S,
    wait: float = WAIT_S,
) -> Path:
    """Fetch data set `name` into the folder `out` and return that folder.

    An interrupted file stays as `<file>.part` and is continued by the next call; a finished
    file has its checksum verified and is then renamed. Archives are unpacked and removed.
    Files that are complete already are not fetched again.
    `progress(done, total)` counts bytes if there is one file (total 0: not known), files if
    there are several. `urls` replaces the catalogue's downloads (a mirror, a test).

    Raises ValueError for sets without a direct address, wrong checksums, files over their size
    limit and unsafe archives; FileNotFoundError if the server has no such file; ConnectionError
    if it cannot be reached, in which case calling again continues.
    """
    item = entry(name)
    downloads = item.downloads if urls is None else tuple(urls)
    if not downloads:
        raise ValueError(
            f"{name} is not a plain download. To get it: {item.obtain.replace('{name}', name)}."
        )
    out = Path(out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    report = progress or _silent
    for number, download in enumerate(downloads):
        _one(download, out, report if len(downloads) == 1 else _silent, timeout, wait)
        if len(downloads) > 1:
            report(number + 1, len(downloads))
    return out


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def _one(download: Download, out: Path, progress: Progress, timeout: float, wait: float) -> None:
    target = out / download.file
    if download.unpacks_to and (out / download.unpacks_to).is_dir():
        return
    if target.exists():
        if _digest(target, download.checksum) != download.checksum:
            raise ValueError(
                f"{target} exists and is not the file that would be fetched (its checksum is "
                f"{_digest(target, download.checksum)}, expected {download.checksum}). "
                "Move it away."
            )
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        _from_any(download, part, progress, timeout, wait)
        found = _digest(part, download.checksum)
        if found != download.checksum:
            part.unlink()
            raise ValueError(
                f"{download.file} has the checksum {found}, expected {download.checksum}. It was "
                "removed; fetch it again, and if this happens twice the file at "
                f"{download.urls[0]} has changed."
            )
        part.replace(target)
    if download.unpacks_to:
        unpack(target, out, download.unpacks_to)
        target.unlink()


def _digest(file: Path, like: str) -> str:
    """Checksum of a file in the algorithm of the checksum `like`, in the same notation."""
    kind = like.partition(":")[0]
    if kind == "git":  # id of a blob: the header holds the size
        digest = hashlib.sha1(f"blob {file.stat().st_size}\0".encode())
    else:
        digest = hashlib.new(kind)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def _from_any(
    download: Download, part: Path, progress: Progress, timeout: float, wait: float
) -> None:
    """Fetch from the first address that works."""
    for position, url in enumerate(download.urls):
        try:
            _fetch(url, part, download.limit, progress, timeout, wait)
            return
        except (FileNotFoundError, ConnectionError):
            if position == len(download.urls) - 1:
                raise


def _fetch(
    url: str, part: Path, limit: int, progress: Progress, timeout: float, wait: float
) -> None:
    """Fetch one address to `part`, continuing after each cut, with growing pauses."""
    failures = most = 0
    while True:
        try:
            _continue(url, part, limit, progress, timeout)
            return
        except _Cut as cut:
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= TRIES:
                raise ConnectionError(
                    f"{url}: {cut}; gave up after {TRIES} tries. {_size(part)} bytes are kept in "
                    f"{part}: the same command continues there."
                ) from cut
            time.sleep(wait * 2 ** (failures - 1))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(url: str, part: Path, limit: int, progress: Progress, timeout: float) -> None:
    """Ask for what `part` lacks and append it; start anew if the server sends the whole file."""
    start = _size(part)
    headers = {"User-Agent": "tenfold", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = _ask(_request(url, headers), timeout)
    except urllib.error.HTTPError as error:
        error.close()
        _refused(url, error, part)
        return
    with answer:
        done, total = _extent(answer, start)
        with part.open("ab" if done else "wb") as stream:
            while done <= limit and total <= limit and (chunk := _read(answer)):
                stream.write(chunk)
                done += len(chunk)
                progress(done, total)
    if max(done, total) > limit:
        part.unlink()
        raise ValueError(
            f"{url} sends {max(done, total)} bytes or more, the limit is {limit}. It is not the "
            "file that the catalogue describes."
        )
    if total and done != total:
        raise _Cut(f"connection was cut at byte {done} of {total}")


def _ask(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """Open the connection; anything but an answer counts as cut."""
    opener = urllib.request.build_opener(_Redirects)
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:  # OSError: unreachable, reset, timeout
        raise _Cut(f"connection failed ({error})") from error
    return answer


def _read(answer: http.client.HTTPResponse) -> bytes:
    """Read what has come; apart from writing, so that a full disk is not taken for a cut."""
    try:
        return answer.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"connection broke ({error})") from error


def _extent(answer: http.client.HTTPResponse, start: int) -> tuple[int, int]:
    """First byte of the answer, and size of the whole file (0: not stated)."""
    length = int(answer.headers.get("Content-Length") or 0)
    if answer.status != 206:
        return 0, length
    given = answer.headers.get("Content-Range", "")  # bytes 100-199/200
    if not given.startswith(f"bytes {start}-"):
        raise _Cut(f"server answered range {given!r} to bytes {start}-")
    whole = given.rpartition("/")[2]
    return start, int(whole) if whole.isdigit() else start + length


def _refused(url: str, error: urllib.error.HTTPError, part: Path) -> None:
    """Return if `part` is complete already; otherwise raise what the status means."""
    if error.code == 416:  # nothing after the end of `part`
        if error.headers.get("Content-Range", "") == f"bytes */{_size(part)}":
            return
        part.unlink(missing_ok=True)
        raise _Cut("the unfinished file did not fit; starting anew")
    if error.code in (408, 429) or error.code >= 500:
        raise _Cut(f"server answered {error.code} {error.reason}")
    raise FileNotFoundError(
        f"{url}: the server answered {error.code} {error.reason}. The file may have moved: fetch "
        "it by hand, or give another address."
    )


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url}: only http and https addresses are fetched.")
    return urllib.request.Request(url, headers=headers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only, and never from https back to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse a redirect that leaves the web or drops encryption."""
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise ValueError(f"{req.full_url} redirects to {newurl}: that is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
