"""What runs in each Ray worker: the same engine and pipeline as in one process, over the paths that it is given.

Nothing here imports Ray. A path of an archive or a video is one piece of work, for it is read from its beginning.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import orjson
import pyarrow as pa

from ferserve.serving.bulk.chunks import ScorerConfig
from ferserve.serving.bulk.feed import Feed
from ferserve.serving.bulk.lane import ThreadLane
from ferserve.serving.bulk.local import lanes_scoring
from ferserve.serving.bulk.manifest import Manifest
from ferserve.serving.bulk.pipeline import NothingScored, Pipeline, Scored
from ferserve.serving.bulk.sources import Item, identity_of, is_container, items_at, shown

ResultT = TypeVar("ResultT")
TODO: Final = pa.schema(
    [
        pa.field("path", pa.binary(), metadata={"meaning": "as the user named it"}),
        pa.field("place", pa.binary(), metadata={"meaning": "absolute, so that every worker finds it"}),
    ]
)
DONE: Final = pa.schema(
    [
        pa.field("item_id", pa.binary()),
        pa.field("content", pa.binary()),
        pa.field("is_repeated", pa.bool_()),
        pa.field("is_claimed", pa.bool_(), metadata={"meaning": "its path was claimed before it was handed out"}),
        pa.field("rows", pa.binary(), metadata={"meaning": "JSON, one object a row"}),
    ]
)
PIECE_ITEMS: Final = 256
"""Items whose rows a worker holds back before it hands them over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What every worker of a run is told.

    Attributes:
        scorer: what scores; its `crops` is an absolute path.
        manifest: of the table; items are known by its key.
    """

    scorer: ScorerConfig
    manifest: Manifest
    with_paths: bool
    frames_per_s: float


class RayWorker:
    """Scores tables of `TODO` into tables of `DONE`; lives as long as its process."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scoring", daemon=True)
        self._thread.start()
        engine = config.scorer.engine
        lanes = [ThreadLane(config.scorer) for _ in range(engine.analyzer.threads)]
        self._context = lanes_scoring(lanes, engine, config.manifest.settings)
        self._scoring = self._run(self._context.__aenter__())

    def __call__(self, todo: Any) -> Iterator[Any]:
        """Score all items of some paths."""
        tables = self._tables(todo)
        while (table := self._run(_next(tables))) is not None:
            yield table

    def close(self) -> None:
        """Let the engine go."""
        self._run(self._context.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _tables(self, todo: Any) -> AsyncGenerator[Any, None]:
        config = self._config
        pipeline = Pipeline(self._scoring, NothingScored(), with_paths=config.with_paths)
        feed = Feed(
            _items(todo, config.frames_per_s), config.manifest.item_id, max_image_bytes=self._scoring.max_image_bytes
        )
        places = (os.fsdecode(place) for place in todo.column("place").to_pylist())
        claimed = {config.manifest.item_id(identity_of(place)) for place in places if not is_container(place)}
        held: list[Scored] = []
        async with aclosing(pipeline.rows(feed)) as pictures:
            async for scored in pictures:
                held.append(scored)
                if len(held) == PIECE_ITEMS:
                    pipeline.forget(done.content for done in held)
                    yield _table(held, claimed)
                    held = []
        yield _table(held, claimed)

    def _run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def scored_of(row: dict[str, Any]) -> Scored:
    """Read back what a worker said of one item."""
    return Scored(
        item_id=row["item_id"],
        rows=orjson.loads(row["rows"]),
        content=row["content"],
        is_repeated=row["is_repeated"],
    )


def _items(todo: Any, frames_per_s: float) -> Iterator[Item]:
    for row in todo.to_pylist():
        path, place = (os.fsdecode(row[name]) for name in ("path", "place"))
        for item in items_at(place, frames_per_s):
            yield replace(item, path=shown(path) + item.path.removeprefix(shown(place)))


def _table(held: list[Scored], claimed: set[bytes]) -> Any:
    rows = [
        {
            "item_id": scored.item_id,
            "content": scored.content,
            "is_repeated": scored.is_repeated,
            "is_claimed": scored.item_id in claimed,
            "rows": orjson.dumps(scored.rows),
        }
        for scored in held
    ]
    return pa.Table.from_pylist(rows, schema=DONE)


async def _next(tables: AsyncGenerator[Any, None]) -> Any:
    return await anext(tables, None)
