"""What a table of scores comes to, as one page that asks nobody for anything."""
