"""A small typed client of `ferserve.v1.ExpressionService`, blocking and asyncio.

    with Client("127.0.0.1:50051") as client:
        analysis = client.analyze(Path("photo.jpg").read_bytes())

    config = ClientConfig(api_key="fer_...", tls=ChannelTls(ca_file=Path("ca.pem")))
    with Client("gateway:50051", config) as client: ...

Answers are the values of `ferserve.serving.requests`, errors the classes of `ferserve.faces.errors` and
`ferserve.serving.errors`: the same as inside the gateway.
"""

from ferserve.serving.channel_tls import ChannelTls
from ferserve.serving.client.asynchronous import AsyncClient
from ferserve.serving.client.blocking import Client
from ferserve.serving.client.calls import StreamReply
from ferserve.serving.client.failures import NoAnswerError
from ferserve.serving.client.retry import ClientConfig

__all__ = ["AsyncClient", "ChannelTls", "Client", "ClientConfig", "NoAnswerError", "StreamReply"]
