// The console's entry point: its views, and which one the address names.

import { keys, tenants } from "./console-accounts.js";
import { documents } from "./console-documents.js";
import { job } from "./console-job.js";
import { jobs } from "./console-jobs.js";
import { audit, usage } from "./console-lists.js";
import { h, say } from "./console-parts.js";
import { queues, workers } from "./console-queues.js";
import { begin } from "./unlock.js";

const POLL_MS = 2000; // no view asks more often
const VIEWS = { queues, workers, jobs, job, documents, tenants, keys, usage, audit };
const TITLES = {
  queues: "Queues",
  workers: "Workers",
  jobs: "Jobs",
  documents: "Documents",
  tenants: "Tenants",
  keys: "Keys",
  usage: "Usage",
  audit: "Audit log",
};
const OPERATORS = ["workers", "tenants"]; // views

const place = document.getElementById("view");
const nav = document.getElementById("views");

const session = await begin();
const isOperator = session.role === "operator";
let refresh = null; // of the open view, if it is one that changes by itself
let shown = 0; // counts the views that were opened
let isBusy = false;

// The view's name, the id behind it, and its filters: `job/resp_1`, `jobs?state=failed`.
function readAddress() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [name, ...rest] = path.split("/");
  const known = Object.hasOwn(VIEWS, name) && (isOperator || !OPERATORS.includes(name));
  return { name: known ? name : "queues", id: decodeURIComponent(rest.join("/")), query: Object.fromEntries(new URLSearchParams(query)) };
}

async function open() {
  const { name, id, query } = readAddress();
  shown += 1;
  const mine = shown;
  refresh = null;
  say("");
  for (const link of nav.children) {
    if (link.dataset.view === (name === "job" ? "jobs" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name] ?? "Job"} · ragq console`;
  const root = h("section", { className: name, attributes: { "aria-label": TITLES[name] ?? "Job" } });
  place.replaceChildren(root);
  try {
    const again = await VIEWS[name]({ root, id, query, isOperator, isOpen: () => shown === mine });
    if (shown === mine) refresh = again ?? null;
  } catch (error) {
    if (shown === mine) say(error.message, true);
  }
}

// Asks again while the view is open and seen, one request at a time.
async function poll() {
  if (!refresh || isBusy || document.hidden || document.querySelector("dialog[open]")) return;
  isBusy = true;
  const mine = shown;
  try {
    await refresh();
    if (shown === mine) document.body.classList.remove("stale");
  } catch (error) {
    if (shown === mine) {
      say(`Not up to date: ${error.message}`, true);
      document.body.classList.add("stale");
    }
  } finally {
    isBusy = false;
  }
}

if (["admin", "operator"].includes(session.role)) {
  document.getElementById("scope").textContent = isOperator ? "All tenants" : `Tenant ${session.tenant}`;
  const names = Object.keys(TITLES).filter((name) => isOperator || !OPERATORS.includes(name));
  nav.append(...names.map((name) => h("a", { href: `#${name}`, attributes: { "data-view": name } }, TITLES[name])));
  addEventListener("hashchange", open);
  document.addEventListener("visibilitychange", poll);
  await open();
  setInterval(poll, POLL_MS);
} else {
  say("The console needs an admin's key. Sign out to use another one.", true);
}
