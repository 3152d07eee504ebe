// What pages share: what is said, pictures that stay decoded, downloads, keys and buttons.

import { element } from "./panels.js";
import { Refused, bytes, onConnection } from "./transport.js";

const KEPT = 4; // pictures that stay decoded

const byId = (id) => document.getElementById(id);

/** Shows a line about what was done last. */
export function say(text) {
  byId("said").textContent = text;
}

/** Shows what went wrong. */
export function failed(error) {
  if (!(error instanceof Refused)) console.error(error);
  say(error.message);
}

onConnection((now) => {
  const words = {
    "": "",
    waiting: "The server does not answer. What you say is kept here and sent when it is back.",
    full: "The server cannot write (is the disk full?). It is tried again until it can.",
    locked: "This page has no valid key. Open the address that the server printed in this tab.",
  };
  byId("connection").textContent = words[now];
  byId("connection").hidden = !now;
});

const pictures = new Map();

/** A picture, decoded. */
export async function pictureOf(index) {
  if (!pictures.has(index)) {
    const { blob } = await bytes(`image/${index}`);
    pictures.set(index, await createImageBitmap(blob));
    if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(index);
}

/** Downloads what was labelled, in the form that is chosen. */
export async function download() {
  const { value } = byId("form");
  say("Writing…");
  try {
    const { blob, name, notes } = await bytes(`export/${value}`);
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`${name} written.${notes ? ` Note: ${notes}.` : ""}`);
  } catch (error) {
    failed(error);
  }
}

/** Fills the lists of pictures and of forms. */
export function showLists({ folder, images, forms }) {
  byId("folder").textContent = folder;
  byId("pictures").append(...images.map((name) => element("option", {}, name)));
  byId("form").append(...forms.map(({ name, title }) => element("option", { value: name }, title)));
}

/** Calls an action by a key, unless someone writes or the key presses a button; by its code, too. */
export function onKeys(keys, isReady) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.defaultPrevented) return;
    const { target } = event;
    if (target.closest("input, select, textarea")) return;
    if ([" ", "Enter"].includes(event.key) && target.closest("button, a, summary")) return; // presses it
    const action = keys[event.key.toLowerCase()] || keys[event.code];
    if (!action || !isReady()) return;
    event.preventDefault();
    action(event);
  });
}

/** Calls an action by a button, which takes no focus from where it is when it is clicked. */
export function onButtons(actions) {
  for (const [id, action] of Object.entries(actions)) {
    byId(id).addEventListener("click", action);
    byId(id).addEventListener("mousedown", (event) => event.preventDefault());
  }
}
