// Shows a passage in its document: the page with the passage marked if it has pages that can be drawn, else its text.

import { request } from "./api.js";
import { make } from "./element.js";
import { joinLines } from "./lines.js";

const dialog = document.getElementById("passage");
const title = document.getElementById("passage-title");
const place = document.getElementById("passage-place");
const image = document.getElementById("passage-page");
const text = document.getElementById("passage-text");
const others = document.getElementById("passage-others");
const previous = document.getElementById("passage-previous");
const next = document.getElementById("passage-next");

let shown = []; // the passages between which one can go
let current = 0;

document.getElementById("passage-close").onclick = () => dialog.close();
previous.onclick = () => showPassage(shown, current - 1);
next.onclick = () => showPassage(shown, current + 1);
dialog.onclose = () => {
  shown = []; // or a passage that is still on its way opens it again
};

// Shows the passage that a citation's address names: ?file=…&start=…&end=…
export async function showCitedPassage() {
  const asked = new URLSearchParams(location.search);
  if (!asked.has("file")) return;
  await showPassage([{ file_id: asked.get("file"), start: asked.get("start") ?? 0, end: asked.get("end") ?? 0 }], 0);
}

// Shows one of some passages, with buttons to go to its neighbours.
export async function showPassage(passages, at) {
  shown = passages;
  current = at;
  const { file_id: file, start, end } = passages[at];
  others.hidden = passages.length < 2;
  others.querySelector("span").textContent = `${at + 1} of ${passages.length}`;
  const had = document.activeElement;
  previous.disabled = at === 0;
  next.disabled = at === passages.length - 1;
  if (had === previous && previous.disabled) next.focus(); // a button that is off cannot keep the focus
  if (had === next && next.disabled) previous.focus();
  const path = `v1/files/${encodeURIComponent(file)}/passage`;
  const range = new URLSearchParams({ start, end });
  image.hidden = true;
  image.removeAttribute("src"); // a page that is still being drawn is another passage's
  text.replaceChildren();
  place.textContent = "";
  try {
    const passage = await (await request("GET", `${path}?${range}`)).json();
    if (passages[at] !== shown[current]) return; // somebody has gone on, or closed the dialog
    title.textContent = passage.filename;
    place.textContent = passage.location;
    const [before, quote, after] = [passage.before, passage.quote, passage.after].map((part) => joinLines(part, passage.filename));
    const marked = make("mark", "", quote);
    text.replaceChildren(before, marked, after);
    if (!dialog.open) dialog.showModal();
    marked.scrollIntoView({ block: "center" });
    if (passage.page) {
      image.alt = `${passage.location} of ${passage.filename}, with the passage marked`;
      image.src = `${path}/page?${range}`;
    }
  } catch (error) {
    if (passages[at] !== shown[current]) return;
    title.textContent = "This passage cannot be shown";
    text.textContent = error.message;
    if (!dialog.open) dialog.showModal();
  }
}

// Where the page cannot be drawn, it stays hidden: the text is enough.
image.onload = () => {
  image.hidden = false;
  image.scrollIntoView({ block: "start" });
};
