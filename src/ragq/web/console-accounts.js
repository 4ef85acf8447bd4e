// Tenants and keys.

import { askFor, showKey } from "./console-form.js";
import { paged } from "./console-lists.js";
import { button, confirm, count, filters, h, post, remove, say, time } from "./console-parts.js";

const DAY = 86400;
const ROLES = [["user", "user: asks, adds documents"], ["reader", "reader: asks"], ["admin", "admin: makes keys, too"]];
const LIFETIMES = [["", "never"], [1, "1 day"], [7, "7 days"], [30, "30 days"], [90, "90 days"], [365, "1 year"]];
const GRACES = [[DAY, "1 day"], [0, "not at all"], [3600, "1 hour"], [7 * DAY, "7 days"]];
const LIMITS = { requests_per_minute: "Requests a minute", queued: "Questions queued at once", tokens_per_day: "Tokens a day" };

export async function tenants(view) {
  view.root.append(h("p", {}, button("New tenant", createTenant, "")));
  const columns = ["Tenant", "State", "Weight", "Most running", "Created", ""];
  await paged(view, "v1/admin/tenants", {}, columns, (tenant, again) => [
    h("a", { href: `#jobs?tenant=${tenant.id}` }, tenant.id),
    h("span", { className: `badge ${tenant.status}` }, tenant.status),
    String(tenant.weight),
    tenant.max_running === null ? "–" : count(tenant.max_running),
    time(tenant.created_at),
    tenant.status === "deleting" ? null : h("div", { className: "actions" }, actionsOf(tenant, again)),
  ], "Tenants");
}

function actionsOf(tenant, again) {
  const keysOf = h("a", { href: `#keys?tenant=${tenant.id}`, attributes: { "aria-label": `Keys of ${tenant.id}` } }, "Keys");
  if (tenant.id === "default") return [keysOf]; // the operator's
  const named = (verb, act) => button(verb, () => act(tenant, again), "quiet", { "aria-label": `${verb} ${tenant.id}` });
  return [keysOf, tenant.status === "active" ? named("Suspend", suspend) : named("Resume", resume), named("Delete", deleteTenant)];
}

async function createTenant() {
  const id = { name: "id", required: "", maxlength: 63, pattern: "[a-z0-9][a-z0-9\\-]*" };
  const fields = [["Name", id, "Lower-case letters, digits and hyphens. It stays as it is."]];
  const made = await askFor("New tenant", "Create", "", fields, (values) => post("v1/admin/tenants", values));
  if (made) location.hash = `keys?tenant=${made.id}`; // it has none yet
}

async function suspend(tenant, again) {
  const text = "Its keys open nothing within five seconds. Its data stays, and what it has queued goes on.";
  if (!(await confirm(`Suspend ${tenant.id}?`, text, "Suspend"))) return;
  await post(`v1/admin/tenants/${tenant.id}/suspend`);
  say(`${tenant.id}: suspended.`);
  await again();
}

async function resume(tenant, again) {
  await post(`v1/admin/tenants/${tenant.id}/resume`);
  say(`${tenant.id}: resumed.`);
  await again();
}

async function deleteTenant(tenant, again) {
  const text = "Its keys open nothing within five seconds, and all its documents, answers and keys are deleted. This cannot be undone.";
  const fields = [[`Type ${tenant.id} to delete it`, { name: "id", required: "", pattern: tenant.id, title: tenant.id }]];
  const act = () => remove(`v1/admin/tenants/${tenant.id}`);
  if (!(await askFor(`Delete ${tenant.id}?`, "Delete", text, fields, act))) return;
  say(`${tenant.id} is being deleted.`);
  await again();
}

export async function keys(view) {
  const { query, isOperator } = view;
  view.root.append(h("p", {}, button("New key", () => createKey(query.tenant, isOperator), "")));
  if (isOperator) view.root.append(filters("Keys", "keys", [["tenant", "Tenant", "text"]], query));
  const columns = ["Name", "Id", "Role", "Tenant", "Last used", "Expires", ""];
  await paged(view, "v1/admin/keys", { tenant: query.tenant }, columns, (key, again) => [
    h("span", { className: "name" }, key.name),
    h("a", { href: `#jobs?key=${key.id}` }, key.redacted_value),
    key.vector_store_ids ? `${key.role}, stores: ${count(key.vector_store_ids.length)}` : key.role,
    key.tenant,
    time(key.last_used_at),
    time(key.expires_at),
    h("div", { className: "actions" }, [["Rotate", rotate], ["Revoke", revoke]].map(([verb, act]) =>
      button(verb, () => act(key, again), "quiet", { "aria-label": `${verb} ${key.name}` }),
    )),
  ], "Keys");
}

async function createKey(tenant, isOperator) {
  const fields = [
    ["Name", { name: "name", required: "", maxlength: 256 }, "Of the person or the program."],
    isOperator ? ["Tenant", { name: "tenant", value: tenant, placeholder: "default" }] : null,
    ["Role", { name: "role", options: ROLES, value: "user" }],
    ["Expires after", { name: "days", options: LIFETIMES }],
    ["Stores", { name: "stores", placeholder: "all" }, "Ids, with spaces between them. An admin sees all."],
    ...Object.entries(LIMITS).map(([name, label]) => [label, { name, type: "number", min: name === "requests_per_minute" ? 1 : 0, placeholder: "no limit" }]),
  ];
  const key = await askFor("New key", "Create", "", fields.filter(Boolean), (values) => post("v1/admin/keys", bodyOf(values)));
  if (!key) return;
  await showKey(key.name, key.value);
  const address = isOperator ? `keys?tenant=${key.tenant}` : "keys";
  if (location.hash === `#${address}`) dispatchEvent(new Event("hashchange"));
  else location.hash = address;
}

// What was entered, as the API takes it; what was left empty is left out.
function bodyOf({ name, role, tenant, days, stores, ...limits }) {
  const given = Object.entries(limits).filter(([, value]) => value).map(([limit, value]) => [limit, Number(value)]);
  return {
    name,
    role,
    tenant: tenant || undefined,
    expires_in_seconds: days ? days * DAY : undefined,
    vector_store_ids: stores.match(/[^\s,]+/g) ?? undefined,
    limits: given.length ? Object.fromEntries(given) : undefined,
  };
}

const pathOf = (key, verb = "") => `v1/admin/keys/${key.id}${verb}?${new URLSearchParams({ tenant: key.tenant })}`;

async function rotate(key, again) {
  const text = "It gets a new value, which is shown once.";
  const fields = [["The old value holds for", { name: "seconds", options: GRACES, value: DAY }]];
  const act = ({ seconds }) => post(pathOf(key, "/rotate"), { grace_seconds: Number(seconds) });
  const rotated = await askFor(`Rotate ${key.name}?`, "Rotate", text, fields, act);
  if (!rotated) return;
  await showKey(key.name, rotated.value);
  await again();
}

async function revoke(key, again) {
  if (!(await confirm(`Revoke ${key.name}?`, "It opens nothing within five seconds. This cannot be undone.", "Revoke"))) return;
  await remove(pathOf(key));
  say(`${key.name} was revoked.`);
  await again();
}
