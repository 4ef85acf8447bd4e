// A question: streams its answer, resumes it after a lost connection or a reload, and can cancel it.

import { clearAnswer, showAnswer, showFound, showText, showUnfinished } from "./answer.js";
import { isTemporary, pause, readEvents, request } from "./api.js";
import { findConversation, openConversation, showEarlier } from "./conversations.js";
import { offerFeedback } from "./feedback.js";
import { offerSharing } from "./share.js";
import { searchedStore } from "./stores.js";
import { showUnread } from "./turns.js";

const ENDS = ["completed", "incomplete", "failed", "cancelled"];
const CERTAIN = 0.5; // from this confidence on an answer without an LLM is given as one
const RETRY_MS = [500, 1000, 2000, 5000];

const form = document.getElementById("ask");
const question = document.getElementById("question");
const submit = document.getElementById("submit");
const cancel = document.getElementById("cancel");
const state = document.getElementById("state");

let current = null; // the question shown now

class Following {
  constructor({ input = "", id = null }) {
    this.input = input;
    this.id = id;
    this.searched = searchedStore();
    this.conversation = null; // its id, once the question is sent
    this.repeatKey = randomKey(); // makes a repeated request find the same response
    this.last = -1; // number of the newest event
    this.status = "queued";
    this.message = null; // id of the newest message; earlier ones are of workers that died
    this.text = "";
    this.statements = []; // of it
    this.doing = ["Sending …", "waiting"];
    this.stopping = new AbortController();
    this.signal = this.stopping.signal;
  }

  async follow() {
    for (let cuts = 0; !this.signal.aborted; cuts += 1) {
      try {
        const response = await this.open();
        if (cuts) say(...this.doing);
        for await (const event of readEvents(response)) {
          if (this.signal.aborted) return;
          this.take(event);
          cuts = 0;
        }
        if (!this.signal.aborted && this.id) this.takeEnd(await this.fetch()); // a cancelled response ends without an event
      } catch (error) {
        if (this.signal.aborted) return;
        if (!isTemporary(error)) return this.fail(error.message);
      }
      if (this.signal.aborted) return;
      say("The connection was lost. Trying again …", "waiting");
      await pause(RETRY_MS[Math.min(cuts, RETRY_MS.length - 1)], this.signal);
    }
  }

  async open() {
    const { signal } = this;
    if (this.id) return request("GET", `v1/responses/${this.id}?stream=true&starting_after=${this.last}`, { signal });
    this.conversation ??= await findConversation(this.input, signal); // kept, so that a repeat is the same request
    const { input, conversation, searched } = this;
    const body = { input, conversation, ...searched, background: true, stream: true, include: ["file_search_call.results"] };
    return request("POST", "v1/responses", { body, signal, headers: { "Idempotency-Key": this.repeatKey } });
  }

  async fetch() {
    return (await request("GET", `v1/responses/${this.id}`, { signal: this.signal })).json();
  }

  take(event) {
    this.last = event.sequence_number;
    if (event.type === "response.created") this.takeId(event.response.id);
    else if (event.type === "response.in_progress") this.start();
    else if (event.type === "response.output_item.added") this.openItem(event.item);
    else if (event.type === "response.output_item.done") showFound(event.item.results);
    else if (event.type === "response.output_text.delta") this.add(event);
    else if (event.type === "response.output_text.annotation.added") this.add({ ...event, delta: "" });
    else if (event.response) this.takeEnd(event.response);
  }

  takeId(id) {
    this.id = id;
    this.say("Waiting in the queue", "waiting");
    if (location.hash !== `#${id}`) location.hash = id;
    this.watchPlace();
  }

  // A worker starts the question, again if an earlier one died or the LLM failed.
  start() {
    this.status = "in_progress";
    if (this.message) showText("");
    this.say(this.message ? "Starting again …" : "Searching …", "running");
  }

  say(text, kind) {
    this.doing = [text, kind]; // shown again after a lost connection
    say(text, kind);
  }

  openItem(item) {
    if (item.type !== "message") return;
    this.message = item.id;
    this.text = "";
    this.statements = [];
    showText("");
    this.say("Writing …", "running");
  }

  add({ item_id: id, delta, statement }) {
    if (id !== this.message) return;
    this.text += delta;
    if (statement) this.statements.push(statement);
    showText(this.text, this.statements);
  }

  takeEnd(response) {
    if (this.signal.aborted || !ENDS.includes(response.status)) return; // another one may be shown by now
    this.stop();
    const [search, message] = ["file_search_call", "message"].map((type) => response.output.find((item) => item.type === type));
    if (message) {
      offerSharing({ ...showAnswer(message, response.support), question: () => this.input });
      showFound(search?.results);
      offerFeedback(this.id);
    } else showUnfinished();
    const seconds = (response.timing.total_ms / 1000).toFixed(1);
    if (response.status === "completed") {
      const doubt = response.confidence?.value < CERTAIN ? `. ${response.confidence.reason}` : "";
      say(message.kind === "extractive" ? `Copied from the documents in ${seconds} s${doubt}` : `Answered in ${seconds} s`, "done");
    } else if (response.status === "incomplete") say("The answer was cut off at its length limit.", "error");
    else if (response.status === "cancelled") say("Cancelled", "done");
    else say(response.error?.message ?? "The question failed.", "error");
  }

  // Shows the position in the queue until a worker claims the question.
  async watchPlace() {
    while (this.status === "queued" && !this.signal.aborted) {
      let wait = 1000;
      try {
        const response = await request("GET", `v1/responses/${this.id}`, { signal: this.signal });
        const { status, queue } = await response.json();
        if (this.status === "queued" && status === "queued") this.say(describePlace(queue), "waiting");
        wait = Math.max(300, Number(response.headers.get("openai-poll-after-ms")));
      } catch {
        // if it matters, the stream fails too
      }
      await pause(wait, this.signal);
    }
  }

  async cancel() {
    if (!this.id) {
      this.stop();
      showUnfinished();
      return say("Cancelled", "done");
    }
    try {
      this.takeEnd(await (await request("POST", `v1/responses/${this.id}/cancel`)).json());
    } catch (error) {
      if (!this.signal.aborted) say(`Cancelling failed: ${error.message}`, "error");
    }
  }

  fail(message) {
    this.stop();
    showUnfinished();
    say(message, "error");
  }

  stop() {
    this.stopping.abort();
    if (current === this) setRunning(false);
  }
}

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function describePlace({ position, eta_seconds: seconds }) {
  const place = position ? `Position ${position} in the queue` : "Waiting in the queue";
  return seconds === null ? place : `${place}, about ${Math.max(1, Math.ceil(seconds))} s`;
}

function say(text, kind) {
  state.className = kind;
  if (state.textContent !== text) state.textContent = text;
}

function setRunning(isRunning) {
  submit.hidden = isRunning;
  cancel.hidden = !isRunning;
}

function begin(following) {
  current?.stop();
  current = following;
  clearAnswer();
  setRunning(true);
  say("Sending …", "waiting");
  following.follow();
}

function leave() {
  current?.stop();
  current = null;
  clearAnswer();
  say("", "");
}

// Opens what the page's address names, as after a reload: a response, which is resumed, or a conversation. If the address has
// changed, the field is emptied: at once, so that what is typed from now on stays.
export async function resume(change) {
  if (!change && current) return; // a question was asked while the page was loading
  const id = location.hash.slice(1);
  const isResponse = id.startsWith("resp_");
  if (isResponse ? id === current?.id : id && !id.startsWith("conv_")) return;
  if (id && change) question.value = "";
  if (isResponse) return resumeResponse(id);
  leave();
  if (id) question.focus();
  try {
    await openConversation(id || null);
  } catch (error) {
    say(error.message, "error");
  }
}

async function resumeResponse(id) {
  begin(new Following({ id }));
  openConversation(null); // until its own is known
  try {
    const [{ conversation }, { data }] = await Promise.all([read(`v1/responses/${id}`), read(`v1/responses/${id}/input_items`)]);
    if (current?.id !== id) return;
    current.input = data.flatMap((item) => item.content.map((part) => part.text)).join("\n");
    if (!question.value) question.value = current.input;
    await openConversation(conversation?.id ?? null, id);
  } catch (error) {
    if (current?.id === id && error.status !== 404) showUnread(error); // of one that is gone the stream says so
  }
}

async function read(path) {
  return (await request("GET", path)).json();
}

// Asks in the open conversation. The answer that is shown becomes one of the earlier ones.
async function ask(input) {
  const shown = showEarlier(); // before the new one is asked, so that it is not among them
  begin(new Following({ input }));
  try {
    await shown;
    question.scrollIntoView({ block: "nearest" });
  } catch {
    // the answer does not need what was before
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (cancel.hidden && question.value.trim()) ask(question.value);
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !cancel.hidden && !document.querySelector("dialog[open]")) current.cancel();
});

cancel.addEventListener("click", () => {
  question.focus();
  current.cancel();
});

addEventListener("hashchange", resume);
