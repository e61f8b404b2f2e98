"""The MCP scenarios of the package: each a server file, a domain as data, and one Python file of state and goals."""
