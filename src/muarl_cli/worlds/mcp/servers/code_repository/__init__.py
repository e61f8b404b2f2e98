"""Git repositories that a developer works in."""
