// The official SDK for Node: the calls of its README.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { toFile } from "openai";
import { z } from "zod";
import { check, expect, expect61, QUESTION, run } from "./checks.mjs";

const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const model = "ragq";
const messages = [{ role: "user", content: QUESTION }];
const parameters = {
  type: "object",
  properties: { location: { type: "string" } },
  required: ["location"],
  additionalProperties: false,
};
const weatherQuestion = "What is the weather in Paris?";
const Height = z.object({ subject: z.string(), metres: z.number() });

check("chat", async () => expect61((await client.chat.completions.create({ model, messages })).choices[0].message.content));

check("chat stream", async () => {
  let text = "";
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  expect61(text);
});

check(
  "chat runTools",
  async () => {
    const runner = client.chat.completions.runTools({
      model,
      messages: [{ role: "user", content: weatherQuestion }],
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            description: "The weather",
            parameters,
            parse: JSON.parse,
            function: ({ location }) => `It is 21 degrees in ${location}.`,
          },
        },
      ],
    });
    const text = await runner.finalContent();
    expect(text.includes("21 degrees in Paris"), text);
  },
  { llm: true },
);

check(
  "chat runTools in a stream",
  async () => {
    const runner = client.chat.completions.runTools({
      model,
      stream: true,
      messages: [{ role: "user", content: weatherQuestion }],
      tools: [
        {
          type: "function",
          function: { name: "get_weather", description: "The weather", parameters, parse: JSON.parse, function: () => "21 degrees" },
        },
      ],
    });
    const text = await runner.finalContent();
    expect(text.includes("21"), text);
  },
  { llm: true },
);

check(
  "chat parse",
  async () => {
    const done = await client.chat.completions.parse({ model, messages, response_format: zodResponseFormat(Height, "height") });
    expect(done.choices[0].message.parsed.metres === 61, done.choices[0].message);
  },
  { llm: true },
);

check("completions", async () => expect61((await client.completions.create({ model, prompt: QUESTION })).choices[0].text));

check("responses", async () => expect61((await client.responses.create({ model, input: QUESTION })).output_text));

check("responses stream", async () => {
  const stream = client.responses.stream({ model, input: QUESTION });
  const types = [];
  for await (const event of stream) types.push(event.type);
  expect61((await stream.finalResponse()).output_text);
  expect(types.at(0) === "response.created" && types.at(-1) === "response.completed", types);
});

check(
  "responses tools",
  async () => {
    const tools = [{ type: "function", name: "get_weather", description: "The weather", parameters, strict: true }];
    const input = [{ role: "user", content: weatherQuestion }];
    const first = await client.responses.create({ model, input, tools });
    const call = first.output.find((item) => item.type === "function_call");
    expect(call?.arguments.includes("Paris"), first.output);
    input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: "21 degrees" });
    const { output_text: text } = await client.responses.create({ model, input, tools });
    expect(text.includes("21"), text);
  },
  { llm: true },
);

check(
  "responses parse",
  async () => {
    const done = await client.responses.parse({ model, input: QUESTION, text: { format: zodTextFormat(Height, "height") } });
    expect(done.output_parsed?.metres === 61, done.output);
  },
  { llm: true },
);

check("responses second turn by items", async () => {
  const first = await client.responses.create({ model, input: QUESTION });
  const input = [{ role: "user", content: QUESTION }, ...first.output, { role: "user", content: "When does the ferry leave?" }];
  const { output_text: text } = await client.responses.create({ model, input });
  expect(text.includes("noon"), text);
});

check("responses in the background, streamed, resumed", async () => {
  const stream = await client.responses.create({ model, input: QUESTION, background: true, stream: true });
  let id;
  let last;
  for await (const event of stream) {
    id ??= event.response?.id;
    last = event.sequence_number;
    if (last >= 2) break;
  }
  const rest = [];
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: last })) rest.push(event);
  expect(rest[0].sequence_number === last + 1, rest[0]);
  expect61(JSON.stringify(rest.at(-1)));
});

check("responses.inputTokens.count", async () => {
  const { input_tokens: count } = await client.responses.inputTokens.count({ model, input: QUESTION });
  expect(count > 0, count);
});

check("responses.compact", async () => {
  const done = await client.responses.compact({ model, input: [{ role: "user", content: QUESTION }] });
  expect(done.object === "response.compaction", done);
});

check("conversations", async () => {
  const conversation = await client.conversations.create({ metadata: { topic: "harbour" } });
  await client.responses.create({ model, input: QUESTION, conversation: conversation.id });
  const items = [];
  for await (const item of client.conversations.items.list(conversation.id)) items.push(item);
  expect(items.filter((item) => item.type === "message").length === 2, items);
  await client.conversations.delete(conversation.id);
});

check("vector store of its own, and a search", async () => {
  const store = await client.vectorStores.create({ name: "openai-node" });
  const file = await toFile(Buffer.from("The tower of Zembla is 93 metres tall."), "zembla.txt");
  await client.vectorStores.files.uploadAndPoll(store.id, file);
  const found = await client.vectorStores.search(store.id, {
    query: "How tall is the tower?",
    ranking_options: { ranker: "default-2024-11-15" },
  });
  expect(found.data[0].content[0].text.includes("93"), found.data);
  await client.vectorStores.delete(store.id);
});

check("upload in parts", async () => {
  const upload = await client.uploads.create({ filename: "a.txt", bytes: 6, mime_type: "text/plain", purpose: "assistants" });
  const parts = [];
  for (const text of ["one", "two"]) {
    const part = await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(text), "part") });
    parts.push(part.id);
  }
  const done = await client.uploads.complete(upload.id, { part_ids: parts });
  expect(done.status === "completed", done);
});

check("embeddings of 600 texts", async () => {
  const { data } = await client.embeddings.create({ model, input: Array.from({ length: 600 }, (_, index) => `text ${index}`) });
  expect(data.length === 600 && data[0].embedding.length === 384, data.length);
});

check("batch of embeddings", async () => {
  const line = { custom_id: "a", method: "POST", url: "/v1/embeddings", body: { model, input: "text" } };
  const file = await client.files.create({ file: await toFile(Buffer.from(JSON.stringify(line)), "b.jsonl"), purpose: "batch" });
  let batch = await client.batches.create({ input_file_id: file.id, endpoint: "/v1/embeddings", completion_window: "24h" });
  while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    batch = await client.batches.retrieve(batch.id);
  }
  expect(batch.status === "completed", batch);
});

check("models", async () => {
  const found = [];
  for await (const each of client.models.list()) found.push(each.id);
  expect(found.length > 0, found);
});

await run();
