// Lists that are shown page by page, usage and the audit log.

import { chart } from "./console-chart.js";
import { button, count, filters, get, h, table, time } from "./console-parts.js";

const PAGE = 50;
const DAYS = 30;
const DAY = 86400;

// Shows a list page by page. `rowOf` gets an object and a function that shows the page again.
export async function paged({ root, isOpen }, path, query, columns, rowOf, label) {
  const list = h("div", {});
  root.append(list);
  async function show(after) {
    const page = await get(path, { limit: PAGE, after, ...query });
    if (!isOpen()) return;
    const rows = page.data.map((one) => rowOf(one, () => show(after)));
    list.replaceChildren(
      rows.length ? table(label, columns, rows) : h("p", { className: "none" }, "Nothing yet."),
      h("p", { className: "pager" }, after ? button("Newest", () => show()) : null, page.has_more ? button("Older", () => show(page.last_id)) : null),
    );
  }
  await show();
}

export async function usage({ root, query, isOperator, isOpen }) {
  if (isOperator) root.append(filters("Usage", "usage", [["tenant", "Tenant", "text"]], query));
  const start = (Math.floor(Date.now() / 1000 / DAY) - DAYS + 1) * DAY;
  const parameters = new URLSearchParams([["start_time", start], ["group_by", "tenant"], ["group_by", "model"]]);
  if (query.tenant) parameters.append("tenant", query.tenant);
  const page = await get(`v1/admin/usage?${parameters}`);
  if (!isOpen()) return;
  const days = Array.from({ length: DAYS }, (_, n) => page.data.find((bucket) => bucket.start_time === start + n * DAY)?.results ?? []);
  const sum = (results, name) => results.reduce((total, one) => total + one[name], 0);
  const line = (name, kind, field) => ({ name, kind, values: days.map((results) => sum(results, field)) });
  const charts = [
    chart("Questions and embeddings a day", [line("jobs", "main", "num_model_requests")], count),
    chart("Tokens a day", [line("in", "main", "input_tokens"), line("out", "soft", "output_tokens")], count),
    chart("Cost a day", [line("cost", "main", "cost")], (value) => value.toFixed(2)),
  ];
  const groups = Map.groupBy(days.flat(), (one) => `${one.project_id}\n${one.model}`);
  const rows = [...groups.values()].map((results) => [
    results[0].project_id,
    results[0].model || "–",
    ...["num_model_requests", "input_tokens", "output_tokens", "documents", "pages"].map((name) => count(sum(results, name))),
    sum(results, "cost").toFixed(4),
  ]);
  const columns = ["Tenant", "Model", "Jobs", "Tokens in", "Tokens out", "Documents", "Pages", "Cost"];
  root.append(h("div", { className: "charts" }, charts), rows.length ? table("Usage of 30 days", columns, rows) : h("p", { className: "none" }, "Nothing yet."));
}

export async function audit(view) {
  const { query, isOperator } = view;
  const fields = [["event_types", "Type", "text"], ["resource_ids", "Object", "text"], ["actor_ids", "Actor", "text"]];
  view.root.append(filters("Audit log", "audit", isOperator ? [...fields, ["tenant", "Tenant", "text"]] : fields, query));
  const columns = ["When", "What", "Object", "Who", "From", "Outcome"];
  await paged(view, "v1/admin/audit_log", query, columns, (entry) => [
    time(entry.effective_at),
    entry.type,
    h("code", {}, entry.resource_id ?? "–"),
    entry.actor.name ?? entry.actor.id ?? entry.actor.type,
    entry.actor.ip_address ?? "–",
    h("span", { className: `badge ${entry.outcome}` }, entry.code ? `${entry.code} (${count(entry.count)})` : entry.outcome),
  ], "Audit log");
}
