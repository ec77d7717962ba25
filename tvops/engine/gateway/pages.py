"""The files of the web page: an ASGI application that uvicorn runs for everything that is not the API."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from tvops.engine.gateway.calls import refusal
from tvops.engine.gateway.problems import CODES, REASON_TITLES, problem

STATIC = Path(__file__).parents[2] / "web" / "static"

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_CODES = {404: "not_found", 405: "method_not_allowed"}
_ERRORS = "".join(
    f"{code:<24} {status}  {title}\n"
    for code, status, title in [
        *((code, status, title) for code, (status, title) in CODES.items()),
        *((reason.name.lower(), 422, title) for reason, title in REASON_TITLES.items()),
    ]
)
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Files(StaticFiles):
    """Files that the browser asks again for with their ETag: their names do not change with their content."""

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Give a file, or 304 where the client has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["cache-control"] = "no-cache"
        return response


def build_pages(market_port: int, folder: Path = STATIC) -> Application:
    """Make the application that serves the page in ``folder`` at /, its files beside it and under /assets."""

    async def docs(request: Request) -> Response:
        return FileResponse(folder / "docs.html", headers={"cache-control": "no-cache"})

    async def errors(request: Request) -> Response:
        return PlainTextResponse(_ERRORS, headers={"cache-control": "no-cache"})

    async def unbuilt(request: Request) -> Response:
        raise HTTPException(404)

    if (folder / "index.html").is_file():
        files = _Files(directory=folder, html=True)
        routes: list[Route | Mount] = [Mount("/assets", files), Mount("/", files)]
        if (folder / "docs.html").is_file():
            routes.insert(0, Route("/docs", docs))
    else:
        routes = [Route("/{path:path}", unbuilt)]
    routes.insert(0, Route("/docs/errors", errors))
    application = Starlette(routes=routes, exception_handlers={HTTPException: _problem})

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*_HEADERS, (b"content-security-policy", _policy(scope, market_port))]

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await application(scope, receive, send_guarded)

    return guarded


async def _problem(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = _CODES.get(status, "not_found")
    detail = "there is no such page" if status == 404 else "pages are read with GET"
    answer = refusal(problem(code, detail))
    return Response(answer.body, answer.status, media_type="application/problem+json")


def _policy(scope: Scope, market_port: int) -> bytes:
    """Give the Content-Security-Policy: nothing from elsewhere but the two ports of this host."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"localhost")
    try:
        name = urlsplit("//" + host.decode("ascii")).hostname or "localhost"
    except (ValueError, UnicodeDecodeError):
        name = "localhost"
    if not all(character.isalnum() or character in ".-_:" for character in name):
        name = "localhost"
    if ":" in name:
        name = f"[{name}]"
    own = host.decode("ascii", "ignore") if name in host.decode("ascii", "ignore").lower() else name
    market = f"{name}:{market_port}"
    connect = " ".join(
        f"{scheme}://{where}" for where in (own, market) for scheme in ("ws", "wss", "http", "https")
    )
    return (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        f"font-src 'self'; connect-src 'self' {connect}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ).encode("latin-1")
