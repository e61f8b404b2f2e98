"""Reports: tables for the terminal, for Markdown and as JSON, from the same rows."""
