"""OpenAI's WebSocket mode of Responses."""
