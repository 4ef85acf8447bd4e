// The dialog that asks for the API key. Scripts cannot read it afterwards: the server sets an HttpOnly cookie.

import { readError } from "./errors.js";
import { offerSignIn, showPerson, signOut, takeFailure } from "./sign-in.js";
import { dialog, form, key, state } from "./unlock-dialog.js";

const signOutButton = document.getElementById("sign-out");

let unlocking = null;

// Asks once for all waiting requests.
export function unlock() {
  unlocking ??= ask().finally(() => {
    unlocking = null;
  });
  return unlocking;
}

// Asks at the start if the key is needed; returns the session as it is then.
export async function begin() {
  const session = await readSession();
  signOutButton.hidden = !session.key_required;
  offerSignIn(session.sign_in_url);
  state.textContent = takeFailure();
  showPerson(session.person);
  if (session.is_open) return session;
  await unlock();
  return readSession();
}

async function readSession() {
  return (await fetch("session")).json();
}

function ask() {
  dialog.showModal();
  return new Promise((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      state.textContent = await tryKey();
      if (state.textContent) {
        key.select();
        return;
      }
      key.value = "";
      signOutButton.hidden = false;
      dialog.close();
      resolve();
    };
  });
}

// Returns the error message, or nothing if the key is accepted.
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

signOutButton.addEventListener("click", signOut);
