// The conversations: their list, the one that is open, and deleting one.

import { request } from "./api.js";
import { confirm } from "./confirm.js";
import { make } from "./element.js";
import { clearTurns, showTurns, showUnread } from "./turns.js";

const PAGE = 20;
const TITLE_CHARACTERS = 200;
const PATH = "v1/conversations";

const list = document.getElementById("conversations");
const state = document.getElementById("conversations-state");
const more = document.getElementById("conversations-more");
const begin = document.getElementById("new");
const question = document.getElementById("question");

let loads = 0; // tells an old answer from the newest
let current = null; // id of the conversation in which the next question is asked

// Lists the newest conversations, or those after one.
export async function loadConversations(after) {
  loads += 1;
  const number = loads;
  const query = new URLSearchParams({ limit: PAGE, ...(after && { after }) });
  try {
    const page = await (await request("GET", `${PATH}?${query}`)).json();
    const items = page.data.map(item);
    if (number !== loads) return;
    if (after) list.append(...items);
    else list.replaceChildren(...items);
    more.hidden = !page.has_more;
    more.onclick = () => loadConversations(list.lastElementChild?.dataset.id);
    state.textContent = list.children.length ? "" : "Questions that you ask are kept here.";
    if (after) items[0]?.querySelector("a").focus();
    mark();
  } catch (error) {
    if (number === loads) state.textContent = `The conversations cannot be listed: ${error.message}`;
  }
}

function item({ id, title }) {
  const name = title ?? "Without a question";
  const link = make("a", "", name);
  link.href = `#${id}`;
  link.title = name;
  const remove = make("button", "remove", "×");
  remove.type = "button";
  remove.setAttribute("aria-label", `Delete ${name}`);
  const made = document.createElement("li");
  made.dataset.id = id;
  made.append(link, remove);
  remove.onclick = () => askAndDelete(id, name, made);
  return made;
}

function mark() {
  for (const one of list.children) {
    if (one.dataset.id === current) one.querySelector("a").setAttribute("aria-current", "true");
    else one.querySelector("a").removeAttribute("aria-current");
  }
}

async function askAndDelete(id, name, row) {
  const text = `“${name}” is deleted with its questions and answers, for good.`;
  if (!(await confirm("Delete this conversation?", text, "Delete"))) return;
  try {
    await request("DELETE", `${PATH}/${id}`);
  } catch (error) {
    if (error.status !== 404) {
      state.textContent = error.message;
      return;
    }
  }
  const next = (row.nextElementSibling ?? row.previousElementSibling)?.querySelector("a") ?? begin;
  row.remove();
  next.focus();
  state.textContent = "The conversation was deleted.";
  if (id === current) leaveAddress();
}

// Opens a conversation, or none, and shows its turns but that of the response that is shown below them. It stays open if they
// cannot be read, unless it is gone.
export async function openConversation(id, responseId = null) {
  current = id;
  mark();
  if (!id) return clearTurns();
  try {
    await showTurns(id, responseId);
  } catch (error) {
    if (current !== id) return; // another one was opened meanwhile
    if (error.status !== 404) return showUnread(error);
    current = null;
    throw error;
  }
}

// Shows all turns of the open conversation.
export async function showEarlier() {
  if (current) await showTurns(current);
}

// Returns the open conversation, or begins one that is named by its first question.
export async function findConversation(text, signal) {
  if (current) return current;
  const body = { metadata: { title: [...text.trim()].slice(0, TITLE_CHARACTERS).join("") } };
  const { id } = await (await request("POST", PATH, { body, signal })).json();
  current = id;
  loadConversations();
  return id;
}

// Opens what an empty address names, also where it is empty already.
function leaveAddress() {
  if (location.hash) location.hash = "";
  else dispatchEvent(new Event("hashchange"));
}

begin.addEventListener("click", () => {
  leaveAddress();
  question.value = "";
  question.focus();
});
