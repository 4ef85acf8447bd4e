// Shows the passage that a citation's address names: ?file=…&start=…&end=…

import { request } from "./api.js";
import { make } from "./element.js";

const dialog = document.getElementById("passage");
const title = document.getElementById("passage-title");
const text = document.getElementById("passage-text");

document.getElementById("passage-close").onclick = () => dialog.close();

export async function showPassage() {
  const asked = new URLSearchParams(location.search);
  if (!asked.has("file")) return;
  const range = new URLSearchParams({ start: asked.get("start") ?? 0, end: asked.get("end") ?? 0 });
  try {
    const path = `v1/files/${encodeURIComponent(asked.get("file"))}/passage?${range}`;
    const { filename, before, quote, after } = await (await request("GET", path)).json();
    title.textContent = filename;
    const marked = make("mark", "", quote);
    text.replaceChildren(before, marked, after);
    dialog.showModal();
    marked.scrollIntoView({ block: "center" });
  } catch (error) {
    title.textContent = "This passage cannot be shown";
    text.textContent = error.message;
    dialog.showModal();
  }
}
