// The documents of a store: what state they are in and why; and poison, the files that are not read again.

import { button, confirm, count, filters, get, h, post, remove, say, table, time } from "./console-parts.js";

const STATES = [["", "All"], ["in_progress", "In progress"], ["completed", "Completed"], ["failed", "Failed"], ["cancelled", "Cancelled"]];
const PAGE = 50;

export async function documents({ root, query, isOperator, isOpen }) {
  const stores = await get("v1/vector_stores", { limit: 100 });
  if (!isOpen()) return;
  const names = stores.data.map((store) => [store.id, `${store.name || store.id} (${count(store.file_counts.total)})`]);
  const store = query.store ?? names[0]?.[0] ?? "default";
  const list = h("div", {});
  const poison = h("section", { attributes: { "aria-label": "Poison" } });
  const fields = [["store", "Store", names.length ? names : [["default", "default"]]], ["filter", "State", STATES]];
  root.append(filters("Documents", "documents", fields, { store, ...query }), list, poison);
  const where = `v1/vector_stores/${encodeURIComponent(store)}/files`;

  async function show(after) {
    const page = await get(where, { limit: PAGE, filter: query.filter, after });
    if (!isOpen()) return;
    const columns = ["Document", "State", "Passages", "What of it", "Added", ""];
    const rows = page.data.map((file) => [
      h("span", { className: "name" }, file.filename),
      h("span", { className: `badge ${file.status}` }, STATES.find(([state]) => state === file.status)?.[1] ?? file.status),
      count(file.chunk_count),
      file.last_error?.message ?? file.warnings.join(". "),
      time(file.created_at),
      actions(file),
    ]);
    list.replaceChildren(
      rows.length ? table("Documents", columns, rows) : h("p", { className: "none" }, "No documents."),
      h("p", { className: "pager" }, after ? button("Newest", () => show()) : null, page.has_more ? button("Older", () => show(page.last_id)) : null),
    );
  }

  function actions(file) {
    const again = async () => {
      await post(where, { file_id: file.id });
      say(`${file.filename} is read again.`);
      await show();
    };
    const drop = async () => {
      if (!(await confirm(`Remove ${file.filename}?`, "It leaves this store; the file itself stays.", "Remove"))) return;
      await remove(`${where}/${file.id}`);
      say(`${file.filename} was removed.`);
      await show();
    };
    const fails = ["failed", "cancelled"].includes(file.status);
    return h(
      "span",
      { className: "actions" },
      fails ? button("Read again", again, "quiet", { "aria-label": `Read ${file.filename} again` }) : null,
      button("Remove", drop, "quiet", { "aria-label": `Remove ${file.filename}` }),
    );
  }

  async function showPoison() {
    const found = (await get("v1/admin/poison")).data;
    if (!isOpen()) return;
    const rows = found.map((one) => [
      one.filenames.join(", ") || h("code", {}, one.id.slice(0, 16)),
      one.reason,
      time(one.created_at),
      isOperator ? button("Forgive", () => forgive(one), "quiet", { "aria-label": `Forgive ${one.filenames[0] ?? one.id}` }) : null,
    ]);
    const note = "Reading these crashed or took too much, so nothing reads them again until the operator forgives them.";
    const shown = rows.length
      ? [h("p", { className: "hint" }, note), table("Poison", ["File", "Reason", "Since", ""], rows)]
      : [h("p", { className: "none" }, "No file is poison.")];
    poison.replaceChildren(h("h2", {}, "Poison"), ...shown);
  }

  async function forgive(one) {
    await post(`v1/admin/poison/${one.id}/forgive`);
    say("Forgiven. Read the document again.");
    await showPoison();
  }

  await show();
  await showPoison();
}
