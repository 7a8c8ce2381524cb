"""What is done for each kind of question, one a file; `Analyzer` says who may ask, and until when."""
