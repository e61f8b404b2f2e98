"""A shop kept in an SQLite database."""
