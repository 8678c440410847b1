// The openai package for Node: chat, Responses, legacy completions, embeddings, models, and how it is refused.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
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

const messages = [
  { role: "developer", content: "Be brief." },
  { role: "user", content: scenario.question },
];
const toolMessages = [{ role: "user", content: scenario.tool_question }];
const Person = z.object({ name: z.string(), age: z.number() });

const clientOf = ({ v1, key }) => new OpenAI({ baseURL: v1, apiKey: key, maxRetries: 0 });

async function chatText(gateway) {
  const answer = await clientOf(gateway).chat.completions.create({ model: gateway.model, messages });
  return answer.choices[0].message.content;
}

// The library's own loop: it calls the function and asks again until there is text.
async function chatLoop(gateway, extra) {
  const asked = [];
  const measure = (argument) => {
    asked.push(argument.city);
    return weather(argument);
  };
  const runner = clientOf(gateway).chat.completions.runTools({
    model: gateway.model,
    messages: toolMessages,
    tools: [{ type: "function", function: { ...scenario.tool, parse: JSON.parse, function: measure } }],
    ...extra,
  });
  assert.equal(await runner.finalContent(), finalText);
  assert.deepEqual(asked, cities);
  return asked;
}

async function responsesLoop(gateway, ask) {
  const input = [...toolMessages];
  const asked = [];
  const tools = [{ type: "function", ...scenario.tool, strict: true }];
  for (let n = 0; n < 3; n++) {
    const response = await ask(clientOf(gateway).responses, { model: gateway.model, input, tools, store: false });
    assert.equal(response.status, "completed");
    const calls = response.output.filter((item) => item.type === "function_call");
    if (calls.length === 0) {
      assert.equal(response.output_text, finalText);
      break;
    }
    input.push(...response.output);
    for (const { call_id, arguments: written } of calls) {
      const argument = JSON.parse(written);
      asked.push(argument.city);
      input.push({ type: "function_call_output", call_id, output: weather(argument) });
    }
  }
  assert.deepEqual(asked, cities);
  return asked;
}

await run("openai", {
  async chat(gateway) {
    const asked = { model: gateway.model, messages };
    const { data, response } = await clientOf(gateway).chat.completions.create(asked).withResponse();
    isMadeUp(data.choices[0].message.content);
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.ok(data.usage.prompt_tokens > 0 && data.usage.completion_tokens > 0);
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.ok(data._request_id);
    assert.equal(data._request_id, response.headers.get("x-request-id"));
    return data.usage.total_tokens;
  },

  async chat_streamed(gateway) {
    const asked = { model: gateway.model, messages, stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await clientOf(gateway).chat.completions.create(asked));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, await chatText(gateway));
    assert.deepEqual(chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean), ["stop"]);
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
    return chunks.length;
  },

  async chat_streamed_without_usage(gateway) {
    const chunks = await collect(
      await clientOf(gateway).chat.completions.create({ model: gateway.model, messages, stream: true }),
    );
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && !chunk.usage));
  },

  chat_tools: (gateway) => chatLoop(gateway, {}),
  chat_tools_streamed: (gateway) => chatLoop(gateway, { stream: true }),

  async chat_structured(gateway) {
    const answer = await clientOf(gateway).chat.completions.parse({
      model: gateway.model,
      messages: [{ role: "user", content: scenario.structured_question }],
      response_format: zodResponseFormat(Person, "person"),
    });
    return Person.parse(answer.choices[0].message.parsed);
  },

  async responses(gateway) {
    const asked = { model: gateway.model, input: scenario.question };
    const { data, response } = await clientOf(gateway).responses.create(asked).withResponse();
    isMadeUp(data.output_text);
    assert.equal(data.status, "completed");
    assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
    assert.equal(data._request_id, response.headers.get("x-request-id"));
    return data.usage.total_tokens;
  },

  async responses_streamed(gateway) {
    const asked = { model: gateway.model, input: scenario.question };
    const stream = clientOf(gateway).responses.stream(asked);
    const events = await collect(stream);
    const last = await stream.finalResponse();
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    const text = deltas.map((event) => event.delta).join("");
    assert.equal(text, last.output_text);
    assert.equal(text, (await clientOf(gateway).responses.create(asked)).output_text);
    assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    assert.ok(last.usage.output_tokens > 0);
    return events.length;
  },

  responses_tools: (gateway) => responsesLoop(gateway, (api, body) => api.create(body)),
  responses_tools_streamed: (gateway) => responsesLoop(gateway, (api, body) => api.stream(body).finalResponse()),

  async responses_structured(gateway) {
    const answer = await clientOf(gateway).responses.parse({
      model: gateway.model,
      input: scenario.structured_question,
      text: { format: zodTextFormat(Person, "person") },
    });
    return Person.parse(answer.output_parsed);
  },

  async completions(gateway) {
    const api = clientOf(gateway).completions;
    const asked = { model: gateway.model, prompt: scenario.question };
    const text = isMadeUp((await api.create(asked)).choices[0].text);
    const chunks = await collect(await api.create({ ...asked, stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join(""), text);
  },

  // The library asks for base64 by itself.
  async embeddings(gateway) {
    const api = clientOf(gateway).embeddings;
    const asked = { model: "embedder", input: ["one text", "another"] };
    const vectorsOf = ({ data }) => data.map((row) => row.embedding.map(Math.fround));
    const vectors = vectorsOf(await api.create(asked));
    assert.deepEqual(vectors, vectorsOf(await api.create({ ...asked, encoding_format: "float" })));
    assert.ok(vectors.length === 2 && vectors[0].length > 1 && vectors.flat().every(Number.isFinite));
    return vectors[0].length;
  },

  async models(gateway) {
    const names = (await collect(await clientOf(gateway).models.list())).map((model) => model.id);
    for (const name of ["auto", "large", "medium", "small"]) assert.ok(names.includes(name), name);
    assert.equal((await clientOf(gateway).models.retrieve("large")).id, "large");
    return names;
  },

  wrong_key: (gateway) => raises(OpenAI.AuthenticationError, 401, () => chatText({ ...gateway, key: WRONG_KEY })),
  unknown_model: (gateway) => raises(OpenAI.NotFoundError, 404, () => chatText({ ...gateway, model: UNKNOWN_MODEL })),

  wrong_key_for_responses: (gateway) =>
    raises(OpenAI.AuthenticationError, 401, () =>
      clientOf({ ...gateway, key: WRONG_KEY }).responses.create({ model: gateway.model, input: "Hello." }),
    ),
  unknown_model_for_responses: (gateway) =>
    raises(OpenAI.NotFoundError, 404, () =>
      clientOf(gateway).responses.create({ model: UNKNOWN_MODEL, input: "Hello." }),
    ),
});
