"""A run on Ray Data: this process finds paths and commits rows, the cluster scores (docs/adr/0040-ray.md)."""

import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from ferserve.serving.bulk.chunks import ScorerConfig
from ferserve.serving.bulk.index import Index
from ferserve.serving.bulk.local import resolved
from ferserve.serving.bulk.pipeline import Scored
from ferserve.serving.bulk.ray_worker import TODO, RayWorker, WorkerConfig, scored_of
from ferserve.serving.bulk.rows import rows_of
from ferserve.serving.bulk.run import Filling, Job, Tally, filling
from ferserve.serving.bulk.sources import Item, SourceError, identity_of, is_container
from ferserve.serving.cores import available_cores
from ferserve.serving.engine import EngineConfig
from ferserve.serving.errors import ConfigError, WorkerFailedError
from ferserve.serving.requests import AnalyzeOptions

BLOCK_PATHS: Final = 512
BATCH_PATHS: Final = 32
"""Paths that a worker has at a time: enough to keep its pipeline full, few enough to share the last ones out."""
OBJECT_STORE_BYTES: Final = 256 * 2**20
"""Of a Ray of our own: paths and rows pass through it, no pixels; what does not fit goes to disk."""
TodoRow = dict[str, bytes]


def run_on_ray(
    job: Job, engine: EngineConfig, options: AnalyzeOptions, report: Callable[[Tally], None], *, workers: int | None
) -> Tally:
    """`run_bulk` with workers of Ray Data, each with `engine.analyzer.threads` threads.

    `RAY_ADDRESS` names a cluster, whose nodes have to see the pictures under the same absolute paths; without it Ray
    runs on this machine alone.

    Args:
        workers: processes; None for as many as the cluster's CPUs allow.
    Raises:
        ConfigError, OutputError: as for `run_bulk`; or Ray is not installed.
        ArchiveError: the archive cannot be read here.
        WorkerFailedError: Ray gave up on a worker.
    """
    try:
        found = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(f"--engine ray: {error}; pip install 'ferserve[ray]'") from error
    job.finder.check()
    fixed, settings = resolved(engine, options)
    with filling(job, settings) as table, _running(found) as ray:
        config = WorkerConfig(
            scorer=ScorerConfig(
                engine=fixed, options=options, crops=None if job.crops is None else job.crops.absolute()
            ),
            manifest=table.store.manifest,
            with_paths=job.with_paths,
            frames_per_s=job.finder.frames_per_s,
        )
        blocks = [ray.put(block) for block in _blocks(_todo(job, table))]
        report(table.tally)
        if blocks:
            _fill(table, _scored(ray, blocks, config, workers, table), report)
    return table.tally


def _fill(table: Filling, pictures: Iterator[Scored], report: Callable[[Tally], None]) -> None:
    for scored in pictures:
        table.add(scored)
        if table.is_due:
            table.commit()
        report(table.tally)


def _todo(job: Job, table: Filling) -> Iterator[TodoRow]:
    """Paths that have no rows yet, and every archive and video; what cannot be read at all gets its row at once."""
    for found in job.finder.paths():
        if isinstance(found, Item):
            _add_broken(found, job, table)
        elif is_container(found):
            yield _row(found)
        elif table.store.claim(identity_of(found)) is None:
            table.tally.passed_over += 1
        else:
            yield _row(found)


def _add_broken(item: Item, job: Job, table: Filling) -> None:
    item_id = table.store.claim(item.identity)
    if item_id is None:
        table.tally.passed_over += 1
        return
    try:
        item.read(0)
    except SourceError as error:
        rows = rows_of(item.path if job.with_paths else None, error)
        table.add(Scored(item_id=item_id, rows=rows, content=None, is_repeated=False))


def _row(path: str) -> TodoRow:
    return {"path": os.fsencode(path), "place": os.fsencode(os.path.abspath(path))}  # noqa: PTH100 - links stay links


def _blocks(rows: Iterator[TodoRow]) -> Iterator[Any]:
    while block := list(itertools.islice(rows, BLOCK_PATHS)):
        yield pa.Table.from_pylist(block, schema=TODO)


def _scored(ray: Any, blocks: list[Any], config: WorkerConfig, workers: int | None, table: Filling) -> Iterator[Scored]:
    """What the workers give, each item once: a worker that died may have been heard before it is done again."""
    data = importlib.import_module("ray.data")
    threads = config.scorer.engine.analyzer.threads
    count = workers or max(int(ray.cluster_resources().get("CPU", 1)) // threads, 1)
    data.DataContext.get_current().enable_progress_bars = False
    done = data.from_arrow_refs(blocks).map_batches(
        RayWorker,
        fn_constructor_args=(config,),
        batch_size=BATCH_PATHS,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(size=count),
        num_cpus=threads,
    )
    heard = Index()
    try:
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                scored = scored_of(row)
                if heard.claim(scored.item_id) and (row["is_claimed"] or table.store.claim_id(scored.item_id)):
                    yield scored
                else:
                    table.tally.passed_over += 1
    except ray.exceptions.RayError as error:
        raise WorkerFailedError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error
    finally:
        heard.close()


@contextmanager
def _running(ray: Any) -> Iterator[Any]:
    """Ray, which somebody else may have begun already."""
    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": available_cores(), "object_store_memory": OBJECT_STORE_BYTES}
    asked = {} if "RAY_ADDRESS" in os.environ else own
    try:
        ray.init(include_dashboard=False, logging_level="warning", log_to_driver=False, **asked)
    except Exception as error:  # Ray raises a bare Exception where its processes do not come up in time
        raise WorkerFailedError(f"--engine ray: Ray did not start: {str(error).strip().splitlines()[0]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
