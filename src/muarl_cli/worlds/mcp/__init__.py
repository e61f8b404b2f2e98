"""Worlds behind real MCP servers: tools and schemas come from the server, its files are the state."""
