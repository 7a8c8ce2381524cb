"""What is wrong with data on disk."""

from ferserve.faces.errors import FerserveError


class DataError(FerserveError):
    """A data set is missing or not in its owner's layout; the message names the file and the line."""
