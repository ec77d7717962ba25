"""The views, one a file: each draws lines from a `Scene` and knows nothing of terminals."""
