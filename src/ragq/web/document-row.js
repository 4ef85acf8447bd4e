// A document in the list: its name, its progress, and how its ingest ended.

import { make } from "./element.js";

const STAGES = { parse: "Reading", embed: "Indexing", store: "Storing" };

export class DocumentRow {
  constructor(name, store, onRemove) {
    this.id = null; // until the file is uploaded
    this.store = store; // its path
    this.label = name;
    this.item = document.createElement("li");
    this.state = make("span", "hint", "Waiting");
    this.progress = make("progress", "", "");
    this.progress.setAttribute("aria-label", `Progress of ${name}`);
    this.remove = make("button", "remove", "×");
    this.remove.type = "button";
    this.remove.setAttribute("aria-label", `Remove ${name}`);
    this.remove.onclick = () => onRemove(this);
    this.item.append(make("span", "name", name), this.remove, this.state, this.progress);
    this.isPending = true;
    this.stopping = new AbortController(); // of its upload
  }

  get isRemoved() {
    return this.stopping.signal.aborted;
  }

  advance(text, share) {
    this.state.textContent = text;
    if (share === undefined) this.progress.removeAttribute("value");
    else this.progress.value = share;
  }

  end(text, kind) {
    this.isPending = false;
    this.item.className = kind;
    this.state.textContent = text;
    this.progress.remove();
  }

  show(file) {
    this.id = file.id;
    const { status, last_error: error, progress, chunk_count: count, warnings } = file;
    if (status === "completed") {
      this.end([`${count} ${count === 1 ? "passage" : "passages"}`, ...warnings].join(". "), warnings.length ? "partly" : "ready");
    } else if (status === "failed") this.end(error.message, "failed");
    else if (status === "cancelled") this.end("Cancelled", "failed");
    else if (progress?.total) {
      this.advance(`${STAGES[progress.stage]} ${progress.done} of ${progress.total}`, progress.done / progress.total);
    } else this.advance("Waiting for a worker");
  }

  // Takes the row out of the list, and gives the focus to the next one.
  leave(fallback) {
    const next = (this.item.nextElementSibling ?? this.item.previousElementSibling)?.querySelector("button") ?? fallback;
    this.item.remove();
    next.focus();
  }
}
