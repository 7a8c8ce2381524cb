"""One request as the handlers see it: the crops that it needs scored, and how its reply is made of their scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.errors import FerserveError, Reason
from ferserve.faces.wire import pack_error

Inputs = Mapping[str, bytes | bytearray]
"""A request's named inputs; see `ferserve.faces.wire`."""

STATUS: Final = {
    Reason.INVALID_REQUEST: HTTPStatus.BAD_REQUEST,
    Reason.INVALID_IMAGE: HTTPStatus.BAD_REQUEST,
    Reason.UNSUPPORTED_MEDIA: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Reason.IMAGE_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Reason.WORKER_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""What TorchServe's REST answers, the same as the gateway's; anything else is 500."""
JSON_TYPE: Final = "application/json"
BINARY_TYPE: Final = "application/octet-stream"


class ScoringFailedError(FerserveError):
    """The model failed, on a whole batch or on the faces of one request."""

    reason = Reason.WORKER_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back; the status is seen over REST only."""

    body: bytes
    content_type: str
    status: int = HTTPStatus.OK

    @classmethod
    def of_error(cls, error: FerserveError) -> "Reply":
        """The reply to a request of which nothing can be answered."""
        status = STATUS.get(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR)
        return cls(body=pack_error(error), content_type=JSON_TYPE, status=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request that was read.

    Attributes:
        crops: uint8, shape (N, S, S, C), N may be 0.
        answer: makes the reply of their scores, float32 of shape (N, 7), and of the seconds that scoring took; raises
            ScoringFailedError where the scores cannot be used.
    """

    crops: NDArray[np.uint8]
    answer: Callable[[NDArray[np.float32], float], Reply]
