// What the views of the console are made of.

import { request } from "./api.js";
import { confirm as ask } from "./confirm.js";
import { h } from "./element.js";

export { h };

// Asks before something is done; resolves to whether it is wanted.
export function confirm(title, text, yes) {
  return ask(title, text, yes, { no: "Keep them", isEnterYes: true });
}

export async function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const parameters = new URLSearchParams(given);
  return (await request("GET", given.length ? `${path}?${parameters}` : path)).json();
}

export async function post(path, body = {}) {
  return (await request("POST", path, { body })).json();
}

export async function remove(path) {
  return (await request("DELETE", path)).json();
}

// A button that cannot be pressed again while it does something.
export function button(label, act, className = "quiet", attributes = {}) {
  const made = h("button", { type: "button", className, attributes }, label);
  made.onclick = async () => {
    made.disabled = true;
    try {
      await act();
    } catch (error) {
      say(error.message, true);
    } finally {
      made.disabled = false;
    }
  };
  return made;
}

const state = document.getElementById("state");

export function say(text, isError = false) {
  state.textContent = text;
  state.className = isError ? "error" : "";
}

// A table whose cells have their column's name, for narrow screens.
export function table(label, columns, rows) {
  const head = h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, n) => h("td", { attributes: { "data-column": columns[n] } }, cell))),
  );
  return h("table", { attributes: { "aria-label": label } }, h("thead", {}, head), h("tbody", {}, body));
}

export function count(number) {
  return number.toLocaleString("en");
}

// 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h; shorter ones in ms.
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.round((seconds % 86400) / 3600)} h`;
}

export function time(seconds) {
  if (!seconds) return "–";
  const date = new Date(seconds * 1000);
  const text = date.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return h("time", { dateTime: date.toISOString(), title: date.toISOString() }, text);
}

// A form of filters, which becomes the part of the address behind the view's name.
export function filters(label, view, fields, query) {
  const form = h("form", { className: "filters", attributes: { "aria-label": label, role: "search" } });
  for (const [name, title, kind] of fields) {
    const options = Array.isArray(kind) ? kind.map(([value, text]) => h("option", { value }, text)) : null;
    const input = options ? h("select", { name }, options) : h("input", { name, type: kind });
    input.value = query[name] ?? "";
    form.append(h("label", {}, title, input));
  }
  const go = () => {
    const given = [...new FormData(form)].filter(([, value]) => value.trim());
    const kept = Object.entries(query).filter(([name]) => !fields.some(([field]) => field === name));
    location.hash = `${view}?${new URLSearchParams([...kept, ...given])}`;
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    go();
  };
  form.onchange = go;
  form.append(h("button", { type: "submit" }, "Search"));
  return form;
}
