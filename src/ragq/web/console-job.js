// One job: its facts, steps, stages and sources.

import { VERBS, actionsFor, badge } from "./console-jobs.js";
import { button, confirm, count, duration, get, h, post, remove, say, time } from "./console-parts.js";

const STEPS = {
  queued: "Queued",
  started: "Started",
  searching: "Searches",
  found: "Has searched",
  writing: "Writes the answer",
  finished: "Finished",
  failed: "Failed",
  canceled: "Cancelled",
};

export async function job({ root, id, isOpen }) {
  const path = `v1/admin/jobs/${encodeURIComponent(id)}`;
  let hasEnded = false;

  async function show() {
    const found = await get(path);
    if (!isOpen()) return;
    const focused = document.activeElement?.dataset?.action;
    hasEnded = found.ended_at !== null;
    root.replaceChildren(...parts(found));
    if (focused) root.querySelector(`[data-action="${focused}"]`)?.focus();
  }

  function parts(found) {
    const { timeline } = found;
    const actions = actionsFor(found.state).map((action) => button(VERBS[action], () => act(action), "quiet", { "data-action": action }));
    return [
      h("div", { className: "title" }, h("h2", {}, found.kind === "document" ? "Document" : "Question"), badge(found.state), ...actions),
      h("p", { className: "question" }, timeline.question || found.id),
      timeline.error ? h("p", { className: "fault" }, `${found.error_code}: ${timeline.error}`) : null,
      facts(found),
      section("Steps", steps(timeline.steps)),
      timeline.stages.length ? section("Stages", stages(timeline.stages)) : null,
      timeline.sources.length ? section("Sources", sources(timeline.sources)) : null,
      timeline.answer ? section("Answer", h("p", { className: "answer" }, timeline.answer)) : null,
    ].filter(Boolean);
  }

  async function act(action) {
    if (action === "delete") {
      if (!(await confirm("Delete this job?", "Its answer is deleted with it. This cannot be undone.", "Delete"))) return;
      await remove(path);
      location.hash = "jobs";
      return;
    }
    await post(`${path}/${action}`);
    say(action === "retry" ? "It waits to run again." : "Cancelled.");
    await show();
  }

  await show();
  return async () => {
    if (!hasEnded) await show();
  };
}

function section(title, content) {
  return h("section", { attributes: { "aria-label": title } }, h("h2", {}, title), content);
}

function facts(found) {
  const { timeline } = found;
  const pairs = [
    ["Id", h("code", {}, found.id)],
    ["Tenant", found.tenant],
    ["Key", found.api_key_id ?? "–"],
    ["Queue", `${found.queue}, ${found.lane}`],
    ["Worker", found.worker ?? "–"],
    ["Attempts", `${found.attempts}, ${timeline.tries} charged, ${timeline.deaths} deaths of workers`],
    ["Waited", duration(found.waited_ms)],
    ["Ran", duration(found.ran_ms)],
    ["Model", found.model ?? "–"],
    ["Tokens", `${count(found.input_tokens)} in, ${count(found.output_tokens)} out`],
    ["Cost", found.cost === null ? "–" : found.cost.toFixed(6)],
    ["Deadline", time(timeline.deadline_at)],
  ];
  return h("dl", { className: "facts" }, pairs.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

function steps(list) {
  const start = list[0]?.at ?? 0;
  const items = list.map((step) =>
    h(
      "li",
      { className: step.what },
      h("b", {}, STEPS[step.what] ?? step.what),
      step.attempt ? h("span", { className: "hint" }, `attempt ${step.attempt}`) : null,
      step.detail ? h("span", { className: "hint" }, step.detail) : null,
      h("span", { className: "hint" }, step.at === start ? time(step.at) : `+ ${duration((step.at - start) * 1000)}`),
    ),
  );
  return h("ol", { className: "steps" }, items);
}

function stages(list) {
  const most = Math.max(1, ...list.map((stage) => stage.ms));
  const items = list.map((stage) => {
    const name = stage.stage.replace("_", " ");
    return h("li", {}, h("span", {}, name), h("meter", { value: stage.ms, max: most, attributes: { "aria-label": name } }), h("span", {}, duration(stage.ms)));
  });
  return h("ul", { className: "stages" }, items);
}

function sources(list) {
  const items = list.map((source) =>
    h(
      "li",
      {},
      h("span", { className: "name" }, source.filename),
      source.page ? h("span", { className: "hint" }, `page ${source.page}`) : null,
      h("span", { className: "hint" }, `score ${source.score.toFixed(2)}`),
      source.citations ? h("span", { className: "badge finished" }, "cited") : null,
    ),
  );
  return h("ul", { className: "sources" }, items);
}
