// What the Node programs share: named checks, each printed as one line of JSON.

export const BASE_URL = process.env.OPENAI_BASE_URL;
export const API_KEY = process.env.OPENAI_API_KEY;
export const HAS_LLM = process.env.SERVICE === "llm";
export const QUESTION = "How tall is the lighthouse of Quorra?";
const SECONDS = 60;
const checks = [];
console.log = console.error; // what clients print goes to stderr

/** Add a check: it throws if it fails, and may return a detail. With `llm`, only where there is an LLM. */
export function check(name, run, { llm = false } = {}) {
  if (HAS_LLM || !llm) checks.push({ name, run });
}

/** Fail with the detail unless the condition holds. */
export function expect(condition, detail) {
  if (!condition) throw new Error(typeof detail === "string" ? detail : JSON.stringify(detail));
}

/** Fail unless the text gives the height of the lighthouse, which only the documents know. */
export function expect61(text) {
  expect(String(text).includes("61"), `no 61 in: ${JSON.stringify(text)}`);
  return String(text);
}

export function report(check, ok, detail) {
  const line = { client: process.env.CLIENT, check, ok, detail: String(detail ?? "").replace(/\s+/g, " ").slice(0, 600) };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** Run all checks, or those that ONLY_CHECKS names. */
export async function run() {
  const only = process.env.ONLY_CHECKS?.split(";").filter(Boolean) ?? [];
  for (const { name, run: body } of checks.filter((each) => !only.length || only.includes(each.name))) {
    let timer;
    const tooLate = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done in ${SECONDS} s`)), SECONDS * 1000);
    });
    try {
      report(name, true, await Promise.race([body(), tooLate]));
    } catch (error) {
      console.error(error);
      report(name, false, `${error?.name}: ${error?.message}`);
    }
    clearTimeout(timer);
  }
  process.exit(0);
}
