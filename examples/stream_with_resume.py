"""Stream an answer, drop the connection in the middle, and go on after the last event that arrived."""

import sys

from openai import OpenAI

client = OpenAI()
response_id, last, text = "", -1, ""

with client.responses.create(model="ragq", input=sys.argv[1], background=True, stream=True) as events:
    for event in events:
        last = event.sequence_number
        if event.type == "response.created":
            response_id = event.response.id
        elif event.type == "response.output_text.delta":
            text += event.delta
            break  # as if the connection had been lost here
print(f"dropped after event {last}: {text!r}", file=sys.stderr)

with client.responses.retrieve(response_id, stream=True, starting_after=last) as events:
    for event in events:
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type in ("response.failed", "response.incomplete"):
            sys.exit(f"{event.response.status}: {event.response.error}")
print(text)
