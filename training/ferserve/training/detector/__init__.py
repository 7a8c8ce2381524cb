"""Our own face detector: scenes, the teacher it learns from, the run, the export and the evaluation."""
