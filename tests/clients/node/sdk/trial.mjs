// How every script of this folder tries its client: as python/trial.py does, whose scenario they share.
//
// `node SCRIPT.mjs KEY ORIGIN[,ORIGIN…] MODEL[,MODEL…]` makes every check against every gateway and model, and prints
// one JSON object a line for each pair: {"origin", "model", "version", "found": {check: what it saw},
// "failed": {check: why}}. A check is a function of a gateway that throws where the client does not get what it should.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename } from "node:path";

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));

export const scenario = read("../../python/scenario.json");
export const finalText = scenario.steps.at(-1).text;
export const cities = scenario.steps[0].calls.map((call) => call.arguments.city);
export const WRONG_KEY = `sk-turnout-${"0".repeat(40)}`;
export const UNKNOWN_MODEL = "no-such-model";

const script = basename(process.argv[1], ".mjs");

// What the tool gives back is nowhere else, so that whoever sees it knows that this script's tool ran.
export const weather = ({ city }) => `${scenario.weather[city]}, measured by ${script}`;

export function isMadeUp(text) {
  assert.ok(text.startsWith("[emulated"), `not an emulated provider's ordinary answer: ${text.slice(0, 80)}`);
  return text;
}

export async function collect(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

// Returns the client's own error; anything else is a failure of the check.
export async function raises(expected, status, ask) {
  let answer;
  try {
    answer = await ask();
  } catch (error) {
    if (error.constructor !== expected) throw error;
    assert.equal(error.status ?? error.statusCode, status);
    return { class: error.constructor.name, status };
  }
  throw new Error(`no error but ${JSON.stringify(answer)?.slice(0, 200)}`);
}

export async function run(distribution, checks) {
  const { version } = read(`./node_modules/${distribution}/package.json`);
  const [key, origins, models] = process.argv.slice(2);
  for (const origin of origins.split(",")) {
    for (const model of models.split(",")) {
      const [found, failed] = [{}, {}];
      for (const [name, check] of Object.entries(checks)) {
        try {
          found[name] = (await check({ origin, key, model, v1: `${origin}/v1` })) ?? null;
        } catch (error) {
          failed[name] = String(error?.stack ?? error).slice(0, 3000);
        }
      }
      console.log(JSON.stringify({ origin, model, version, found, failed }));
    }
  }
}
