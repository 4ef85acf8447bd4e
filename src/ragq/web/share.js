// Copies the answer shown as Markdown or, where the browser has no clipboard for the page, downloads it.

import { writeMarkdown } from "./markdown.js";

const button = document.getElementById("share");
const state = document.getElementById("tools-state");
const hasClipboard = Boolean(navigator.clipboard); // not over plain HTTP from another machine

let shared = null;

button.textContent = hasClipboard ? "Copy as Markdown" : "Download as Markdown";

// Takes the answer that the button is for.
export function offerSharing(answer) {
  shared = answer;
}

button.onclick = async () => {
  const text = writeMarkdown({ ...shared, question: shared.question() }); // after a reload it is known later than the answer
  if (!hasClipboard) return download(text);
  try {
    await navigator.clipboard.writeText(text);
    state.textContent = "Copied.";
  } catch {
    download(text);
  }
};

function download(text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/markdown" }));
  link.download = "answer.md";
  link.click();
  URL.revokeObjectURL(link.href);
  state.textContent = "Downloaded.";
}
