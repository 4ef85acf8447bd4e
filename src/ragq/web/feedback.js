// Whether the answer shown helped, and why.

import { request } from "./api.js";

const tools = document.getElementById("tools");
const state = document.getElementById("tools-state");
const buttons = { up: document.getElementById("helpful"), down: document.getElementById("unhelpful") };
const form = document.getElementById("comment");
const comment = document.getElementById("comment-text");

let path = null; // of the feedback on the answer shown
let rating = null;
let requests = 0;

// Offers to rate an answer, and shows what was said of it before.
export async function offerFeedback(id) {
  path = `v1/responses/${id}/feedback`;
  tools.hidden = false;
  show({ rating: null, comment: null }, "");
  for (const button of Object.values(buttons)) button.disabled = true; // until it is known what was said before
  await send("GET", undefined, ({ rating: said }) => (said ? "You can change what was said of this answer." : ""));
}

function show(feedback, text) {
  rating = feedback.rating;
  for (const button of Object.values(buttons)) button.disabled = false;
  for (const [name, button] of Object.entries(buttons)) button.setAttribute("aria-pressed", String(name === rating));
  form.hidden = !rating;
  comment.value = feedback.comment ?? "";
  state.textContent = text;
}

// Sends a request and shows the feedback that there is then, unless a later request has been sent.
async function send(method, body, describe) {
  requests += 1;
  const number = requests;
  try {
    const feedback = await (await request(method, path, { body })).json();
    if (number === requests) show({ rating: null, comment: null, ...feedback }, describe(feedback));
  } catch (error) {
    if (number === requests) state.textContent = `Your feedback could not be read or stored: ${error.message}`;
  }
}

for (const [name, button] of Object.entries(buttons)) {
  button.onclick = () => {
    if (name === rating) send("DELETE", undefined, () => "Taken back.");
    else send("POST", { rating: name, comment: comment.value }, () => "Noted. A comment says why.");
  };
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send("POST", { rating, comment: comment.value }, () => "Noted, with your comment.");
});
