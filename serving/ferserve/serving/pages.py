"""Serves the pages of `web/`: read once, sent with a strict content policy, and never a request to another host."""

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

FOLDER: Final = "ferserve.serving.web"
ASSETS_PATH: Final = "/web"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # with the ETag: after an upgrade no old script meets a new page
    "Vary": "Accept",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str

    def response(self, request: Request) -> Response:
        headers = {**HEADERS, "ETag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


class Pages:
    """The files of one page and of what it loads."""

    def __init__(self) -> None:
        entries = importlib.resources.files(FOLDER).iterdir()
        self._files = {
            entry.name: _file(entry.read_bytes(), TYPES[suffix])
            for entry in entries
            if (suffix := f".{entry.name.rpartition('.')[2]}") in TYPES
        }

    def add_assets(self, app: Starlette) -> None:
        """Serve what pages load under `/web/`."""

        async def asset(request: Request) -> Response:
            file = self._files.get(request.path_params["name"])
            return PlainTextResponse("not found\n", 404) if file is None else file.response(request)

        app.add_route(f"{ASSETS_PATH}/{{name}}", asset, include_in_schema=False)

    def page(self, name: str, request: Request) -> Response:
        """One of the pages themselves."""
        return self._files[name].response(request)


def add_page(app: Starlette) -> None:
    """Serve the page for people at `/`."""
    pages = Pages()

    async def index(request: Request) -> Response:
        return pages.page("index.html", request)

    app.add_route("/", index, include_in_schema=False)
    pages.add_assets(app)


def _file(content: bytes, media_type: str) -> _File:
    return _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
