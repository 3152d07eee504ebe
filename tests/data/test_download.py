"""Downloads against a server in this process; nothing leaves the machine."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tenfold.data import download
from tenfold.data.dataset import Download
from tenfold.data.download import get
from tenfold.data.io.unpack import unpack

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Server(ThreadingHTTPServer):
    """Serves `files`; `cuts` breaks that many answers half-way."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/file.bin": CONTENT}
        self.cuts = 0
        self.busy = 0
        self.has_ranges = True
        self.states_length = True
        self.ranges = []

    def url(self, path="/file.bin"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", server.url())
            self.end_headers()
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/file.bin")
            self.end_headers()
            return
        if server.busy:
            server.busy -= 1
            self.send_error(503)
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        start = int(wanted[6:-1]) if wanted and server.has_ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.states_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            return
        self.wfile.write(body)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):  # a client that has seen enough
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def one(url, content=CONTENT, kind="sha256", limit=0, **more):
    digest = hashlib.new(kind, content).hexdigest()
    return Download((url,), "file.bin", f"{kind}:{digest}", limit or len(content), **more)


def fetch(downloads, out, **more):
    return get("textmix", out, urls=downloads, wait=0.001, timeout=5.0, **more)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_plain(server, tmp_path, kind):
    calls = []
    out = fetch(
        [one(server.url(), kind=kind)], tmp_path / "new", progress=lambda *a: calls.append(a)
    )
    assert (out / "file.bin").read_bytes() == CONTENT
    assert [file.name for file in out.iterdir()] == ["file.bin"]
    assert calls[-1] == (len(CONTENT), len(CONTENT)) and calls == sorted(calls)
    fetch([one(server.url(), kind=kind)], out)  # complete: not asked for again
    assert server.ranges == [None]


def test_git_blob_checksum(server, tmp_path):
    # git hash-object of a file that holds "hello\n"
    server.files["/hello"] = b"hello\n"
    blob = Download(
        (server.url("/hello"),), "a/b.txt", "git:ce013625030ba8dba906f756967f9e9ca394464a", 6
    )
    assert (fetch([blob], tmp_path) / "a/b.txt").read_text() == "hello\n"


def test_cut_connection_is_continued(server, tmp_path):
    server.cuts = 2
    fetch([one(server.url())], tmp_path)
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_an_earlier_part_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1234])
    calls = []
    fetch([one(server.url())], tmp_path, progress=lambda *a: calls.append(a))
    assert server.ranges == ["bytes=1234-"] and calls[0][0] > 1234
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_complete_part_is_only_verified(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch([one(server.url())], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_is_too_long_starts_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"x")
    fetch([one(server.url())], tmp_path)
    assert server.ranges == [f"bytes={len(CONTENT) + 1}-", None]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_server_without_ranges(server, tmp_path):
    server.has_ranges, server.cuts = False, 1
    fetch([one(server.url())], tmp_path)
    assert len(server.ranges) == 2
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_busy_server_is_asked_again(server, tmp_path):
    server.busy = 3
    fetch([one(server.url())], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_gives_up_and_keeps_the_part(server, tmp_path):
    server.has_ranges, server.cuts = False, 99
    with pytest.raises(ConnectionError, match=r"cut at byte 512000 of 1024000; gave up after 5"):
        fetch([one(server.url())], tmp_path)
    assert (tmp_path / "file.bin.part").stat().st_size == len(CONTENT) // 2
    server.has_ranges, server.cuts = True, 0
    fetch([one(server.url())], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_unreachable(tmp_path, server):
    url = server.url()
    server.server_close()
    with pytest.raises(ConnectionError, match="connection failed"):
        fetch([one(url)], tmp_path)


def test_wrong_checksum(server, tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    wrong = Download((server.url(),), "file.bin", f"sha256:{other}", len(CONTENT))
    with pytest.raises(ValueError) as error:
        fetch([wrong], tmp_path)
    assert other in str(error.value)
    assert hashlib.sha256(CONTENT).hexdigest() in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_user_is_not_overwritten(server, tmp_path):
    (tmp_path / "file.bin").write_text("mine")
    with pytest.raises(ValueError, match="Move it away"):
        fetch([one(server.url())], tmp_path)
    assert (tmp_path / "file.bin").read_text() == "mine"


@pytest.mark.parametrize("states_length", [True, False])
def test_larger_than_the_limit(server, tmp_path, states_length):
    server.states_length = states_length
    with pytest.raises(ValueError, match="the limit is 1000"):
        fetch([one(server.url(), limit=1000)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_not_there(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="404"):
        fetch([one(server.url("/nothing"))], tmp_path)


def test_second_address(server, tmp_path):
    item = one(server.url())
    both = Download((server.url("/nothing"), *item.urls), item.file, item.checksum, item.limit)
    assert (fetch([both], tmp_path) / "file.bin").read_bytes() == CONTENT


def test_redirects(server, tmp_path):
    fetch([one(server.url("/moved"))], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    with pytest.raises(ValueError, match="redirects to ftp:"):
        fetch([one(server.url("/elsewhere"))], tmp_path)
    with pytest.raises(ValueError, match="only http and https"):
        fetch([one("file:///etc/hostname")], tmp_path)


def test_several_files_count_files(server, tmp_path):
    calls = []
    items = []
    for i in range(3):
        server.files[f"/{i}"] = b"%d" % i
        digest = hashlib.md5(b"%d" % i).hexdigest()
        items.append(Download((server.url(f"/{i}"),), f"d/{i}", f"md5:{digest}", 9))
    fetch(items, tmp_path, progress=lambda *a: calls.append(a))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert sorted(file.name for file in (tmp_path / "d").iterdir()) == ["0", "1", "2"]


def test_sets_without_an_address(tmp_path):
    with pytest.raises(ValueError, match="not a plain download"):
        get("camvid", tmp_path)
    with pytest.raises(ValueError, match="'cifar100'"):
        get("cifar10", tmp_path)


# Archives


def tar(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            info.linkname = "/etc/hostname" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


GOOD = [("./set/", b"", tarfile.DIRTYPE), ("set/a/b", b"12", tarfile.REGTYPE)]


@pytest.mark.parametrize("make", [lambda: tar(GOOD), lambda: zipped([("set/a/b", "12")])])
def test_archives_are_unpacked_and_removed(server, tmp_path, make):
    content = server.files["/file.bin"] = make()
    item = one(server.url(), content, unpacks_to="set")
    fetch([item], tmp_path)
    assert (tmp_path / "set/a/b").read_text() == "12"
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
    fetch([item], tmp_path)  # unpacked already: not asked for again
    assert len(server.ranges) == 1


BAD = {
    "leaves by ..": tar([*GOOD, ("set/../../evil", b"x", tarfile.REGTYPE)]),
    "absolute": tar([*GOOD, ("/tmp/evil", b"x", tarfile.REGTYPE)]),
    "symbolic link": tar([*GOOD, ("set/link", b"", tarfile.SYMTYPE)]),
    "hard link": tar([*GOOD, ("set/link", b"", tarfile.LNKTYPE)]),
    "device": tar([*GOOD, ("set/dev", b"", tarfile.CHRTYPE)]),
    "zip leaves by ..": zipped([("set/a", "1"), ("../evil", "x")]),
    "zip leaves by backslash": zipped([("set/a", "1"), ("..\\evil", "x")]),
    "zip drive": zipped([("set/a", "1"), ("C:/evil", "x")]),
}


@pytest.mark.parametrize("trick", BAD)
def test_unsafe_archives_are_refused(server, tmp_path, trick):
    out = tmp_path / "out"
    content = server.files["/file.bin"] = BAD[trick]
    with pytest.raises(ValueError, match="refused"):
        fetch([one(server.url(), content, unpacks_to="set")], out)
    assert [file.name for file in out.iterdir()] == ["file.bin"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_zip_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(ValueError, match="a link: refused"):
        unpack(tmp_path / "a.zip", tmp_path, "set")


@pytest.mark.parametrize(
    "content", [tar(GOOD * 3), zipped([(f"set/{i}", "123") for i in range(6)])]
)
def test_archive_limits(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="more than 5 bytes"):
        unpack(tmp_path / "a", tmp_path, "set", max_bytes=5)
    with pytest.raises(ValueError, match="or 4 files"):
        unpack(tmp_path / "a", tmp_path, "set", max_files=4)
    assert not (tmp_path / "set").exists()


def test_damaged_and_foreign_archives(tmp_path):
    big = tar([("set/a", bytes(100_000), tarfile.REGTYPE)])
    (tmp_path / "a").write_bytes(big[: len(big) // 2])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(tmp_path / "a", tmp_path, "set")
    (tmp_path / "a").write_bytes(big)
    with pytest.raises(ValueError, match="does not hold the folder 'other'"):
        unpack(tmp_path / "a", tmp_path, "other")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_defaults_are_patient():
    assert download.TRIES * download.WAIT_S >= 5 and download.TIMEOUT_S >= 10
