"""The letting agency."""
