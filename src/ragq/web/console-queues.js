// Queues with their charts, and workers.

import { chart } from "./console-chart.js";
import { button, confirm, count, duration, get, h, post, say, table } from "./console-parts.js";

const SECONDS = 300;
const STEP = 10;
const NAMES = { queries: "Questions", documents: "Documents" };

export async function queues({ root, isOperator, isOpen }) {
  async function show() {
    const page = await get("v1/admin/queues", { seconds: SECONDS });
    if (!isOpen()) return;
    const focused = document.activeElement?.dataset?.queue;
    root.replaceChildren(...page.data.map((queue) => card(queue, page.until)));
    if (focused) root.querySelector(`[data-queue="${focused}"]`)?.focus();
  }

  function card(queue, until) {
    const name = NAMES[queue.id] ?? queue.id;
    const facts = [
      ["Queued", h("a", { href: `#jobs?state=queued&queue=${queue.id}` }, count(queue.queued))],
      ["Running", h("a", { href: `#jobs?state=started&queue=${queue.id}` }, count(queue.in_flight))],
      ["For later", count(queue.scheduled)],
      ["Oldest waits", queue.oldest_seconds === null ? "–" : duration(queue.oldest_seconds * 1000)],
    ];
    const verb = queue.paused ? "Resume" : "Pause";
    const act = isOperator && button(`${verb} ${name.toLowerCase()}`, () => toggle(queue, name), "quiet", { "data-queue": queue.id });
    return h(
      "article",
      { attributes: { "aria-label": name } },
      h("div", { className: "title" }, h("h2", {}, name), queue.paused ? h("span", { className: "badge canceled" }, "Paused") : null, act || null),
      h("dl", { className: "facts" }, facts.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value)))),
      h("div", { className: "charts" }, charts(queue.rates, until)),
    );
  }

  async function toggle(queue, name) {
    if (!queue.paused) {
      const text = "No worker takes its jobs until it is resumed. What runs goes on, what comes waits, and deadlines count.";
      if (!(await confirm(`Pause ${name.toLowerCase()}?`, text, "Pause"))) return;
    }
    await post(`v1/admin/queues/${queue.id}/${queue.paused ? "resume" : "pause"}`);
    await show();
    say(`${name}: ${queue.paused ? "resumed" : "paused"}.`);
  }

  await show();
  return show;
}

// One value for each ten seconds; `until` is the end of the last complete ones.
function charts(rates, until) {
  const steps = Array.from({ length: SECONDS / STEP }, (_, n) => until - SECONDS + n * STEP);
  const found = steps.map((at) => rates.find((rate) => Math.abs(rate.at - at) < 1));
  const values = (name) => found.map((rate) => rate?.[name] ?? null);
  const numbers = (name) => found.map((rate) => rate?.[name] ?? 0);
  const perTen = (value) => `${count(value)} in 10 s`;
  return [
    chart("Throughput", [{ name: "ended", kind: "main", values: numbers("ended") }, { name: "failed", kind: "bad", values: numbers("failed") }], perTen),
    chart("Wait", [{ name: "half", kind: "main", values: values("waited_p50") }, { name: "95 %", kind: "soft", values: values("waited_p95") }], duration),
    chart("Run", [{ name: "half", kind: "main", values: values("ran_p50") }, { name: "95 %", kind: "soft", values: values("ran_p95") }], duration),
  ];
}

export async function workers({ root, isOpen }) {
  async function show() {
    const page = await get("v1/admin/workers");
    if (!isOpen()) return;
    const focused = document.activeElement?.getAttribute("aria-label");
    const rows = page.data.map((worker) => [
      h("span", { className: "name" }, worker.name),
      `${worker.host}, ${worker.pid}`,
      worker.queues.join(", "),
      h("span", { className: `badge ${worker.state}` }, worker.ready ? worker.state : "starting"),
      duration((worker.heartbeat_seconds ?? 0) * 1000),
      h("a", { href: `#jobs?state=started&worker=${encodeURIComponent(worker.name)}` }, inFlight(worker)),
      `${count(worker.finished)} / ${count(worker.failed)}`,
      button("Drain", () => drain(worker), "quiet", { "aria-label": `Drain ${worker.name}` }),
    ]);
    const columns = ["Worker", "Host, process", "Queues", "State", "Heartbeat ago", "In flight", "Finished / failed", ""];
    root.replaceChildren(rows.length ? table("Workers", columns, rows) : h("p", { className: "none" }, "No worker is alive."));
    if (focused) [...root.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === focused)?.focus();
  }

  async function drain(worker) {
    const text = "It ends its jobs, takes no others, and stops. What started it, as ragq up, may start another.";
    if (!(await confirm(`Drain ${worker.name}?`, text, "Drain"))) return;
    await post(`v1/admin/workers/${encodeURIComponent(worker.name)}/drain`);
    say(`${worker.name} drains.`);
    await show();
  }

  await show();
  return show;
}

function inFlight(worker) {
  const slots = Object.values(worker.slots).reduce((sum, one) => sum + one, 0);
  return slots ? `${count(worker.in_flight)} of ${count(slots)}` : count(worker.in_flight);
}
