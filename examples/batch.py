"""Answer the questions of a text file, one a line, with one batch."""

import json
import sys
import time
from pathlib import Path

from openai import OpenAI

client = OpenAI()
questions = [line for line in Path(sys.argv[1]).read_text().splitlines() if line.strip()]
lines = [
    {"custom_id": str(number), "method": "POST", "url": "/v1/responses", "body": {"model": "ragq", "input": question}}
    for number, question in enumerate(questions)
]
content = "\n".join(map(json.dumps, lines)).encode()
uploaded = client.files.create(file=("questions.jsonl", content), purpose="batch")
batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/responses", completion_window="24h")
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)
if batch.status != "completed" or not batch.output_file_id:
    sys.exit(f"{batch.status}: {batch.errors}")
for line in client.files.content(batch.output_file_id).text.splitlines():
    answered = json.loads(line)
    texts = [
        part["text"]
        for item in answered["response"]["body"]["output"]
        for part in item.get("content") or ()
        if part["type"] == "output_text"
    ]
    print(f"{questions[int(answered['custom_id'])]} {' '.join(texts)}")
