// The documents of the store: pages of them, found by name and state, with their progress, and removal.

import { ApiError, isTemporary, pause, request } from "./api.js";
import { DocumentRow } from "./document-row.js";
import { storePath } from "./stores.js";

const PAGE = 10;
const POLL_MS = 400;
const COUNT_MS = 2000; // the numbers take a count of all files
const NO_MATCH = "No document matches.";
const UNLISTED = "The documents cannot be listed: ";
const TYPING_MS = 250; // a search waits for so long a pause
const NEWEST = { from: 0, query: {} };

const list = document.getElementById("documents");
const state = document.getElementById("documents-state");
const count = document.getElementById("documents-count");
const search = document.getElementById("find");
const newer = document.getElementById("newer");
const older = document.getElementById("older");
const choose = document.getElementById("choose");

let rows = []; // of the page
let added = []; // rows of files that are not uploaded yet, or were refused
let place = NEWEST; // the page: the number of its first document, and where the server begins
let counts = null; // the number of the store's files by status
let loads = 0; // tells an old answer from the newest
let isWatching = false;
let typing = 0; // the timer of the search

export function say(text) {
  state.textContent = text;
}

// Shows the newest documents of the store.
export async function loadDocuments() {
  search.reset();
  await load(NEWEST);
}

// Shows a page; returns whether it could.
async function load(wanted) {
  loads += 1;
  const number = loads;
  const found = Object.fromEntries([...new FormData(search)].filter(([, value]) => value));
  const query = new URLSearchParams({ limit: PAGE, ...wanted.query, ...found });
  try {
    const page = await (await request("GET", `${storePath()}/files?${query}`)).json();
    if (number !== loads) return false;
    if (wanted.query.before && !page.has_more) return await load(NEWEST); // so that the first page is a whole one
    place = wanted;
    show(page, Boolean(found.filename || found.filter));
    await recount();
    watch();
    return number === loads;
  } catch (error) {
    if (number !== loads) return false;
    if (error.status === 400 && wanted !== NEWEST) return load(NEWEST); // the document at which the page begins is gone
    say(`${UNLISTED}${error.message}`);
    return false;
  }
}

function show(page, isSearch) {
  rows = page.data.map((file) => {
    const row = new DocumentRow(file.filename, storePath(), remove);
    row.show(file);
    return row;
  });
  const uploads = place === NEWEST && !isSearch ? added.filter((row) => row.store === storePath()) : [];
  list.replaceChildren(...[...uploads, ...rows].map((row) => row.item));
  const { before } = place.query;
  newer.hidden = place === NEWEST;
  older.hidden = !(before ? true : page.has_more);
  newer.onclick = () => turn({ from: Math.max(0, place.from - PAGE), query: { before: rows[0]?.id ?? page.first_id } }, newer, older);
  older.onclick = () => turn({ from: place.from + rows.length, query: { after: rows.at(-1)?.id ?? page.last_id } }, older, newer);
  if (isSearch && !rows.length) say(NO_MATCH);
  else if (isSearch || state.textContent === NO_MATCH || state.textContent.startsWith(UNLISTED)) say("");
}

async function turn(wanted, pressed, other) {
  if (!(await load(wanted))) return;
  if (pressed.hidden) (other.hidden ? choose : other).focus();
  say(rows.length ? `Documents ${place.from + 1} to ${place.from + rows.length}` : "");
}

function describe() {
  const { total, in_progress: running, failed } = counts;
  const parts = [total === 1 ? "1 document" : `${total.toLocaleString("en")} documents`];
  if (running) parts.push(`${running.toLocaleString("en")} in progress`);
  if (failed) parts.push(`${failed.toLocaleString("en")} failed`);
  count.textContent = total || added.length ? parts.join(", ") : "There are none yet. Answers come from what you add.";
}

// Adds rows for files that are to be uploaded, on top of the newest documents.
export async function addRows(names) {
  const made = names.map((name) => new DocumentRow(name, storePath(), remove));
  added.unshift(...made);
  await loadDocuments();
  return made;
}

// Takes a row as that of a document of the store, once its file is there.
export function keep(row, file) {
  row.show(file);
  added = added.filter((one) => one !== row);
  if (row.item.isConnected) {
    dropRows(row.id);
    rows.unshift(row);
  }
  recount().then(watch);
}

// Takes a document out of its store whose row was removed while it was put there.
export async function discard(row, id) {
  try {
    await takeOut(row, id);
    dropRows(id);
  } catch (error) {
    say(`${row.label} could not be removed: ${error.message}`);
  }
  recount().then(watch);
}

function dropRows(id) {
  for (const row of rows) if (row.id === id) row.item.remove();
  rows = rows.filter((row) => row.id !== id);
}

// Follows what is in progress, until nothing is: the documents of this page one by one, the others by their number.
async function watch() {
  if (isWatching) return;
  isWatching = true;
  let counted = 0; // when
  try {
    for (;;) {
      const pending = rows.filter((row) => row.isPending);
      if (!pending.length && !counts?.in_progress) break;
      for (const row of pending) await look(row);
      if (Date.now() - counted >= COUNT_MS || !pending.every((row) => row.isPending)) {
        await recount();
        counted = Date.now();
      }
      await pause(pending.length ? POLL_MS : COUNT_MS);
    }
  } finally {
    isWatching = false;
  }
}

async function look(row) {
  try {
    const file = await (await request("GET", `${row.store}/files/${row.id}`)).json();
    if (row.item.isConnected) row.show(file);
  } catch (error) {
    if (!isTemporary(error)) row.end(error.message, "failed");
  }
}

async function recount() {
  const store = storePath();
  try {
    const found = (await (await request("GET", store)).json()).file_counts;
    if (store !== storePath()) return;
    counts = found;
    describe();
  } catch {
    // the next look tells
  }
}

async function takeOut({ store }, id) {
  try {
    await request("DELETE", `${store}/files/${id}`);
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
}

async function remove(row) {
  if (row.id) {
    row.remove.disabled = true;
    try {
      await takeOut(row, row.id);
    } catch (error) {
      row.remove.disabled = false;
      row.state.textContent = error.message;
      return;
    }
  }
  row.stopping.abort(); // the upload, also one that waits for its turn
  added = added.filter((one) => one !== row);
  rows = rows.filter((one) => one !== row);
  row.leave(choose);
  if (!rows.length && (place !== NEWEST || counts?.total > 1)) await load(NEWEST); // others have moved up
  else await recount();
  say(`${row.label} was removed.`);
}

search.addEventListener("submit", (event) => event.preventDefault());
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => load(NEWEST), TYPING_MS);
});
