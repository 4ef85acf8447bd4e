// The parts of the dialog that asks for the API key or to sign in, as the page and the console have it.

import { h } from "./element.js";

export const title = h("h2", { id: "unlock-title" }, "Enter the API key");
export const signIn = h("button", { id: "sign-in", type: "button", hidden: true }, "Sign in");
export const key = h("input", {
  id: "key",
  type: "password",
  autocomplete: "current-password",
  required: true,
  attributes: { "aria-describedby": "unlock-state" },
});
export const state = h("p", { id: "unlock-state", attributes: { role: "alert" } });
const label = h("label", { htmlFor: "key" }, "API key");
export const form = h("form", {}, title, signIn, label, key, state, h("button", { type: "submit" }, "Continue"));
export const dialog = h("dialog", { id: "unlock", attributes: { "aria-labelledby": "unlock-title" } }, form);

document.body.append(dialog);
