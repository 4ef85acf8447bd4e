// Dialogs with fields, and the one that shows a key.

import { h } from "./console-parts.js";

function open(title, ...content) {
  const dialog = h("dialog", { className: "form", attributes: { "aria-label": title } }, h("h2", {}, title), ...content);
  dialog.onclose = () => dialog.remove();
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Makes the input of a field; `options` make it a selection of [value, text].
function inputOf({ options, value = "", ...attributes }) {
  const made = options
    ? h("select", { attributes }, options.map(([each, text]) => h("option", { value: each }, text)))
    : h("input", { attributes: { autocomplete: "off", ...attributes } });
  made.value = value;
  return made;
}

// Asks for the fields, [label, attributes of the input, hint], and gives their values to `act`. Resolves to what that returns,
// or to null if it is not wanted. What `act` throws is shown, and the fields stay.
export function askFor(title, yes, text, fields, act) {
  const labels = fields.map(([label, attributes, hint]) =>
    h("label", {}, label, inputOf(attributes), hint ? h("span", { className: "hint" }, hint) : null),
  );
  const fault = h("p", { className: "fault", attributes: { role: "alert" } });
  const submit = h("button", { type: "submit" }, yes);
  const cancel = h("button", { type: "button", className: "quiet" }, "Cancel");
  const form = h("form", {}, text ? h("p", {}, text) : null, labels, fault, h("p", { className: "actions" }, submit, cancel));
  const dialog = open(title, form);
  cancel.onclick = () => dialog.close();
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => submit.disabled || resolve(null)); // what has begun is waited for
    form.onsubmit = async (event) => {
      event.preventDefault();
      submit.disabled = true;
      try {
        resolve(await act(Object.fromEntries(new FormData(form))));
        dialog.close();
      } catch (error) {
        if (dialog.open) fault.textContent = error.message;
        else reject(error);
      } finally {
        submit.disabled = false;
      }
    };
  });
}

// Shows a key's value, which nothing shows again; resolves when it is closed.
export function showKey(name, value) {
  const key = h("input", { value, readOnly: true, attributes: { "aria-label": "Key" } });
  const state = h("span", { className: "hint", attributes: { role: "status" } });
  const copy = h("button", { type: "button" }, "Copy");
  const done = h("button", { type: "button", className: "quiet" }, "Done");
  const text = h("p", {}, "It is shown only now: ragq keeps nothing from which it could be read.");
  const dialog = open(`The key of ${name}`, text, key, h("p", { className: "actions" }, copy, done, state));
  key.onfocus = () => key.select();
  key.focus();
  copy.onclick = async () => {
    key.select();
    try {
      await navigator.clipboard.writeText(value);
      state.textContent = "Copied.";
    } catch {
      state.textContent = "This browser lets no page copy: press Ctrl+C."; // as without TLS beyond this machine
      key.focus();
    }
  };
  done.onclick = () => dialog.close();
  return new Promise((resolve) => dialog.addEventListener("close", resolve));
}
