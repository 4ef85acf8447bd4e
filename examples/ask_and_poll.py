"""Ask a question in the background and poll until it is answered."""

import sys
import time

from openai import OpenAI

client = OpenAI()
response = client.responses.create(
    model="ragq",
    input=sys.argv[1],
    tools=[{"type": "file_search", "vector_store_ids": ["default"]}],
    background=True,
)
print(f"{response.id} is {response.status}")
while response.status in ("queued", "in_progress"):
    time.sleep(0.5)
    response = client.responses.retrieve(response.id)
if response.status != "completed":
    sys.exit(f"{response.status}: {response.error}")
print(response.output_text)
for item in response.output:
    for part in item.content if item.type == "message" else ():
        for citation in part.annotations if part.type == "output_text" else ():
            if citation.type == "file_citation":
                print(f"  from {citation.filename}")
