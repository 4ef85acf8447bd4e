// Requests to ragq. If the key is needed, asks for it and repeats the request.

import { ApiError, readError } from "./errors.js";
import { unlock } from "./unlock.js";

export { ApiError };

const SILENCE_MS = 40_000; // the server sends a comment every 15 s

// Whether a retry may succeed: no connection, or a server error.
export function isTemporary(error) {
  return !(error instanceof ApiError) || error.status >= 500;
}

export async function request(method, path, { body, headers, signal } = {}) {
  const type = body ? { "Content-Type": "application/json" } : {};
  const options = { method, signal, headers: { ...type, ...headers }, body: body && JSON.stringify(body) };
  for (;;) {
    const response = await fetch(path, options);
    if (response.ok) return response;
    if (response.status !== 401) throw readError(response.status, await response.text());
    await unlock();
  }
}

// Posts a form and reports its progress, which fetch cannot. `isNew` says whether the server made the file meanwhile.
// The signal stops it as long as the server does not have all of it.
export async function upload(path, form, onProgress, signal) {
  for (;;) {
    signal.throwIfAborted();
    const began = performance.now();
    const { status, text, date } = await send(path, form, onProgress, signal);
    if (status === 200) {
      const file = JSON.parse(text);
      const seconds = (Date.parse(date) - (performance.now() - began)) / 1000; // when it began, by the server's clock
      return { file, isNew: file.created_at >= Math.floor(seconds) };
    }
    if (status !== 401) throw readError(status, text);
    await unlock();
  }
}

function send(path, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    const stop = () => sending.abort();
    sending.open("POST", path);
    sending.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    sending.upload.onload = () => signal.removeEventListener("abort", stop);
    sending.onload = () => resolve({ status: sending.status, text: sending.responseText, date: sending.getResponseHeader("Date") });
    sending.onerror = () => reject(new Error("The connection was lost. Try again."));
    sending.onabort = () => reject(signal.reason);
    sending.onloadend = () => signal.removeEventListener("abort", stop);
    signal.addEventListener("abort", stop);
    sending.send(form);
  });
}

// Yields the events of a response's body, until it ends or is silent for too long.
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await limited(reader.read());
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").find((line) => line.startsWith("data: "));
        if (data) yield JSON.parse(data.slice("data: ".length));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function limited(reading) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("The connection is silent.")), SILENCE_MS);
  });
  return Promise.race([reading, silence]).finally(() => clearTimeout(timer));
}

// Waits; ends early when the signal aborts or the network is back.
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, milliseconds);
    function end() {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      resolve();
    }
    addEventListener("online", end);
    signal?.addEventListener("abort", end);
  });
}
