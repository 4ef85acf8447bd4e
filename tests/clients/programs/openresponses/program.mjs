// The Open Responses compliance suite, from a checkout that OPENRESPONSES names or, where there is a network, a clone.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync } from "node:fs";
import path from "node:path";
import { API_KEY, BASE_URL, report } from "./checks.mjs";

const REPOSITORY = "https://github.com/openresponses/openresponses";
const environment = process.env.ENVIRONMENT;

function checkout() {
  if (process.env.OPENRESPONSES) return process.env.OPENRESPONSES;
  const folder = path.join(mkdtempSync("openresponses-"), "clone");
  const cloned = spawnSync("git", ["clone", "--quiet", "--depth", "1", REPOSITORY, folder], {
    timeout: 60_000,
    env: { ...process.env, GIT_TERMINAL_PROMPT: "0" },
  });
  return cloned.status === 0 ? folder : null;
}

const source = checkout();
if (!source || !existsSync(path.join(source, "bin", "compliance-test.ts"))) {
  report("suite", null, "not run: set OPENRESPONSES to a checkout of openresponses/openresponses");
  process.exit(0);
}
const suite = path.join(environment, "suite"); // packages are looked up beside it
for (const part of ["bin", "src"]) cpSync(path.join(source, part), path.join(suite, part), { recursive: true });
const done = spawnSync(
  path.join(environment, "node_modules", ".bin", "bun"),
  ["run", "bin/compliance-test.ts", "--base-url", BASE_URL, "--api-key", API_KEY, "--model", "ragq", "--json"],
  { cwd: suite, encoding: "utf8", timeout: 300_000, maxBuffer: 64 << 20 },
);
console.error(done.stdout, done.stderr);
for (const { id, status, errors, response } of JSON.parse(done.stdout).results) {
  const said = (errors ?? []).join("; ").replace("[object Object]", () => JSON.stringify(response));
  report(id, { passed: true, failed: false }[status] ?? null, said);
}
