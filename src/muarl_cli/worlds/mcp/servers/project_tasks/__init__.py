"""Projects and their steps."""
