// The dialog that asks whether something is meant.

import { h } from "./element.js";

const heading = h("h2", { id: "confirm-title" });
const explanation = h("p", { id: "confirm-text" });
const agreed = h("button", { id: "confirm-yes", type: "submit", value: "yes" });
const refused = h("button", { type: "submit", value: "no", className: "quiet" });
const form = h("form", { method: "dialog" }, heading, explanation, agreed, " ", refused);
const attributes = { "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" };
const dialog = h("dialog", { id: "confirm", attributes }, form);

document.body.append(dialog);

let answer = null; // takes whether what is asked now is wanted

// Asks before something is done; resolves to whether it is wanted.
// Enter means no, unless `isEnterYes`.
export function confirm(title, text, yes, { no = "Keep it", isEnterYes = false } = {}) {
  heading.textContent = title;
  explanation.textContent = text;
  agreed.textContent = yes;
  refused.textContent = no;
  refused.autofocus = !isEnterYes; // else the first button has the focus
  answer?.(false);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

dialog.addEventListener("close", () => {
  if (dialog.open) return; // it closed for the question before, and is open for this one
  answer?.(dialog.returnValue === "yes");
  answer = null;
});
