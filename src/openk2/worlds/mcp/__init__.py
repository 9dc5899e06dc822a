"""MCP, both ways: our simulated apps as MCP servers, and real MCP servers as worlds that are recorded and replayed."""
