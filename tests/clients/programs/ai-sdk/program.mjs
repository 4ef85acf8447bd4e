// Vercel's AI SDK: its three kinds of OpenAI models, each with the calls of its documentation.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import { API_KEY, BASE_URL, check, expect, expect61, HAS_LLM, QUESTION, run } from "./checks.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const compatible = createOpenAICompatible({
  name: "ragq",
  baseURL: BASE_URL,
  apiKey: API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const models = { responses: openai("ragq"), chat: openai.chat("ragq"), compatible: compatible("ragq") };
const weather = tool({
  description: "The weather in a place",
  inputSchema: z.object({ location: z.string() }),
  execute: async ({ location }) => ({ location, degrees: 21 }),
});
const tools = { get_weather: weather };
const prompt = "What is the weather in Paris?";
const schema = z.object({ subject: z.string(), metres: z.number() });
const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const settled = { maxRetries: 0 };

async function streamed(options) {
  let fault;
  const result = streamText({ ...settled, ...options, onError: ({ error }) => (fault = error) });
  let text = "";
  for await (const part of result.textStream) text += part;
  if (fault) throw fault;
  return { text, result };
}

for (const [name, model] of Object.entries(models)) {
  check(`${name}: generateText`, async () => expect61((await generateText({ ...settled, model, prompt: QUESTION })).text));

  check(`${name}: streamText`, async () => {
    const { text, result } = await streamed({ model, prompt: QUESTION });
    expect(!HAS_LLM || (await result.usage).totalTokens > 0, await result.usage);
    return expect61(text);
  });

  check(`${name}: second turn`, async () => {
    const messages = [{ role: "user", content: QUESTION }];
    const first = await generateText({ ...settled, model, messages });
    messages.push(...first.response.messages, { role: "user", content: "When does the ferry leave?" });
    const { text } = await generateText({ ...settled, model, messages });
    expect(text.includes("noon"), text);
  });

  check(`${name}: settings`, async () => {
    const settings = { temperature: 0.2, topP: 0.9, maxOutputTokens: 200, frequencyPenalty: 0.1, presencePenalty: 0.1 };
    const more = name === "responses" ? {} : { seed: 7, stopSequences: ["END"] };
    expect61((await generateText({ ...settled, model, prompt: QUESTION, ...settings, ...more })).text);
  });

  check(
    `${name}: tools`,
    async () => {
      const { text, steps } = await generateText({ ...settled, model, tools, prompt, stopWhen: isStepCount(3) });
      expect(steps.length === 2 && text.includes("21"), { steps: steps.length, text });
    },
    { llm: true },
  );

  check(
    `${name}: tools in a stream`,
    async () => {
      const { text } = await streamed({ model, tools, prompt, stopWhen: isStepCount(3) });
      expect(text.includes("21"), text);
    },
    { llm: true },
  );

  check(
    `${name}: tool demanded`,
    async () => {
      const done = await generateText({ ...settled, model, tools, prompt: QUESTION, toolChoice: "required" });
      expect(done.toolCalls[0]?.toolName === "get_weather", done.content);
    },
    { llm: true },
  );

  check(
    `${name}: generateObject`,
    async () => {
      const { object } = await generateObject({ ...settled, model, schema, prompt: QUESTION });
      expect(object.metres === 61, object);
    },
    { llm: true },
  );

  check(
    `${name}: Output.object in a stream`,
    async () => {
      const { result } = await streamed({ model, output: Output.object({ schema }), prompt: QUESTION });
      expect((await result.output).metres === 61, await result.output);
    },
    { llm: true },
  );

  check(
    `${name}: image`,
    async () => {
      const content = [
        { type: "text", text: "What is in this picture?" },
        { type: "file", data: PIXEL, mediaType: "image/png" },
      ];
      const { text } = await generateText({ ...settled, model, messages: [{ role: "user", content }] });
      expect(text.includes("image"), text);
    },
    { llm: true },
  );
}

check("responses: sources", async () => {
  const { sources } = await generateText({ ...settled, model: models.responses, prompt: QUESTION });
  expect(sources.some((source) => source.title.startsWith("lighthouse.md")), sources);
});

check("chat: sources", async () => {
  const { sources } = await generateText({ ...settled, model: models.chat, prompt: QUESTION });
  return JSON.stringify(sources);
});

check("responses: previousResponseId", async () => {
  const first = await generateText({ ...settled, model: models.responses, prompt: QUESTION });
  const previousResponseId = first.providerMetadata.openai.responseId;
  const { text } = await generateText({
    ...settled,
    model: models.responses,
    prompt: "When does the ferry leave?",
    providerOptions: { openai: { previousResponseId } },
  });
  expect(text.includes("noon"), text);
});

check("responses: file search beside a function", async () => {
  const stores = await (await fetch(`${BASE_URL}/vector_stores`, { headers: { Authorization: `Bearer ${API_KEY}` } })).json();
  const id = stores.data.find((store) => store.name === "default").id;
  const { text } = await generateText({
    ...settled,
    model: models.responses,
    prompt: QUESTION,
    tools: { ...tools, file_search: openai.tools.fileSearch({ vectorStoreIds: [id], maxNumResults: 3 }) },
  });
  expect61(text);
});

check("completion model", async () => {
  expect61((await generateText({ ...settled, model: openai.completion("ragq"), prompt: QUESTION })).text);
});

check("compatible completion model", async () => {
  expect61((await generateText({ ...settled, model: compatible.completionModel("ragq"), prompt: QUESTION })).text);
});

for (const [name, model] of Object.entries({ openai: openai.embedding("ragq"), compatible: compatible.embeddingModel("ragq") })) {
  check(`${name}: embedMany of 600`, async () => {
    const values = Array.from({ length: 600 }, (_, index) => `text ${index}`);
    const { embeddings } = await embedMany({ ...settled, model, values });
    expect(embeddings.length === 600 && embeddings[0].length === 384, embeddings.length);
  });
}

await run();
