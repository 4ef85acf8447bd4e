// Signing in at an OpenID provider, which sends the browser back to the page.

import { signIn as button, title } from "./unlock-dialog.js";

const RETURN = "ragq-return"; // where to go on after that: a question, a citation or the console
const PREFIX = "#sign-in="; // the address after a failure
const FAILURES = {
  provider_unavailable: "The sign-in service does not answer. Try again later, or use an API key.",
  sign_in_expired: "This sign-in took too long, or began elsewhere. Try again.",
  sign_in_refused: "The sign-in service did not sign you in. Try again.",
  no_role: "None of your groups has a role here. Ask the operator of this service.",
  no_tenant: "Your groups lead to a tenant that is suspended or not there. Ask the operator of this service.",
};

const person = document.getElementById("person");

// Shows the button if the server has a provider.
export function offerSignIn(url) {
  if (!url) return;
  title.textContent = "Sign in, or enter an API key";
  button.hidden = false;
  button.onclick = () => {
    sessionStorage.setItem(RETURN, location.pathname + location.search + location.hash);
    location.assign(url);
  };
}

// Returns why a sign-in failed, or nothing, and takes it out of the address.
export function takeFailure() {
  if (!location.hash.startsWith(PREFIX)) return "";
  const code = location.hash.slice(PREFIX.length);
  history.replaceState(null, "", location.pathname);
  return Object.hasOwn(FAILURES, code) ? FAILURES[code] : "Signing in failed. Try again, or use an API key.";
}

// Shows who has signed in, and goes on where they began.
export function showPerson(found) {
  if (!found) return;
  person.textContent = found.name;
  person.title = `${found.role} of ${found.tenant}`;
  const place = sessionStorage.getItem(RETURN);
  sessionStorage.removeItem(RETURN);
  if (!place) return;
  if (new URL(place, location.href).pathname === location.pathname) history.replaceState(null, "", place);
  else location.replace(place);
}

// Ends the session, and then the one at the provider, if it can be ended.
export async function signOut() {
  const { provider_url: url } = await (await fetch("session/sign-out", { method: "POST" })).json();
  location.replace(url ?? location.pathname);
}
