// The dialog that asks for the API key. The server keeps it in no place that a script can read.

import { readError } from "./errors.js";

const dialog = document.getElementById("unlock");
const key = document.getElementById("key");
const state = document.getElementById("unlock-state");
const signOut = document.getElementById("sign-out");

let unlocking = null;

// Asks once, however many requests wait for it.
export function unlock() {
  unlocking ??= ask().finally(() => {
    unlocking = null;
  });
  return unlocking;
}

// Asks first if it is known that the key is needed.
export async function begin() {
  const { key_required: isRequired, is_open: isOpen } = await (await fetch("session")).json();
  signOut.hidden = !isRequired;
  if (!isOpen) await unlock();
}

function ask() {
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      state.textContent = await tryKey();
      if (state.textContent) {
        key.select();
        return;
      }
      key.value = "";
      signOut.hidden = false;
      dialog.close();
      resolve();
    };
  });
}

// The reason why the key does not open, or nothing.
async function tryKey() {
  try {
    const body = JSON.stringify({ key: key.value });
    const response = await fetch("session", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (response.ok) return "";
    if (response.status === 401) return "This key is wrong. Try another.";
    return readError(response.status, await response.text()).message;
  } catch {
    return "ragq cannot be reached. Try again.";
  }
}

dialog.addEventListener("cancel", (event) => event.preventDefault());

signOut.addEventListener("click", async () => {
  await fetch("session", { method: "DELETE" });
  location.replace(location.pathname);
});
