"""All requests of one TorchServe batch: read each, score their faces together, give each its own reply."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.errors import FerserveError
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.wire import DESCRIBE, Description
from ferserve.handlers.face_handler import FaceHandler
from ferserve.handlers.image_handler import ImageHandler
from ferserve.handlers.question import JSON_TYPE, Inputs, Question, Reply, ScoringFailedError

Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 crops (N, S, S, C) to float32 scores (N, 7)."""

_log = logging.getLogger(__name__)


class Answerer:
    """Answers batches of requests.

    Args:
        score: the model, called once a batch.
        description: what `describe` is answered with.
        clock: seconds, rising.
    """

    def __init__(
        self,
        score: Score,
        faces: FaceHandler,
        images: ImageHandler,
        description: Description,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._score = score
        self._faces = faces
        self._images = images
        self._description = Reply(body=description.pack(), content_type=JSON_TYPE)
        self._clock = clock

    def replies(self, requests: Sequence[Inputs]) -> list[Reply]:
        """A reply for each request; what is wrong with one of them concerns no other. Nothing is raised."""
        read = [self._read(inputs) for inputs in requests]
        answers = iter(self._answers([item for item in read if isinstance(item, Question)]))
        return [next(answers) if isinstance(item, Question) else item for item in read]

    def _read(self, inputs: Inputs) -> Question | Reply:
        if DESCRIBE in inputs:
            return self._description
        handler = self._faces if FaceHandler.takes(inputs) else self._images
        try:
            return handler.read(inputs)
        except FerserveError as error:
            return Reply.of_error(error)
        except Exception as error:  # noqa: BLE001 - a fault in one request must not fail the others of its batch
            _log.error("a request failed: %s", type(error).__name__)  # no trace: it may show what came in
            return Reply.of_error(FerserveError("internal error"))

    def _answers(self, questions: Sequence[Question]) -> list[Reply]:
        """One run of the model over all faces of all requests, and each request's share of it."""
        counts = [len(question.crops) for question in questions]
        if not any(counts):
            return [question.answer(_no_scores(), 0.0) for question in questions]
        began_s = self._clock()
        try:
            scores = self._score(_together([question.crops for question in questions if len(question.crops)]))
        except Exception as error:  # noqa: BLE001 - torch raises many types without a common base
            _log.error("the model failed on %d faces: %s", sum(counts), type(error).__name__)
            failed = Reply.of_error(ScoringFailedError(f"the model failed on {sum(counts)} faces"))
            return [
                failed if count else q.answer(_no_scores(), 0.0) for q, count in zip(questions, counts, strict=True)
            ]
        infer_s = self._clock() - began_s
        shares = np.split(scores, np.cumsum(counts)[:-1])
        return [_answer(question, share, infer_s) for question, share in zip(questions, shares, strict=True)]


def _answer(question: Question, scores: NDArray[np.float32], infer_s: float) -> Reply:
    try:
        return question.answer(scores, infer_s)
    except ScoringFailedError as error:
        return Reply.of_error(error)


def _together(batches: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """All crops in one array; those of one request alone are not copied."""
    return batches[0] if len(batches) == 1 else np.concatenate(batches)


def _no_scores() -> NDArray[np.float32]:
    return np.zeros((0, NUM_EXPRESSIONS), dtype=np.float32)
