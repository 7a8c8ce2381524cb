"""What a bulk run reads: folders, globs, lists, tar and zip archives, videos; all of it lazily."""

from ferserve.serving.bulk.sources.errors import SourceCode, SourceError
from ferserve.serving.bulk.sources.finding import Finder
from ferserve.serving.bulk.sources.items import Item, shown

__all__ = ["Finder", "Item", "SourceCode", "SourceError", "shown"]
