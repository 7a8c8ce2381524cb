"""Training, evaluation and export of the published systems. The archive is all that leaves this room for serving."""
