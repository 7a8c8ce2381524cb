"""The labelling page over HTTP, for people at this machine: loopback alone, its own files alone.

No other site may talk to it: a request needs this address as its Host, which a name that resolves here has not, and
what changes something is JSON from a page of this origin.
"""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from ferserve.faces.errors import FerserveError
from ferserve.training.active.desk import Desk, RefusedError

LOOPBACK: Final = "127.0.0.1"
MAX_BODY_BYTES: Final = 4096
TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "label.css": "text/css; charset=utf-8",
    "label.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, TOO_LARGE, STORAGE = 200, 400, 403, 404, 413, 507


class LabelServer(ThreadingHTTPServer):
    """The page of one round.

    Args:
        port: 0 takes any that is free.
    """

    daemon_threads = True
    timeout = 0.5
    """Seconds, the longest that `handle_request` waits for one."""

    def __init__(self, desk: Desk, *, port: int) -> None:
        self.desk = desk
        self.files = {name: files("ferserve.training.active").joinpath("web", name).read_bytes() for name in TYPES}
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: LabelServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The page, its files, where a labeller is, a picture, a guess."""
        if not self._is_ours():
            return
        url = urlsplit(self.path)
        name = url.path.removeprefix("/") or "index.html"
        if name in TYPES:
            self._send(OK, self.server.files[name], TYPES[name])
            return
        given = {key: values[0] for key, values in parse_qs(url.query).items()}
        desk = self.server.desk
        if name == "picture":
            self._answer(lambda: desk.picture(given.get("face", "")))
        elif name == "guess":
            self._answer(lambda: desk.guess(given.get("face", "")))
        elif name == "standing":
            self._answer(lambda: desk.standing(given.get("labeller", "")).to_dict())
        else:
            self._send_json(NOT_FOUND, {"message": "no such page"})

    def do_POST(self) -> None:
        """An act: `label`, `skip`, `undo`; the answer says where the labeller is then."""
        if not self._is_ours():
            return
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MAX_BODY_BYTES:
            self.close_connection = True  # the body stays unread
            self._send_json(TOO_LARGE, {"message": f"expected JSON of at most {MAX_BODY_BYTES} bytes"})
            return
        body = self.rfile.read(int(size))
        origin = self.headers.get("Origin")
        if self.headers.get_content_type() != "application/json" or origin not in (None, self._origin()):
            self._send_json(FORBIDDEN, {"message": "expected JSON from the page itself"})
            return
        self._answer(lambda: self._act(body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's own name
        """Say nothing: names and faces are nobody else's business."""

    def _act(self, body: bytes) -> dict[str, Any]:
        try:
            given = json.loads(body)
            labeller, face, answer = (str(given.get(name, "")) for name in ("labeller", "face", "answer"))
        except (ValueError, AttributeError) as error:
            raise RefusedError("expected a JSON object with labeller, face and answer") from error
        desk, path = self.server.desk, urlsplit(self.path).path
        if path == "/label":
            desk.label(labeller, face, answer, saw_guess=given.get("saw_guess") is True)
        elif path == "/skip":
            desk.skip(labeller, face)
        elif path == "/undo":
            desk.undo(labeller)
        else:
            raise RefusedError(f"expected label, skip or undo, got {path!r}")
        return desk.standing(labeller).to_dict()

    def _answer(self, act: Callable[[], bytes | dict[str, Any]]) -> None:
        try:
            found = act()
        except RefusedError as error:
            self._send_json(BAD_REQUEST, {"message": error.message})
        except FerserveError as error:
            self._send_json(STORAGE, {"message": error.message})
        else:
            if isinstance(found, bytes):
                self._send(OK, found, "image/png")
            else:
                self._send_json(OK, found)

    def _origin(self) -> str:
        return self.server.address.rstrip("/")

    def _is_ours(self) -> bool:
        """Whether the request was meant for this address; otherwise it is answered."""
        port = self.server.server_address[1]
        if self.headers.get("Host") in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            return True
        self._send_json(FORBIDDEN, {"message": f"expected a request for {self.server.address}"})
        return False

    def _send_json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": media_type, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
