"""The server of a labelling page: on 127.0.0.1, for whoever has its address, files by a list.

No text of users or files becomes HTML: pages are static, and get JSON and pictures.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tenfold.extras import install
from tenfold.files import misfit, parse_json, write_bytes
from tenfold.printable import shown

from .guard import App, Guard, TooLarge
from .pages import Call, Labelling, Media, Predicts
from .session import Stale

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}  # fmt: skip
"""Endings of the static files."""
DEEPEST = 32
"""Lists and objects within one another in what is sent."""
NOTES = "x-tenfold-notes"
"""Header of words about a download."""
MOST_REQUESTS = 64
"""Requests at once."""


def require_packages() -> None:
    """Raise ModuleNotFoundError with the command that installs what a server needs."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a labelling page needs starlette and uvicorn: {install('web')}"
        ) from error


def serve(
    labelling: Labelling, port: int, folder: Path, say: Callable[[str], None] = print
) -> None:
    """Serve a page until SIGINT or SIGTERM.

    Args:
        labelling: What the page is about.
        port: Where to listen on 127.0.0.1; 0 is any that is free.
        folder: Where the token is kept, for as long as the server has not ended by itself: the open
            pages of one that was killed go on when it is started again.
        say: Told the addresses, once the server listens.

    Raises:
        ValueError: The port is taken, or none.
        ModuleNotFoundError: The extra `web` is not installed.
    """
    require_packages()
    import uvicorn

    with listening(port) as listener, _token(folder / "token") as token:
        port = listener.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(
                application(labelling, token, port), http="h11", ws="none", lifespan="off",
                log_level="warning", access_log=False, server_header=False,
                limit_concurrency=MOST_REQUESTS, timeout_graceful_shutdown=5,
            )
        )  # fmt: skip
        say(f"http://{HOST}:{port}/#{token}")
        if isinstance(labelling, Predicts):
            say(f"Label Studio: http://{HOST}:{port}/studio/{token}")
        if threading.current_thread() is threading.main_thread():
            # uvicorn raises the signal again when it has ended: then what is open is closed
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket on 127.0.0.1; ValueError if the port is taken."""
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else the body of an
    # answer waits 40 ms for the receipt of its header
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()  # from now on a browser waits for the server
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be had ({error.strerror}); give another --port, or 0 for any"
            ) from error
        yield listener
    finally:
        listener.close()


@contextlib.contextmanager
def _token(file: Path) -> Iterator[str]:
    """The token of a killed server in this place, or a new one; gone when this one ends."""
    token = ""
    if file.is_symlink():
        raise ValueError(f"{file} is a link, which is not followed; delete it")
    if file.is_file() and file.stat().st_mode & 0o077 == 0 and file.stat().st_size < 100:
        token = file.read_text(encoding="ascii", errors="replace").strip()
    if len(token) != 43 or not token.replace("-", "").replace("_", "").isalnum():
        token = secrets.token_urlsafe(32)
        previous = os.umask(0o077)
        try:
            write_bytes(file, token.encode())
        finally:
            os.umask(previous)
    try:
        yield token
    finally:
        file.unlink(missing_ok=True)


def application(labelling: Labelling, token: str, port: int) -> App:
    """The server's answers, behind its checks."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    static = static_files()

    def page(request: Request) -> Response:
        return Response(static[f"{labelling.page}.html"], media_type=KINDS[".html"])

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in static:
            raise FileNotFoundError("there is no such file")
        return Response(static[name], media_type=KINDS[os.path.splitext(name)[1]])

    def image(request: Request) -> Response:
        return _media(labelling.image(request.path_params["index"]))

    def export(request: Request) -> Response:
        return _media(labelling.export(request.path_params["form"]))

    def query(request: Request) -> Response:
        call = _named(labelling.queries, request.path_params["name"])
        asked = {name: _whole(name, text) for name, text in request.query_params.items()}
        return JSONResponse(_checked(call, asked))

    def act(call: Call, body: bytes) -> Response:
        return JSONResponse(_checked(call, _json(body)))

    async def command(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        call = _named(labelling.commands, request.path_params["name"])
        return await run_in_threadpool(act, call, await request.body())

    async def studio(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        if not isinstance(labelling, Predicts):
            raise FileNotFoundError("this page does not answer Label Studio")
        what = request.path_params["what"]
        if what == "health":
            return JSONResponse({"status": "UP", "model_class": labelling.page})
        if what == "setup":
            return JSONResponse({"model_version": labelling.version()})
        if what != "predict" or request.method != "POST":
            raise FileNotFoundError(f"there is no {what[:40]!r} here")
        return await run_in_threadpool(act, Call(predict, STUDIO_TASKS, dict(STUDIO_MORE)),
                                       await request.body())  # fmt: skip

    def predict(tasks: list[Any], **more: Any) -> dict[str, Any]:
        assert isinstance(labelling, Predicts)
        context = (more.get("params") or {}).get("context") or {}
        if not isinstance(context, dict):
            raise ValueError("params.context must be an object")
        for place, task in enumerate(tasks):
            if "data" not in task:
                raise ValueError(f"tasks[{place}].data is missing")
        found = labelling.predict(tasks, context, more.get("label_config") or "")
        return {"results": found, "model_version": labelling.version()}

    handlers: dict[Any, Any] = {kind: partial(_problem, status) for kind, status in STATUS.items()}
    handlers[Exception] = _bug
    routes = [
        Route("/", page),
        Route("/static/{name}", file),
        Route("/api/image/{index:int}", image),
        Route("/api/export/{form}", export),
        Route("/api/{name}", query),
        Route("/api/{name}", command, methods=["POST"]),
        Route("/studio/{token}/{what}", studio, methods=["GET", "POST"]),
    ]
    app: App = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, token, port)


STATUS: dict[type[Exception], int] = {
    Stale: 409, TooLarge: 413, ValueError: 400, LookupError: 404, FileNotFoundError: 404,
    OSError: 507,
}  # fmt: skip
"""What an error is in HTTP; 507, a disk that is full or gone, is tried again."""
STUDIO_TASKS = {"tasks": [{"data": dict}]}
STUDIO_MORE = {
    "params": (dict, None), "label_config": (str, None), "project": (str, None, dict, int),
    "force_reload": object, "try_fetch": object, "model_version": object, "hostname": object,
    "access_token": object, "schema": object, "extra_params": object,
}  # fmt: skip
"""What Label Studio sends beside its tasks."""


def static_files() -> dict[str, bytes]:
    """The files that pages are made of, by name."""
    folder = files("tenfold.web").joinpath("static")
    return {
        item.name: item.read_bytes()
        for item in folder.iterdir()
        if os.path.splitext(item.name)[1] in KINDS
    }


def _named(calls: Mapping[str, Call], name: str) -> Call:
    if name not in calls:
        raise FileNotFoundError(f"there is no {name[:40]!r} here")
    return calls[name]


def _checked(call: Call, given: dict[str, Any]) -> dict[str, Any]:
    """Call with fields whose names and shapes were looked at."""
    shape = {**call.needs, **call.takes}
    problem = misfit(given, shape, "")
    absent = [name for name in call.needs if name not in given]
    unknown = [name for name in given if name not in shape]
    if problem or absent or unknown:
        raise ValueError(
            problem
            or (f"{', '.join(absent)} is missing" if absent else f"{unknown[0][:40]!r} is unknown")
        )
    return call.run(**given)


def _json(body: bytes) -> dict[str, Any]:
    """An object of bounded depth."""
    value = parse_json(body.decode("utf-8"))
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"what was sent is nested more than {DEEPEST} deep")
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level]
        level = [item for v in inner if isinstance(v, list) for item in v]
    if not isinstance(value, dict):
        raise ValueError("send a JSON object")
    return value


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise ValueError(f"{name[:40]} must be a whole number, got {text[:40]!r}")
    return int(text)


def _media(media: Media) -> Response:
    from starlette.responses import Response

    headers = {}
    if media.notes:
        headers[NOTES] = quote("; ".join(media.notes)[:2000])
    if media.name:
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(media.name)}"
    return Response(media.content, media_type=media.kind, headers=headers)


async def _problem(status: int, request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    stale = {"stale": True} if isinstance(error, Stale) else {}
    return JSONResponse({"error": shown(error), **stale}, status)


async def _bug(request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    traceback.print_exception(error, file=sys.stderr)
    return JSONResponse({"error": "the server failed; its terminal says how"}, 500)
