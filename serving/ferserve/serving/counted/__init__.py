"""What the gateway counts, a file for each thing counted; `Metrics` puts them on one registry."""
