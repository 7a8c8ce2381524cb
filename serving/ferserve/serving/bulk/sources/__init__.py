"""What a bulk run reads: folders, globs, lists, tar and zip archives, videos; all of it lazily."""

from ferserve.serving.bulk.sources.errors import SourceCode, SourceError
from ferserve.serving.bulk.sources.finding import Finder, is_container, items_at
from ferserve.serving.bulk.sources.items import Item, identity_of, shown

__all__ = ["Finder", "Item", "SourceCode", "SourceError", "identity_of", "is_container", "items_at", "shown"]
