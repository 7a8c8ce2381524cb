"""What computes for `ferserve score`: this process, a gateway, or Ray."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferserve.serving.commands.score_options import Where
from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import AnalyzeOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from ferserve.serving.bulk.run import Job, Tally
    from ferserve.serving.bulk.scoring import Scoring
    from ferserve.serving.client import ClientConfig
    from ferserve.serving.engine import EngineConfig

    ScoringContext = AbstractAsyncContextManager[Scoring]
    Report = Callable[[Tally], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What computes, as the flags say.

    Attributes:
        engine: this process (or a gateway), or Ray.
        ray_workers: None takes as many as Ray's CPUs allow.
        models: the settings of section `models`.
        threads: None takes all cores, of a Ray worker one.
        endpoint: HOST:PORT of a gateway; None for none.
        caller: how the gateway is called; None where there is none.
        crops: folder that each face is written to; None for none.
    """

    engine: Where
    ray_workers: int | None
    models: dict[str, Any]
    threads: int | None
    options: AnalyzeOptions
    endpoint: str | None
    caller: "ClientConfig | None"
    crops: Path | None

    def __post_init__(self) -> None:
        if self.engine is not Where.RAY and self.ray_workers is not None:
            raise ConfigError(f"--workers: expected --engine ray, got --engine {self.engine}")

    def scoring(self) -> "ScoringContext":
        """What scores one picture after another, without Ray.

        Raises:
            ConfigError: flags that are the gateway's own business.
        """
        return self._here() if self.caller is None else self._gateway(self.caller)

    def run(self, job: "Job", report: "Report") -> "Tally":
        """Do the work.

        Raises:
            ConfigError: flags that contradict each other.
        """
        if self.engine is not Where.RAY:
            from ferserve.serving.bulk.run import run_bulk

            return asyncio.run(run_bulk(job, self.scoring(), report))
        from ferserve.serving.bulk.ray_driver import run_on_ray

        if self.endpoint is not None:
            raise ConfigError(f"--endpoint: expected none with --engine ray, got {self.endpoint}")
        return run_on_ray(job, self._engine(self.threads or 1), self.options, report, workers=self.ray_workers)

    def _here(self) -> "ScoringContext":
        from ferserve.serving.bulk.local import local_scoring
        from ferserve.serving.cores import available_cores

        return local_scoring(self._engine(self.threads or available_cores()), self.options, crops=self.crops)

    def _engine(self, threads: int) -> "EngineConfig":
        from ferserve.serving.bulk.local import bulk_engine
        from ferserve.serving.engine import EngineConfig
        from ferserve.serving.settings import read_settings

        models = read_settings(EngineConfig, file=None, environ={}, flags={"models": self.models}).models
        return bulk_engine(models, threads=threads)

    def _gateway(self, caller: "ClientConfig") -> "ScoringContext":
        from ferserve.serving.bulk.crops import CropWriter
        from ferserve.serving.bulk.gateway import gateway_scoring

        assert self.endpoint is not None  # or there were no caller
        name, *others = self.models.get("archives", [""])
        own = {flag: value for flag, value in self.models.items() if flag != "archives"}
        given = [flag for flag, value in (*own.items(), ("threads", self.threads), ("models", others)) if value]
        if given:
            raise ConfigError(
                f"--endpoint: expected none with --{given[0]}, which is the gateway's own, got {self.endpoint}"
            )
        writer = None if self.crops is None else CropWriter(self.crops)
        return gateway_scoring(self.endpoint, replace(self.options, model=name), caller, crops=writer)
