"""Folders of pictures into one table, in this process and through the same analyzer as the servers."""
