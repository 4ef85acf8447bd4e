// What was asked and answered before in a conversation. Text is set as text, never as HTML.

import { request } from "./api.js";
import { citedText } from "./cited.js";
import { make } from "./element.js";
import { showPassage } from "./passage.js";

const PAGE = 60;

const section = document.getElementById("earlier");
const list = document.getElementById("turns");
const more = document.getElementById("earlier-more");

let shown = { id: null, items: [] }; // a conversation and its newest items, oldest first

export function clearTurns() {
  shown = { id: null, items: [] };
  section.hidden = true;
  list.replaceChildren();
}

// Shows the turns of a conversation but that of one response.
export async function showTurns(id, responseId) {
  if (shown.id !== id) clearTurns();
  shown = { id, items: [] };
  await load(shown, responseId);
}

// Says in their place why the turns are not shown.
export function showUnread(error) {
  const said = make("p", "hint", `What was asked before cannot be read: ${error.message}`);
  said.setAttribute("role", "alert");
  list.replaceChildren(turn(said));
  more.hidden = true;
  section.hidden = false;
}

async function load(wanted, responseId, after) {
  const query = new URLSearchParams({ limit: PAGE, ...(after && { after }) });
  const page = await (await request("GET", `v1/conversations/${wanted.id}/items?${query}`)).json();
  if (wanted !== shown) return; // another one was opened meanwhile
  const own = responseId?.slice("resp_".length);
  wanted.items.unshift(...page.data.filter((item) => item.type === "message" && !(own && item.id.includes(own))).reverse());
  more.hidden = !page.has_more;
  more.disabled = false;
  more.onclick = () => {
    more.disabled = true; // or a second click loads the same again
    load(wanted, responseId, page.last_id).catch(() => (more.disabled = false));
  };
  list.replaceChildren(...turns(wanted.items));
  section.hidden = !wanted.items.length;
}

function turns(items) {
  const made = [];
  for (const { role, kind, content } of items) {
    const text = content.map((part) => part.text ?? "").join("\n");
    if (role === "user") made.push(turn(make("h3", "", text)));
    else if (role === "assistant") {
      const said = make("p", "said", "");
      for (const part of content) said.append(...citedText(part, { hasMarkers: kind !== "extractive", isCopied: kind === "extractive", reference }).nodes);
      if (made.length) made.at(-1).append(said);
      else made.push(turn(said));
    }
  }
  return made;
}

function turn(part) {
  const item = document.createElement("li");
  item.append(part);
  return item;
}

// A button where a passage is cited, which shows it.
function reference(place, passages) {
  const { filename, location, quote } = passages[place];
  const button = make("button", "reference", String(place + 1));
  button.type = "button";
  button.title = quote;
  button.setAttribute("aria-label", `${place + 1}: passage in ${filename}${location ? `, ${location}` : ""}`);
  button.onclick = () => showPassage(passages, place);
  return button;
}
