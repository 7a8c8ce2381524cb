"""Async tests in virtual time: waiting costs nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

from ferserve.serving.benchmarks.virtual_time import VirtualTimeLoop

P = ParamSpec("P")


def in_virtual_time(story: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Let an async test run on a loop of its own, from time 0."""

    @wraps(story)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(story(*args, **kwargs))

    return run
