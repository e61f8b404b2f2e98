"""A university registrar: course registration."""
