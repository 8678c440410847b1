// Vercel's AI SDK, through three of its providers: each speaks another API of the gateway.

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  embedMany,
  generateObject,
  generateText,
  jsonSchema,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import { z } from "zod";
import {
  UNKNOWN_MODEL,
  WRONG_KEY,
  cities,
  collect,
  finalText,
  isMadeUp,
  raises,
  run,
  scenario,
  weather,
} from "./trial.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const PROVIDERS = {
  compatible: ({ v1, key }) =>
    createOpenAICompatible({
      name: "turnout",
      baseURL: v1,
      apiKey: key,
      includeUsage: true,
      supportsStructuredOutputs: true,
    }),
  responses: ({ v1, key }) => createOpenAI({ baseURL: v1, apiKey: key }),
  anthropic: ({ v1, key }) => createAnthropic({ baseURL: v1, apiKey: key }),
};
const prompt = scenario.question;
const schema = z.object({ name: z.string(), age: z.number() });

function toolbox() {
  const asked = [];
  const { name, description, parameters } = scenario.tool;
  const execute = async (argument) => {
    asked.push(argument.city);
    return weather(argument);
  };
  const tools = { [name]: tool({ description, inputSchema: jsonSchema(parameters), execute }) };
  return { asked, options: { tools, stopWhen: stepCountIs(4), prompt: scenario.tool_question } };
}

// The SDK tells what goes wrong in a stream to a callback and ends the stream: here it is thrown.
async function streamed(start, options, parts) {
  const errors = [];
  const result = start({ ...options, onError: ({ error }) => errors.push(error) });
  const seen = await collect(result[parts]);
  if (errors.length > 0) throw errors[0];
  return { result, seen };
}

function checksOf(provider) {
  const optionsOf = (gateway) => ({ model: PROVIDERS[provider](gateway)(gateway.model), maxRetries: 0 });
  const textOf = async (gateway) => (await generateText({ ...optionsOf(gateway), prompt })).text;
  return {
    async text(gateway) {
      const { text, finishReason, usage } = await generateText({ ...optionsOf(gateway), prompt, system: "Be brief." });
      isMadeUp(text);
      assert.equal(finishReason, "stop");
      assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
      return usage.totalTokens;
    },

    async text_streamed(gateway) {
      const { result, seen } = await streamed(streamText, { ...optionsOf(gateway), prompt }, "textStream");
      assert.equal(seen.join(""), await textOf(gateway));
      assert.equal(await result.finishReason, "stop");
      assert.ok((await result.usage).outputTokens > 0);
      return seen.length;
    },

    async tools(gateway) {
      const { asked, options } = toolbox();
      const { text, steps } = await generateText({ ...optionsOf(gateway), ...options });
      assert.equal(text, finalText);
      assert.deepEqual([asked, steps.length], [cities, 2]);
    },

    async tools_streamed(gateway) {
      const { asked, options } = toolbox();
      const { result } = await streamed(streamText, { ...optionsOf(gateway), ...options }, "fullStream");
      assert.equal(await result.text, finalText);
      assert.deepEqual([asked, (await result.steps).length], [cities, 2]);
    },

    // The second request holds what the SDK makes of the first answer. Its Responses provider takes it for granted that
    // answers are stored, and would only refer to the text by its id, unless it is told that they are not.
    async two_turns(gateway) {
      const options = { ...optionsOf(gateway), providerOptions: { openai: { store: false } } };
      const first = { role: "user", content: prompt };
      const { response } = await generateText({ ...options, messages: [first] });
      const messages = [first, ...response.messages, { role: "user", content: "Say it again." }];
      isMadeUp((await generateText({ ...options, messages })).text);
    },

    async object(gateway) {
      const { object } = await generateObject({ ...optionsOf(gateway), schema, prompt: scenario.structured_question });
      return object;
    },

    async object_streamed(gateway) {
      const options = { ...optionsOf(gateway), schema, prompt: scenario.structured_question };
      const { result } = await streamed(streamObject, options, "partialObjectStream");
      return result.object;
    },

    wrong_key: (gateway) => raises(APICallError, 401, () => textOf({ ...gateway, key: WRONG_KEY })),
    unknown_model: (gateway) => raises(APICallError, 404, () => textOf({ ...gateway, model: UNKNOWN_MODEL })),
  };
}

const named = Object.keys(PROVIDERS).flatMap((provider) =>
  Object.entries(checksOf(provider)).map(([name, check]) => [`${provider}.${name}`, check]),
);

async function embeddings(gateway) {
  const model = PROVIDERS.compatible(gateway).embeddingModel("embedder");
  const { embeddings: vectors } = await embedMany({ model, values: ["one text", "another"], maxRetries: 0 });
  assert.ok(vectors.length === 2 && vectors[0].length > 1 && vectors.flat().every(Number.isFinite));
  return vectors[0].length;
}

await run("ai", { ...Object.fromEntries(named), embeddings });
