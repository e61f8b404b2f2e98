"""Library borrowing."""
