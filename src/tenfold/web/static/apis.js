// Masks from answers about single pixels, which the machine chooses.

import { View, colourOf, magnify } from "./canvas.js";
import { prepared } from "./masks.js";
import { count, element, showJob, showNext, showObjects, showProgress } from "./panels.js";
import { download, failed, onButtons, onKeys, pictureOf, say, showLists } from "./shell.js";
import { get, post, resend, tab } from "./transport.js";

const byId = (id) => document.getElementById(id);
const ANSWERS = { yes: "Yes", no: "No", unsure: "Not sure", skip: "Skipped" };

const page = { state: null, image: 0, objects: [], question: null, current: 0, zoomed: true, asked: 0, away: 0 };
const timing = { redraws: [], questions: [] }; // milliseconds, for who measures

const view = new View(byId("picture"), byId("ring"), {
  tap: (x, y, label) => tapped(x, y, label),
  box: (...box) => boxed(box),
  moved: (x, y) => say(`column ${x}, row ${y}`),
  changing: (box) => say(`${boxWords(box)}. Enter keeps it, Escape takes it back.`),
  changed: (box) => reshape(box),
});

globalThis.tenfold = { timing, page, view, numbers: null };

// --- pictures and objects ------------------------------------------------------------------------

async function open(index) {
  if (index !== page.image) {
    // until the other picture is there, nothing can be drawn on this one, which would be kept as of that
    page.objects = view.objects = [];
    view.edit(null);
    view.mark = null;
    view.show(null);
  }
  page.image = index;
  byId("pictures").selectedIndex = index;
  try {
    const [picture, found] = await Promise.all([pictureOf(index), get(`objects?image=${index}`)]);
    if (page.image !== index) return; // another one was chosen meanwhile
    page.objects = found.objects;
    view.show(picture);
  } catch (error) {
    if (page.image !== index) return;
    page.objects = [];
    view.show(null);
    failed(error);
  }
}

function take(object) {
  if (!object || object.image !== page.image) return;
  const rest = page.objects.filter((other) => other.id !== object.id);
  page.objects = object.removed ? rest : [...rest, object].sort((a, b) => a.id - b.id);
}

function redraw() {
  const { classes } = page.state;
  view.objects = page.objects.map((object) => ({
    id: object.id,
    box: object.box,
    colour: colourOf(Math.max(0, classes.indexOf(object.class))),
    name: `${object.class} ${object.id}`,
    points: object.points,
    mask: (object.drawn ??= { now: prepared(object.mask) }).now,
    current: object.id === page.current,
  }));
  const object = page.objects.find((one) => one.id === page.current);
  const asked = page.question && page.question.object.image === page.image;
  view.mark = asked && !editing ? page.question.point : null;
  view.focus = page.zoomed && !view.drawing && object ? object.box : null;
  view.edit(editing && object && !object.own_mask ? object : null);
  view.draw();
  const name = page.state.images[page.image];
  byId("picture").setAttribute("aria-label", `Picture ${name} with ${count(page.objects.length, "object")}`);
  showObjects(page.objects, classes, page.current, { choose: (one) => next(one.id), change, remove });
}

// --- questions -----------------------------------------------------------------------------------

/** Shows what the server answered: the object that changed, the next question, the numbers. */
async function show(answer) {
  if (answer.objects) page.objects = answer.objects;
  take(answer.object);
  page.question = null; // it cannot be answered before it is seen
  if (answer.question) {
    const { object } = answer.question;
    if (object.image !== page.image) await open(object.image);
    if (object.image !== page.image) return; // another one was chosen meanwhile
    take(object);
    page.current = object.id;
  }
  page.question = answer.question;
  redraw();
  showQuestion(answer);
  showNext(answer.strip, page.state.classes, page.current, (one) => next(one.id));
  showProgress(answer.progress);
  globalThis.tenfold.numbers = answer.progress;
  watch(answer.progress.job);
}

function showQuestion({ question, why }) {
  for (const name of Object.keys(ANSWERS)) byId(name).disabled = !question;
  page.asked = performance.now();
  page.away = 0;
  if (!question) {
    byId("question").textContent = why;
    byId("where").textContent = "";
    byId("magnifier").hidden = true;
    return;
  }
  const { object, point } = question;
  const [x0, y0, x1, y1] = object.box;
  byId("question").textContent = `Is the marked pixel part of this ${object.class}?`;
  byId("where").textContent =
    `Object ${object.id}, ${share(point[0], x0, x1)} % from the left of its box and ` +
    `${share(point[1], y0, y1)} % from the top.`;
  byId("magnifier").hidden = false;
  if (view.picture) magnify(byId("magnifier"), view.picture, point);
}

function share(value, low, high) {
  return Math.round((100 * (value + 0.5 - low)) / Math.max(1, high - low));
}

/** Seconds since the question was shown, without those for which the page was not. */
function seconds() {
  return Math.max(0, (performance.now() - page.asked - page.away) / 1000);
}

let hidden = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hidden = performance.now();
  else page.away += performance.now() - Math.max(hidden, page.asked);
});

async function next(object = 0) {
  const asked = { tab, image: page.image, ...(object ? { object } : {}) };
  try {
    await show(await post("next", asked));
  } catch (error) {
    failed(error);
    if (error.stale) {
      await open(page.image);
      await next();
    }
  }
}

let busy = 0;
async function act(name, body, words) {
  if (busy && name === "answer") return; // it would be to a question that nobody has seen
  busy += 1;
  try {
    const began = performance.now();
    const answer = await post(name, { image: page.image, ...body });
    await show(answer);
    if (name === "answer") timing.redraws.push(performance.now() - began);
    say(words(answer));
  } catch (error) {
    failed(error);
    if (error.stale) {
      await open(page.image);
      await next();
    }
  } finally {
    busy -= 1;
  }
}

function maskWords({ object }) {
  if (!object || object.removed || !object.mask) return "";
  const pixels = object.mask.counts.reduce((sum, n, index) => sum + (index % 2 ? n : 0), 0);
  return ` Mask of ${object.class} ${object.id}: ${count(pixels, "pixel")}.`;
}

function answer(label) {
  if (!page.question) return;
  const body = { question: page.question.id, label, seconds: seconds() };
  act("answer", body, (done) => `${ANSWERS[label]} kept.${maskWords(done)}`);
}

function undo() {
  act("undo", {}, (done) => (done.undone ? `Taken back: ${done.undone}.` : "There is nothing to take back."));
}

function tapped(x, y, label) {
  const inside = ({ box }) => x >= box[0] && y >= box[1] && x < box[2] && y < box[3];
  const current = page.objects.find((one) => one.id === page.current);
  if (current && inside(current) && !current.own_mask && !editing) {
    const body = { object: current.id, x, y, label: label ? "yes" : "no", seconds: seconds() };
    act("click", body, (done) => `Clicked: ${label ? "on" : "not on"} the object.${maskWords(done)}`);
    return;
  }
  const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  const [other] = page.objects.filter(inside).sort((a, b) => area(a) - area(b));
  if (other) next(other.id);
  else say("No object is there. Draw a box around one first.");
}

// --- boxes and classes ---------------------------------------------------------------------------

function boxed(box) {
  const name = byId("class").value;
  if (!name) {
    say("Name a class first.");
    return;
  }
  act("object", { box: rounded(box), class: name }, (done) => `Box of ${name} ${done.object.id} kept.`);
}

function boxWords(box) {
  const [x0, y0, x1, y1] = box.map(Math.round);
  return `Columns ${x0} to ${x1}, rows ${y0} to ${y1}`;
}

function rounded(box) {
  return box.map((value) => Math.round(value * 100) / 100);
}

function reshape(box) {
  const words = (done) => `Box of ${done.object.class} ${done.object.id} kept. ${boxWords(done.object.box)}.`;
  act("change", { object: page.current, box: rounded(box) }, words).then(redraw);
}

function suggest() {
  say("Looking…");
  const words = ({ made }) =>
    made ? `${count(made, "object")} found; change or remove what is wrong.` : "Nothing more is found here.";
  act("suggest", {}, words);
}

function change(object, name) {
  act("change", { object: object.id, class: name }, () => `Object ${object.id} is now ${name}.`);
}

function remove(object) {
  act("remove", { object: object.id }, () => `${object.class} ${object.id} removed; U brings it back.`);
}

function showClasses(chosen) {
  const before = chosen || byId("class").value;
  byId("class").replaceChildren(
    ...page.state.classes.map((name) => element("option", { value: name }, name)),
  );
  if (page.state.classes.includes(before)) byId("class").value = before;
}

async function addClass(event) {
  event.preventDefault();
  const name = byId("class-name").value.trim();
  if (!name) return;
  try {
    const answer = await post("class", { name });
    page.state.classes = answer.classes;
    showClasses(name);
    byId("class-form").reset();
    byId("class-form").hidden = true;
    byId("new-class").focus();
    say(`Class ${name} added.`);
  } catch (error) {
    failed(error);
  }
}

let editing = false; // whether boxes are changed
const MODES = {
  answering: "",
  drawing: "Drag boxes around objects, or use arrows and Enter.",
  editing: "Drag the box or its handles; arrows move it, with Shift its corner, and Enter keeps it.",
};

function setMode(mode) {
  for (const name of Object.keys(MODES)) byId(name).setAttribute("aria-pressed", String(name === mode));
  editing = mode === "editing";
  view.setDrawing(mode === "drawing");
  redraw();
  const own = editing && page.objects.find((one) => one.id === page.current)?.own_mask;
  say(own ? "Its mask is a person's, and so its box stays; choose another object." : MODES[mode]);
}

function setZoomed(zoomed) {
  page.zoomed = zoomed;
  byId("zoom").setAttribute("aria-pressed", String(zoomed));
  redraw();
}

// --- training and export -------------------------------------------------------------------------

let watching = false;
async function watch(job) {
  if (watching || job.state !== "running") return;
  watching = true;
  try {
    for (let now = job; ; ) {
      showJob(now);
      if (now.state !== "running") break;
      await new Promise((resolve) => setTimeout(resolve, 300));
      now = (await get("job")).job;
    }
    await open(page.image);
    await next();
  } catch (error) {
    failed(error);
  } finally {
    watching = false;
  }
}

async function train() {
  try {
    const { job } = await post("train", {});
    watch(job);
  } catch (error) {
    failed(error);
  }
}

// --- keys and buttons ----------------------------------------------------------------------------

async function goTo(index) {
  const { images } = page.state;
  page.current = 0;
  page.question = null;
  await open((index + images.length) % images.length);
  redraw();
  await next();
}

const KEYS = {
  y: () => answer("yes"),
  n: () => answer("no"),
  s: () => answer("skip"),
  u: undo,
  " ": () => answer("unsure"),
  a: () => setMode("answering"),
  b: () => setMode("drawing"),
  e: () => setMode("editing"),
  z: () => setZoomed(!page.zoomed),
  "[": () => goTo(page.image - 1),
  "]": () => goTo(page.image + 1),
};

onKeys(KEYS, () => page.state);

// a pointer leaves the focus where it is, so that Space stays "not sure" after a click
onButtons({
  yes: KEYS.y, no: KEYS.n, unsure: KEYS[" "], skip: KEYS.s, undo,
  answering: KEYS.a, drawing: KEYS.b, editing: KEYS.e, suggest, zoom: KEYS.z, previous: KEYS["["], following: KEYS["]"],
  train, export: download, stop: () => post("stop", {}).catch(failed),
  "new-class": () => {
    byId("class-form").hidden = !byId("class-form").hidden;
    if (!byId("class-form").hidden) byId("class-name").focus();
  },
});
byId("class-form").addEventListener("submit", addClass);
byId("pictures").addEventListener("change", (event) => goTo(event.target.selectedIndex));

async function begin() {
  await resend();
  page.state = await get("state");
  const { state } = page;
  showLists(state);
  byId("new-class").hidden = !state.can_add;
  byId("suggest").hidden = !state.can_suggest;
  byId("training").hidden = !state.can_train;
  showClasses();
  await open(state.first);
  if (!page.objects.length) setMode("drawing");
  await next();
  byId("picture").focus({ preventScroll: true });
}

begin().catch(failed);
