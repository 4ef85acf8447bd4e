"""A conversation in the terminal over Chat Completions: what any chat front end does when its base URL is ragq's."""

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

client = OpenAI()
messages: list[ChatCompletionMessageParam] = []
while True:
    try:
        question = input("> ")
    except EOFError:
        break
    messages.append({"role": "user", "content": question})
    answer = ""
    for chunk in client.chat.completions.create(model="ragq", messages=messages, stream=True):
        piece = chunk.choices[0].delta.content if chunk.choices else None
        print(piece or "", end="", flush=True)
        answer += piece or ""
    print()
    messages.append({"role": "assistant", "content": answer})
