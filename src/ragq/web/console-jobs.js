// The list of jobs, and what is done to one, some, or all that match.

import { button, confirm, count, duration, filters, get, h, post, say, table, time } from "./console-parts.js";

const STATES = [
  ["", "All"],
  ["queued", "Queued"],
  ["scheduled", "For later"],
  ["started", "Running"],
  ["finished", "Finished"],
  ["failed", "Failed"],
  ["canceled", "Cancelled"],
];
const SINCE = [["", "Any time"], ["3600", "Last hour"], ["86400", "Last day"], ["604800", "Last week"]];
const QUEUES = [["", "All"], ["queries", "Questions"], ["documents", "Documents"]];
const POLL_MS = 2000;
const FIRST_POLL_MS = 250; // doubled each time: what is done at once is shown at once
const PAGE = 50;
const DONE = { retry: "run again", cancel: "cancelled", delete: "deleted" };
export const VERBS = { retry: "Retry", cancel: "Cancel", delete: "Delete" };

// Which actions fit a state; of all states, those that fit some.
export function actionsFor(state) {
  if (["queued", "scheduled", "started"].includes(state)) return ["cancel", "delete"];
  if (["failed", "canceled"].includes(state)) return ["retry", "delete"];
  return ["delete"];
}

export function badge(state) {
  return h("span", { className: `badge ${state}` }, STATES.find(([value]) => value === state)?.[1] ?? state);
}

export async function jobs({ root, query, isOperator, isOpen }) {
  const selected = new Set();
  const older = []; // the cursors of the pages before this one
  let after;
  const list = h("div", {});
  const bar = h("div", { className: "bar", attributes: { role: "group", "aria-label": "Actions" } });
  const pager = h("p", { className: "pager" });
  const fields = [
    ["text", "Words or id", "search"],
    ["queue", "Queue", QUEUES],
    ...(isOperator ? [["tenant", "Tenant", "text"]] : []),
    ["key", "Key", "text"],
    ["error_code", "Error code", "text"],
    ["within", "Ended", SINCE],
  ];
  root.append(tabs(query), filters("Search jobs", "jobs", fields, query), bar, list, pager);

  // The selection as the server takes it: a time instead of "within".
  function selection() {
    const { within, ...rest } = query;
    return within ? { ...rest, since: Math.floor(Date.now() / 1000) - Number(within) } : rest;
  }

  async function show() {
    const page = await get("v1/admin/jobs", { ...selection(), limit: PAGE, after });
    if (!isOpen()) return;
    const focused = document.activeElement?.value && root.contains(document.activeElement) ? document.activeElement.value : null;
    list.replaceChildren(page.data.length ? rows(page.data) : h("p", { className: "none" }, page.next ? "None among these. Look at older ones." : "No jobs."));
    if (focused?.startsWith?.("job:")) list.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
    pager.replaceChildren(
      ...(older.length ? [button("Newer", () => turn(older.pop()))] : []),
      ...(page.next ? [button("Older", () => (older.push(after), turn(page.next)))] : []),
    );
    showBar();
  }

  async function turn(cursor) {
    after = cursor;
    await show();
    list.scrollIntoView({ block: "nearest" });
  }

  function rows(found) {
    const columns = ["", "Question or id", ...(isOperator ? ["Tenant"] : []), "Queue", "State", "Attempts", "Waited", "Ran", "Ended"];
    return table(
      "Jobs",
      columns,
      found.map((job) => [
        pick(job.id, job.excerpt || job.id),
        h("a", { href: `#job/${encodeURIComponent(job.id)}`, className: "excerpt" }, job.excerpt || job.id),
        ...(isOperator ? [job.tenant] : []),
        `${job.queue}${job.lane === "default" ? "" : `, ${job.lane}`}`,
        h("span", {}, badge(job.state), job.error_code ? h("code", {}, job.error_code) : null),
        count(job.attempts),
        duration(job.waited_ms ?? (job.started_at ? null : Date.now() - job.created_at * 1000)),
        duration(job.ran_ms),
        time(job.ended_at),
      ]),
    );
  }

  function pick(id, name) {
    const box = h("input", { type: "checkbox", value: `job:${id}`, checked: selected.has(id), attributes: { "aria-label": `Select ${name}` } });
    box.onchange = () => {
      if (box.checked) selected.add(id);
      else selected.delete(id);
      showBar();
    };
    return box;
  }

  function showBar() {
    const chosen = selected.size;
    const fitting = actionsFor(query.state);
    const some = chosen ? ["retry", "cancel", "delete"] : [];
    const label = `${chosen || "all that match"}:${query.state}`;
    if (bar.dataset.label === label) return;
    bar.dataset.label = label;
    bar.replaceChildren(
      h("span", {}, chosen ? `${chosen} selected` : "All that match"),
      ...(chosen ? some : fitting).map((action) => button(VERBS[action], () => begin(action, chosen))),
    );
  }

  async function begin(action, chosen) {
    const wanted = chosen ? { ids: [...selected].slice(0, 100) } : selection();
    const found = chosen ? { count: wanted.ids.length, is_exact: true } : await get("v1/admin/jobs/count", wanted);
    const number = `${found.is_exact ? "" : "more than "}${count(found.count)}`;
    if (!found.count) return say("No jobs match.");
    if (!chosen) wanted.until = found.until; // what matches from now on was not counted
    const jobsText = found.count === 1 ? "job" : "jobs";
    const text = action === "delete" ? "Answers are deleted with their jobs. This cannot be undone." : "It is done in the background.";
    if (!(await confirm(`${VERBS[action]} ${number} ${jobsText}?`, text, `${VERBS[action]} ${number}`))) return;
    await follow(await post("v1/admin/job_actions", { action, jobs: wanted }));
    selected.clear();
    await show();
  }

  // Shows the progress until the end; the list waits.
  async function follow(begun) {
    const progress = h("progress", { max: Math.max(1, begun.total), attributes: { "aria-label": "Progress" } });
    const text = h("span", {});
    const stop = button("Stop", () => post(`v1/admin/job_actions/${begun.id}/stop`));
    bar.dataset.label = "progress";
    bar.replaceChildren(text, progress, stop);
    let now = begun;
    for (let pause = FIRST_POLL_MS; ; pause = Math.min(2 * pause, POLL_MS)) {
      progress.value = now.done + now.skipped;
      text.textContent = `${count(now.done)} of ${count(now.total)} ${DONE[now.action]}`;
      if (now.state !== "running" || !isOpen()) break;
      await new Promise((resolve) => setTimeout(resolve, pause));
      now = await get(`v1/admin/job_actions/${begun.id}`);
    }
    const skipped = now.skipped ? `, ${count(now.skipped)} were in no state for it` : "";
    say(`${count(now.done)} ${now.done === 1 ? "job" : "jobs"} ${DONE[now.action]}${skipped}${now.state === "stopped" ? "; stopped" : ""}.`);
  }

  await show();
  return async () => {
    if (bar.dataset.label !== "progress" && !older.length) await show();
  };
}

function tabs(query) {
  const links = STATES.map(([state, title]) => {
    const { state: _, ...rest } = query;
    const parameters = new URLSearchParams(state ? { ...rest, state } : rest);
    const attributes = { "aria-current": (query.state ?? "") === state ? "true" : undefined };
    return h("a", { href: `#jobs?${parameters}`, attributes }, title);
  });
  return h("div", { className: "tabs", attributes: { role: "group", "aria-label": "State" } }, links);
}
