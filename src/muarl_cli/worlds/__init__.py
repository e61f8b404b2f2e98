"""Worlds: what answers tool calls. The state store, scenarios and their tasks, and where task sets come from."""
