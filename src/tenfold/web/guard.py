"""Who may ask a server on this machine for what: checked before anything is read or done.

A page of another site can make a browser send requests to 127.0.0.1, and with a name of its own
that it lets point there (DNS rebinding) even read the answers. So the name in `Host` must be ours,
`Origin` and `Sec-Fetch-Site` must not speak of others, and everything but the page's own static
files needs a token, which no other site knows, in a header that no other site can set. There are
no cookies: those would go to every port of this machine.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "x-tenfold-token"
"""Header of the token."""
STUDIO = "/studio/"
"""Where Label Studio, which cannot send headers of ours, has the token in the path."""
MOST_BODY, MOST_STUDIO_BODY = 64 * 1024, 8 * 1024 * 1024
"""Bytes of a body: a page sends a few numbers, Label Studio whole tasks."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""Of every answer, errors included."""


class TooLarge(Exception):
    """A body has more bytes than are taken; raised where it is read."""


class Guard:
    """A server behind its checks.

    Args:
        app: What answers those who pass.
        token: Secret of this server.
        port: Where it listens.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        if port == 80:
            self._hosts |= {"127.0.0.1", "localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":  # no web sockets
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(k, v) for k, v in message["headers"] if k.decode().lower() not in HEADERS]
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*own, *added]}
            await send(message)

        status, problem = self._problem(scope)
        if problem:
            await refuse(answer, status, problem)
            return
        limit = MOST_STUDIO_BODY if scope["path"].startswith(STUDIO) else MOST_BODY
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLarge(f"more than {limit} bytes were sent")
            return message

        await self._app(scope, bounded, answer)

    def _problem(self, scope: Scope) -> tuple[int, str]:
        """Status and words of what is wrong with a request; 0 if nothing is."""
        given: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = given.get("host", [])
        path, method = scope["path"], scope["method"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, "this server answers to 127.0.0.1 and localhost only"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "only GET and POST are answered"
        origins = given.get("origin", [])
        if origins and origins != [f"http://{hosts[0]}"]:
            return 403, "the request comes from another site"
        site = given.get("sec-fetch-site", ["none"])
        is_visit = path == "/" and method == "GET" and given.get("sec-fetch-mode") == ["navigate"]
        if site not in (["none"], ["same-origin"]) and not is_visit:
            return 403, "the request comes from another site"
        if path.startswith("/api/") and not self._is_ours(given.get(TOKEN, [])):
            return 401, "the token is missing or old; open the address that the server printed"
        if path.startswith(STUDIO) and not self._is_ours([path.split("/")[2]]):
            return 401, "the token in the path is wrong; give the address that the server printed"
        if method == "POST":
            kind = given.get("content-type", [""])[0].partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "send JSON, as application/json"
        limit = MOST_STUDIO_BODY if path.startswith(STUDIO) else MOST_BODY
        length = given.get("content-length", ["0"])
        if len(length) != 1 or not length[0].isdecimal() or int(length[0][:20]) > limit:
            return 413, f"more than {limit} bytes were sent"
        return 0, ""

    def _is_ours(self, tokens: list[str]) -> bool:
        return len(tokens) == 1 and hmac.compare_digest(tokens[0].encode(), self._token)


async def refuse(send: Send, status: int, problem: str) -> None:
    """Answer with an error."""
    body = json.dumps({"error": problem}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
               (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
