// The documents of the default store: upload, progress, status, removal.

import { ApiError, isTemporary, pause, request, upload } from "./api.js";
import { make } from "./element.js";

const STORE = "v1/vector_stores/default/files";
const POLL_MS = 400;
const STAGES = { parse: "Reading", embed: "Indexing", store: "Storing" };

const list = document.getElementById("documents");
const state = document.getElementById("documents-state");
const choose = document.getElementById("choose");
const input = document.getElementById("files");
const drop = document.getElementById("drop");
const older = document.getElementById("older");

const rows = new Map(); // file id → Row
let isWatching = false;

class Row {
  constructor(name) {
    this.item = document.createElement("li");
    this.name = make("span", "name", name);
    this.state = make("span", "hint", "Waiting");
    this.progress = make("progress", "", "");
    this.progress.setAttribute("aria-label", `Progress of ${name}`);
    this.remove = make("button", "remove", "×");
    this.remove.type = "button";
    this.remove.setAttribute("aria-label", `Remove ${name}`);
    this.item.append(this.name, this.remove, this.state, this.progress);
    this.isPending = true;
  }

  advance(text, share) {
    this.state.textContent = text;
    if (share === undefined) this.progress.removeAttribute("value");
    else this.progress.value = share;
  }

  end(text, kind) {
    this.isPending = false;
    this.item.className = kind;
    this.state.textContent = text;
    this.progress.remove();
  }

  show(file) {
    const { status, last_error: error, progress, chunk_count: count, warnings } = file;
    if (status === "completed") {
      this.end([`${count} ${count === 1 ? "passage" : "passages"}`, ...warnings].join(". "), warnings.length ? "partly" : "ready");
    } else if (status === "failed") this.end(error.message, "failed");
    else if (status === "cancelled") this.end("Cancelled", "failed");
    else if (progress?.total) {
      this.advance(`${STAGES[progress.stage]} ${progress.done} of ${progress.total}`, progress.done / progress.total);
    } else this.advance("Waiting for a worker");
  }
}

function keep(id, row) {
  rows.get(id)?.item.remove();
  rows.set(id, row);
  row.remove.onclick = () => remove(id, row);
  describe();
}

function describe() {
  state.textContent = rows.size ? "" : "There are none yet. Answers come from what you add.";
}

export async function loadDocuments(after) {
  try {
    show(await (await request("GET", `${STORE}?limit=100${after ? `&after=${after}` : ""}`)).json());
  } catch (error) {
    state.textContent = `The documents cannot be listed: ${error.message}`;
  }
}

function show(page) {
  for (const file of page.data) {
    const row = new Row(file.filename);
    row.show(file);
    keep(file.id, row);
    list.append(row.item);
  }
  older.hidden = !page.has_more;
  older.onclick = () => loadDocuments(page.last_id);
  describe();
  watch();
}

async function add(files) {
  const waiting = [...files].map((file) => [file, new Row(file.name)]);
  for (const [, row] of waiting) {
    row.remove.onclick = () => row.item.remove();
    list.prepend(row.item);
  }
  for (const [file, row] of waiting) if (row.item.isConnected) await ingest(file, row);
}

async function ingest(file, row) {
  const form = new FormData();
  form.append("purpose", "assistants");
  form.append("file", file);
  try {
    const { id } = await upload("v1/files", form, (share) => row.advance(`Uploading ${Math.round(share * 100)} %`, share));
    const body = { file_id: id };
    row.show(await (await request("POST", STORE, { body })).json());
    keep(id, row);
    watch();
  } catch (error) {
    row.end(error.message, "failed");
  }
}

// Polls the files in progress, one after the other, until none is left.
async function watch() {
  if (isWatching) return;
  isWatching = true;
  for (;;) {
    const pending = [...rows].filter(([, row]) => row.isPending);
    if (!pending.length) break;
    for (const [id, row] of pending) if (rows.get(id) === row) await look(id, row);
    await pause(POLL_MS);
  }
  isWatching = false;
}

async function look(id, row) {
  try {
    row.show(await (await request("GET", `${STORE}/${id}`)).json());
  } catch (error) {
    if (!isTemporary(error)) row.end(error.message, "failed");
  }
}

async function remove(id, row) {
  row.remove.disabled = true;
  try {
    await request("DELETE", `${STORE}/${id}`);
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) {
      row.remove.disabled = false;
      row.state.textContent = error.message;
      return;
    }
  }
  const next = row.item.nextElementSibling?.querySelector("button") ?? choose;
  row.item.remove();
  rows.delete(id);
  describe();
  state.textContent ||= `${row.name.textContent} was removed.`;
  next.focus();
}

choose.addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  add([...input.files]);
  input.value = "";
});

// The whole page accepts files, so that a drop beside the box does not navigate away.
const holdsFiles = (event) => event.dataTransfer.types.includes("Files");

addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});
