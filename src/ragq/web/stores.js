// The stores: which one is asked and gets the files; making, renaming and deleting one.

import { request } from "./api.js";
import { confirm } from "./confirm.js";
import { make } from "./element.js";

const PATH = "v1/vector_stores";
const DEFAULT = "default"; // stands for the id of the default store, or of the first that a limited key sees
const NONE = "The stores of this key are gone. Ask an admin for others.";
const CHOICE = "ragq-store"; // kept in this browser
const MOST_PAGES = 10; // of 100 stores

const select = document.getElementById("store");
const state = document.getElementById("store-state");
const create = document.getElementById("store-new");
const rename = document.getElementById("store-rename");
const remove = document.getElementById("store-delete");
const add = document.getElementById("choose");
const dialog = document.getElementById("store-dialog");
const form = dialog.querySelector("form");
const submit = form.querySelector("[type=submit]");
const title = document.getElementById("store-title");
const name = document.getElementById("store-name");
const failure = document.getElementById("store-failure");

const stores = new Map(); // by id, that of the default store being `default`
let chosen = localStorage.getItem(CHOICE) ?? DEFAULT;
let onChoice = () => {};

// The path of the chosen store.
export function storePath() {
  return `${PATH}/${chosen}`;
}

// What a question says of the store to search: always one, as a key that is limited to several would ask all of them.
export function searchedStore() {
  return { vector_store_ids: [chosen] };
}

export function isReadOnly() {
  return Boolean(stores.get(chosen)?.shared);
}

// Lists the stores; `listener` is called when another one is chosen.
export async function loadStores(listener) {
  onChoice = listener ?? onChoice;
  try {
    const first = await read(`${PATH}/${DEFAULT}`);
    stores.clear();
    stores.set(DEFAULT, first);
    for (let page = { has_more: true }, n = 0; page.has_more && n < MOST_PAGES; n += 1) {
      page = await read(`${PATH}?limit=100${page.last_id ? `&after=${page.last_id}` : ""}`);
      for (const store of page.data) if (store.id !== first.id && store.status !== "expired") stores.set(store.id, store);
    }
    if (!stores.has(chosen)) chosen = DEFAULT;
  } catch (error) {
    if (error.status === 404) stores.clear();
    state.textContent = error.status === 404 ? NONE : `The stores cannot be listed: ${error.message}`;
  }
  show();
}

async function read(path) {
  return (await request("GET", path)).json();
}

function nameOf(store) {
  return `${store.name || store.id}${store.shared ? " (read only)" : ""}`;
}

function show() {
  select.replaceChildren(
    ...[...stores].map(([id, store]) => {
      const option = make("option", "", nameOf(store));
      option.value = id;
      return option;
    }),
  );
  select.value = chosen;
  for (const button of [rename, remove, add]) button.disabled = isReadOnly();
}

function choose(id) {
  chosen = id;
  localStorage.setItem(CHOICE, id);
  show();
  onChoice();
}

// Asks for a name, and saves it; the dialog stays open while it is refused.
function askName(heading, text, save) {
  title.textContent = heading;
  name.value = text;
  failure.textContent = "";
  dialog.showModal();
  name.select();
  submit.disabled = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const { onsubmit } = form;
    submit.disabled = true; // or a second Enter saves it twice
    let problem = "";
    try {
      await save(name.value.trim());
    } catch (error) {
      problem = error.message;
    }
    if (form.onsubmit !== onsubmit) return; // the dialog was left, and asks for another name
    submit.disabled = false;
    if (!problem) return dialog.close();
    failure.textContent = problem;
    name.focus(); // the button was off, and cannot have kept it
  };
}

select.addEventListener("change", () => {
  choose(select.value);
  state.textContent = `${nameOf(stores.get(chosen))} is asked now.`;
});

create.addEventListener("click", () => {
  askName("New store", "", async (text) => {
    const { id } = await (await request("POST", PATH, { body: { name: text } })).json();
    await loadStores();
    choose(id);
    state.textContent = `${text} was made, and is asked now.`;
  });
});

rename.addEventListener("click", () => {
  const path = storePath();
  askName("Rename the store", stores.get(chosen)?.name ?? "", async (text) => {
    await request("POST", path, { body: { name: text } });
    await loadStores();
    state.textContent = `The store is called ${text} now.`;
  });
});

remove.addEventListener("click", async () => {
  const path = storePath(); // another may be chosen before the dialog is there
  try {
    const { name: called, file_counts: counts } = await read(path);
    const text = `The documents in “${called}”, ${counts.total} in number, can no longer be asked. Their files are kept.`;
    if (!(await confirm("Delete this store?", text, "Delete"))) return;
    await request("DELETE", path);
    if (storePath() === path) choose(DEFAULT);
    await loadStores();
    state.textContent = `${called} was deleted.`;
    select.focus();
  } catch (error) {
    state.textContent = error.message;
  }
});

document.getElementById("store-cancel").onclick = () => dialog.close();
