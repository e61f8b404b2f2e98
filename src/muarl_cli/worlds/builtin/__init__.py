"""The built-in scenarios: each a folder of data (`domain.yaml`, `policy.md`) plus one Python file of tools."""
