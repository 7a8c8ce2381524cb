"""One connection, played by its script."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.damaged.inputs import RawConnection


async def exchange(target: str, script: RawConnection) -> bytes:
    """Everything that came back until the server closed."""
    async with _connection(target) as (reader, writer):
        receiving = asyncio.create_task(_all_of(reader))
        try:
            await _write(writer, script, receiving)
            if script.ending == "close":
                return b""
            if script.ending == "half" and not receiving.done():
                with suppress(OSError):
                    writer.write_eof()
            return await receiving
        finally:
            receiving.cancel()


@asynccontextmanager
async def _connection(target: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _write(writer: asyncio.StreamWriter, script: RawConnection, receiving: asyncio.Task[bytes]) -> None:
    for piece in script.pieces:
        if receiving.done():
            return
        with suppress(ConnectionError):
            writer.write(piece)
            await writer.drain()
        if script.pause_s:
            await asyncio.wait({receiving}, timeout=script.pause_s)


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    """What came, also if the connection was reset in the end."""
    received = b""
    with suppress(ConnectionError):
        while chunk := await reader.read(2**16):
            received += chunk
    return received
