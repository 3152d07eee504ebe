"""Whom the server answers, what it takes, and what it lets a browser do."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tenfold.web import guard, server
from tenfold.web.pages import Call, Media
from tenfold.web.session import Stale

PORT, TOKEN = 8765, "t" * 43
OWN = f"http://127.0.0.1:{PORT}"


class Page:
    """A page that remembers what reached it."""

    page = "apis"

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.queries = {"state": Call(lambda: {"ok": 1}), "at": Call(self.keep, {"image": int})}
        self.commands = {
            "say": Call(self.keep, {"text": str}, {"deep": list, "n": int}),
            "fail": Call(self.fail, {"how": str}),
        }

    def keep(self, **given: Any) -> dict[str, Any]:
        self.seen.append(given)
        return {"kept": len(self.seen)}

    def fail(self, how: str) -> dict[str, Any]:
        raise {
            "stale": Stale("old"),
            "value": ValueError("bad\x1b"),
            "lookup": LookupError("no"),
            "full": OSError(28, "No space left on device"),
            "bug": RuntimeError("secret"),
        }[how]

    def image(self, index: int) -> Media:
        if index:
            raise LookupError(f"there is no picture {index}")
        return Media(b"png", "image/png")

    def export(self, form: str) -> Media:
        return Media(b"{}", "application/json", 'a "b"\r\nx: y.json')

    def predict(self, tasks: list[Any], context: Any, config: str) -> list[dict[str, Any]]:
        return [{"result": [], "score": 0.0} for _ in tasks]

    def version(self) -> str:
        return "model 0"

    def close(self) -> None:
        pass


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def client(page: Page) -> Iterator[TestClient]:
    app = server.application(page, TOKEN, PORT)
    yield TestClient(app, base_url=OWN, headers={guard.TOKEN: TOKEN}, raise_server_exceptions=False)  # type: ignore[arg-type]


def test_the_page_and_its_files_need_no_token_and_tell_nothing(client: TestClient) -> None:
    del client.headers[guard.TOKEN]
    found = client.get("/")
    assert found.status_code == 200 and "<script type=" in found.text
    assert TOKEN not in found.text
    for name in server.static_files():
        assert client.get(f"/static/{name}").status_code == 200
    kind = client.get("/static/apis.js").headers["content-type"]
    assert kind == "text/javascript; charset=utf-8"


def test_no_page_has_script_or_style_inline_or_of_elsewhere() -> None:
    for name, content in server.static_files().items():
        text = content.decode()
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), name
        if name.endswith(".html"):
            assert " style=" not in text and "<style" not in text and " onclick" not in text
            assert text.count("<script") == text.count('<script type="module" src="/static/')
        if name.endswith(".js"):
            for unsafe in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ):
                assert unsafe not in text, name


@pytest.mark.parametrize(
    "path", ["/", "/api/state", "/static/style.css", "/nowhere", "/api/at?image=x"]
)
def test_every_answer_forbids_what_a_page_does_not_need(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    for name, value in guard.HEADERS.items():
        assert headers[name] == value
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "set-cookie" not in headers and "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OWN}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"host": f"localhost:{PORT}"}, 200),
        ({"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}, 200),
        ({guard.TOKEN: ""}, 401),
        ({guard.TOKEN: TOKEN[:-1]}, 401),
        ({guard.TOKEN: TOKEN + "t"}, 401),
        ({guard.TOKEN: "\u00e9".encode("latin-1")}, 401),
        ({"host": f"evil.example:{PORT}"}, 403),  # DNS rebinding
        ({"host": f"127.0.0.1.evil.example:{PORT}"}, 403),
        ({"host": "127.0.0.1"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://localhost:{PORT}"}, 403),  # another name than the Host's
        ({"origin": f"https://127.0.0.1:{PORT}"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),  # another server on this machine
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_who_is_answered(
    client: TestClient, page: Page, headers: dict[str, Any], status: int
) -> None:
    assert client.get("/api/state", headers=headers).status_code == status
    said = client.post("/api/say", json={"text": "x"}, headers=headers)
    assert said.status_code == status and bool(page.seen) == (status == 200)


def test_a_link_elsewhere_may_lead_to_the_page_but_to_nothing_else(client: TestClient) -> None:
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=visit).status_code == 200
    assert client.get("/api/state", headers=visit).status_code == 403
    framed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/", headers=framed).status_code == 403


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b'{"text": "x"}', "application/json; charset=utf-8", 200, ""),
        (b'{"text": "x"}', "text/plain", 415, "send JSON"),  # what a form of another site can send
        (b'{"text": "x"}', "application/x-www-form-urlencoded", 415, "send JSON"),
        (b"{", "application/json", 400, "Expecting"),
        (b"[]", "application/json", 400, "send a JSON object"),
        (b"\xff", "application/json", 400, "decode"),
        (b'{"text": 3}', "application/json", 400, "text must be a text, got 3"),
        (b'{"text": "x", "n": true}', "application/json", 400, "n must be a whole number"),
        (b'{"n": 1}', "application/json", 400, "text is missing"),
        (b'{"text": "x", "z": 1}', "application/json", 400, "'z' is unknown"),
        (b"[" * 20_000, "application/json", 400, "nested too deeply"),
        (b'{"text": "x", "deep": ' + b"[" * 40 + b"]" * 40 + b"}", "application/json", 400, "deep"),
        (b'{"text": "\\ud800"}', "application/json", 400, "half of a character"),
        (b"x" * (guard.MOST_BODY + 1), "application/json", 413, "more than 65536 bytes"),
    ],
)
def test_what_is_taken(
    client: TestClient, page: Page, body: bytes, kind: str, status: int, says: str
) -> None:
    found = client.post("/api/say", content=body, headers={"content-type": kind})
    assert found.status_code == status and says in found.text
    assert len(page.seen) == (status == 200)


def test_a_body_without_a_length_is_bounded_too(client: TestClient, page: Page) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    kind = {"content-type": "application/json"}
    assert client.post("/api/say", content=parts(), headers=kind).status_code == 413
    assert not page.seen


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ("stale", 409, '"stale":true'),
        ("value", 400, "bad\ufffd"),
        ("lookup", 404, "no"),
        ("full", 507, "No space left"),
        ("bug", 500, "its terminal says how"),
    ],
)
def test_errors_are_json_and_tell_no_secrets(
    client: TestClient, how: str, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = client.post("/api/fail", json={"how": how})
    assert found.status_code == status and says in found.text and "secret" not in found.text
    assert ("RuntimeError: secret" in capsys.readouterr().err) == (how == "bug")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py",
        "/static/%2e%2e%2fserver.py", "/static//etc/passwd", "/static/apis.js%00",
        "/api/image/../0", "/api/image/-1", "/api/image/a", "/api/image/7", "/api/nothing",
        "/api/at", "/api/at?image=-1", "/api/at?image=1e3", "/api/at?image=9999999999999",
        "/api/at?image=1&path=/etc/passwd", "/api/image/%2fetc%2fpasswd", "/token",
    ],
)  # fmt: skip
def test_there_is_no_way_to_other_files(client: TestClient, page: Page, path: str) -> None:
    found = client.get(path)
    assert found.status_code in (400, 404) and "root:" not in found.text and not page.seen


def test_pictures_and_downloads(client: TestClient) -> None:
    picture = client.get("/api/image/0")
    assert picture.content == b"png" and picture.headers["content-type"] == "image/png"
    told = client.get("/api/export/coco").headers["content-disposition"]
    assert told == "attachment; filename*=UTF-8''a%20%22b%22%0D%0Ax%3A%20y.json"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods(client: TestClient, method: str) -> None:
    assert client.request(method, "/api/say").status_code == 405


def test_label_studio_has_its_token_in_the_path(client: TestClient) -> None:
    del client.headers[guard.TOKEN]
    base = f"/studio/{TOKEN}"
    assert client.get(f"{base}/health").json()["status"] == "UP"
    said = client.post(f"{base}/setup", json={"project": "1"}).json()
    assert said == {"model_version": "model 0"}
    sent = {"tasks": [{"id": 1, "data": {"image": "a.png"}}], "label_config": "<View/>",
            "project": "1.2", "params": {"context": None}, "model_version": None}  # fmt: skip
    found = client.post(f"{base}/predict", json=sent).json()
    assert found == {"results": [{"result": [], "score": 0.0}], "model_version": "model 0"}
    assert client.post(f"{base}/predict", json={"tasks": [{"data": 3}]}).status_code == 400
    none = client.post(f"{base}/predict", json={"tasks": [{"data": {}}, {"id": 2}]})
    assert none.status_code == 400 and none.json() == {"error": "tasks[1].data is missing"}
    assert client.get(f"{base}/nothing").status_code == 404
    assert client.get("/studio/wrong/health").status_code == 401
    assert client.get("/studio/").status_code == 401


def test_the_token_is_new_each_time_but_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with server._token(file) as first:
        assert len(first) == 43 and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.exists()
    file.write_text(first)
    file.chmod(0o600)  # as a killed server leaves it
    with server._token(file) as kept:
        assert kept == first
    for text, mode in ((first, 0o644), ("x", 0o600), ("\u00e9" * 43, 0o600), ("y" * 200, 0o600)):
        file.write_text(text)
        file.chmod(mode)
        with server._token(file) as other:
            assert other != text and len(other) == 43
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="token is a link"), server._token(file):
        pass


def test_it_listens_on_this_machine_only_and_says_if_a_port_is_taken() -> None:
    with server.listening(0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # answers are sent at once
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(ValueError, match=f"port {port} cannot be had .*--port"):
            with server.listening(port):
                pass
