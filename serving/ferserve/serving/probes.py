"""`/livez` and `/readyz`, the same on the HTTP port and on the admin port."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ferserve.serving.health import Health


def add_probes(app: Starlette, health: Health) -> None:
    """Answer `/livez` with 200 while the process can answer at all, `/readyz` only while new requests are taken."""

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        return PlainTextResponse(f"{health.state}\n", status_code=200 if health.is_ready else 503)

    app.add_route("/livez", livez, include_in_schema=False)
    app.add_route("/readyz", readyz, include_in_schema=False)
