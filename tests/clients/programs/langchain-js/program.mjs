// LangChain.js: its OpenAI integration.
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { API_KEY, BASE_URL, check, expect, expect61, QUESTION, run } from "./checks.mjs";

const configuration = { baseURL: BASE_URL };
const make = (options) => new ChatOpenAI({ model: "ragq", apiKey: API_KEY, configuration, maxRetries: 0, ...options });
const weather = tool(({ location }) => `It is 21 degrees in ${location}.`, {
  name: "get_weather",
  description: "Get the weather in a place",
  schema: z.object({ location: z.string() }),
});
const Height = z.object({ subject: z.string(), metres: z.number() });
const prompt = "What is the weather in Paris?";

for (const [kind, options] of Object.entries({ chat: {}, responses: { useResponsesApi: true } })) {
  const model = make(options);
  check(`${kind}: invoke`, async () => expect61((await model.invoke(QUESTION)).text));

  check(`${kind}: stream`, async () => {
    let text = "";
    for await (const chunk of await model.stream(QUESTION)) text += chunk.text;
    expect61(text);
  });

  check(`${kind}: second turn`, async () => {
    const first = await model.invoke(QUESTION);
    const messages = [new HumanMessage(QUESTION), first, new HumanMessage("When does the ferry leave?")];
    const { text } = await model.invoke(messages);
    expect(text.includes("noon"), text);
  });

  check(
    `${kind}: bindTools, and their results`,
    async () => {
      const bound = model.bindTools([weather]);
      const messages = [new HumanMessage(prompt)];
      const called = await bound.invoke(messages);
      expect(called.tool_calls?.length === 1, called);
      const [call] = called.tool_calls;
      messages.push(called, new ToolMessage({ content: await weather.invoke(call.args), tool_call_id: call.id }));
      const { text } = await bound.invoke(messages);
      expect(text.includes("21 degrees in Paris"), text);
    },
    { llm: true },
  );

  for (const method of ["jsonSchema", "functionCalling"]) {
    check(
      `${kind}: structured output, ${method}`,
      async () => {
        const answer = await model.withStructuredOutput(Height, { method, name: "height" }).invoke(QUESTION);
        expect(answer.metres === 61, answer);
      },
      { llm: true },
    );
  }
}

check("chat: settings", async () => {
  const settings = { temperature: 0.2, topP: 0.9, maxTokens: 200, frequencyPenalty: 0.1, presencePenalty: 0.1, stop: ["END"] };
  expect61((await make(settings).invoke(QUESTION)).text);
});

check("embeddings of 600 texts", async () => {
  const model = new OpenAIEmbeddings({ model: "ragq", apiKey: API_KEY, configuration, maxRetries: 0 });
  const vectors = await model.embedDocuments(Array.from({ length: 600 }, (_, index) => `text ${index}`));
  expect(vectors.length === 600 && vectors[0].length === 384, vectors.length);
});

await run();
