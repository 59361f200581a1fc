"""Tools that others describe: MCP servers and OpenAPI documents. What they say is read, shown and pinned, never trusted."""
