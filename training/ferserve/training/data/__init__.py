"""One data set a file, read in the layout that its owner publishes."""
