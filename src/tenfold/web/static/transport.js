// What a page sends: with the token of the printed address, in order, again until it is heard.

const TOKEN = "tenfold-token";
const TAB = "tenfold-tab";
const PENDING = "tenfold-pending";

/** A refusal of the server: nothing was done. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.stale = Boolean(body.stale);
  }
}

/** A name that nobody else has, of an event or a tab. */
export function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function takeToken() {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname); // neither shown nor kept in the history
  }
  return Boolean(given);
}

takeToken();
export const tab = sessionStorage.getItem(TAB) || fresh();
sessionStorage.setItem(TAB, tab);

const listeners = new Set();

/** Calls `listener` with "", "waiting" (no server) or "locked" (no token) as the connection changes. */
export function onConnection(listener) {
  listeners.add(listener);
}

let connection = "";
function connected(now) {
  if (now === connection) return;
  connection = now;
  for (const listener of listeners) listener(now);
}

/** Waits for a token of an address pasted into this tab, or a while. */
function pause(milliseconds) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("hashchange", changed);
      resolve();
    };
    const changed = () => {
      if (takeToken()) done();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("hashchange", changed);
  });
}

async function send(path, options) {
  for (;;) {
    takeToken(); // an address may have been pasted while nobody listened
    let answer = null;
    try {
      answer = await fetch(path, {
        ...options,
        cache: "no-store",
        headers: { ...options.headers, "X-Tenfold-Token": sessionStorage.getItem(TOKEN) || "" },
      });
    } catch {
      connected("waiting");
    }
    if (answer && answer.status === 401) connected("locked");
    else if (answer && (answer.status < 500 || answer.status === 500)) {
      connected("");
      return answer;
    } else if (answer) connected("full");
    await pause(1000);
  }
}

async function parsed(answer) {
  const body = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, body);
  return body;
}

/** Asks; whole numbers only go with the path. */
export async function get(path) {
  return parsed(await send(`/api/${path}`, {}));
}

/** Bytes of a picture or a download, with the name of its file and words about it. */
export async function bytes(path) {
  const answer = await send(`/api/${path}`, {});
  if (!answer.ok) throw new Refused(answer.status, await answer.json());
  const name = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get("content-disposition") || "");
  return {
    blob: await answer.blob(),
    name: name ? decodeURIComponent(name[1]) : "",
    notes: decodeURIComponent(answer.headers.get("x-tenfold-notes") || ""),
  };
}

function pending() {
  return JSON.parse(sessionStorage.getItem(PENDING) || "[]");
}

let order = Promise.resolve();

/** Has something done, once, after what was asked before; survives a reload of the page. */
export function post(name, body) {
  const event = { id: fresh(), tab, ...body };
  sessionStorage.setItem(PENDING, JSON.stringify([...pending(), { name, event }]));
  return sent(name, event);
}

function sent(name, event) {
  const result = order.then(async () => {
    const answer = await send(`/api/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(event),
    });
    const rest = pending().filter((other) => other.event.id !== event.id);
    sessionStorage.setItem(PENDING, JSON.stringify(rest));
    return parsed(answer);
  });
  order = result.catch(() => {});
  return result;
}

/** Sends what a page that was closed had not heard of; the server keeps each once. */
export async function resend() {
  for (const { name, event } of pending()) {
    try {
      await sent(name, event);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
}
