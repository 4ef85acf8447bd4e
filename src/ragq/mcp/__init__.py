"""The MCP server at `/mcp`: search, read and add documents, and ask questions, as tools of an assistant."""
