// Adding files: by the button or dropped anywhere on the page, uploaded one after the other.

import { request, upload } from "./api.js";
import { addRows, discard, keep, say } from "./documents.js";
import { isReadOnly } from "./stores.js";

const choose = document.getElementById("choose");
const input = document.getElementById("files");
const drop = document.getElementById("drop");

async function add(files) {
  if (!files.length) return;
  if (isReadOnly()) return say("Another tenant shares this store: it may be read only.");
  const waiting = [...files];
  const made = await addRows(waiting.map((file) => file.name));
  say(`Adding ${describe(made)} …`);
  const refused = new Set();
  for (const [n, row] of made.entries()) {
    if (row.isPending && !row.isRemoved && !(await ingest(waiting[n], row))) refused.add(row);
  }
  const left = made.filter((row) => !row.isRemoved); // of the others it was said that they were removed
  const added = left.filter((row) => !refused.has(row));
  if (!left.length) return;
  if (!added.length) say(`${describe(left)} could not be added.`);
  else say(added.length < left.length ? `Added ${added.length} of ${describe(left)}. The others say why not.` : `Added ${describe(left)}.`);
}

function describe(rows) {
  return rows.length === 1 ? rows[0].label : `${rows.length} files`;
}

// Uploads a file and puts it into the store, unless its row is removed meanwhile; returns whether it was taken.
async function ingest(file, row) {
  const form = new FormData();
  form.append("purpose", "assistants");
  form.append("file", file);
  try {
    const advance = (share) => row.advance(`Uploading ${Math.round(share * 100)} %`, share);
    const { file: { id }, isNew } = await upload("v1/files", form, advance, row.stopping.signal);
    if (row.isRemoved) {
      if (isNew) await request("DELETE", `v1/files/${id}`); // one that was there before may be in other stores
      return true;
    }
    const kept = await (await request("POST", `${row.store}/files`, { body: { file_id: id } })).json();
    if (row.isRemoved) await discard(row, id);
    else keep(row, kept);
    return true;
  } catch (error) {
    if (row.isRemoved) return true;
    row.end(error.message, "failed");
    return false;
  }
}

choose.addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  add(input.files);
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
