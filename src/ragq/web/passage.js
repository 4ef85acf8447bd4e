// Shows a passage in its document: the page with the passage marked if it has pages that can be drawn, else its text.

import { request } from "./api.js";
import { make } from "./element.js";

const dialog = document.getElementById("passage");
const title = document.getElementById("passage-title");
const place = document.getElementById("passage-place");
const image = document.getElementById("passage-page");
const text = document.getElementById("passage-text");

document.getElementById("passage-close").onclick = () => dialog.close();

// Shows the passage that a citation's address names: ?file=…&start=…&end=…
export async function showCitedPassage() {
  const asked = new URLSearchParams(location.search);
  if (!asked.has("file")) return;
  await showPassage({ file: asked.get("file"), start: asked.get("start") ?? 0, end: asked.get("end") ?? 0 });
}

export async function showPassage({ file, start, end }) {
  const path = `v1/files/${encodeURIComponent(file)}/passage`;
  const range = new URLSearchParams({ start, end });
  image.hidden = true;
  image.removeAttribute("src"); // a page that is still being drawn is another passage's
  text.replaceChildren();
  place.textContent = "";
  try {
    const passage = await (await request("GET", `${path}?${range}`)).json();
    title.textContent = passage.filename;
    place.textContent = passage.location;
    const marked = make("mark", "", passage.quote);
    text.replaceChildren(passage.before, marked, passage.after);
    dialog.showModal();
    marked.scrollIntoView({ block: "center" });
    if (passage.page) {
      image.alt = `${passage.location} of ${passage.filename}, with the passage marked`;
      image.src = `${path}/page?${range}`;
    }
  } catch (error) {
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
