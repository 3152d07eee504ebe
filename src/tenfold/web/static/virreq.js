// Pictures divided by request: a click takes out an object, a concept's button divides a unit.

import { View, colourOf } from "./canvas.js";
import { middle, prepared } from "./masks.js";
import { count, element } from "./panels.js";
import { download, failed, onButtons, onKeys, pictureOf, say, showLists } from "./shell.js";
import { get, post, resend } from "./transport.js";
import { TreeView, hasParts, nameOf, swatch } from "./tree.js";

const byId = (id) => document.getElementById(id);
const PLACE = "tenfold-place"; // where this tab was, for a reload
const SAID = { there: "", unasked: "not asked", missed: "not found", absent: "not there", wrong: "taken out" };
const STATES = {
  done: "its parts are done", open: "its parts are open", "not-annotated": "its parts are not annotated",
};

const page = { state: null, image: 0, picture: null, current: 0, zoomed: false, busy: 0 };
const masks = new Map(); // key -> what drawing needs
const timing = { requests: [] }; // milliseconds, for who measures

const view = new View(byId("picture"), byId("ring"), {
  tap: (x, y, label) => (label ? act("click", { x, y }) : whole()),
  box: () => {},
  moved: (x, y) => say(`column ${x}, row ${y}`),
});
const tree = new TreeView(byId("tree"), { choose, enter: split });

globalThis.tenfold = { page, view, timing, numbers: null };

// --- pictures and units --------------------------------------------------------------------------

const unitOf = (id) => page.picture?.units.find((unit) => unit.id === id);
const partsOf = (id) => page.picture.units.filter((unit) => unit.parent === id);

async function open(index) {
  const { images } = page.state;
  const before = page.image;
  page.image = (index + images.length) % images.length;
  if (page.image !== before) tree.closed.clear(); // numbers of units are a picture's own
  byId("pictures").selectedIndex = page.image;
  page.picture = null;
  page.current = 0;
  view.show(null);
  try {
    const [picture, found] = await Promise.all([pictureOf(page.image), get(`tree?image=${page.image}`)]);
    if (page.image !== found.picture.image) return; // another one was chosen meanwhile
    masks.clear();
    take(found);
    view.show(picture);
  } catch (error) {
    failed(error);
  }
  redraw();
}

function take({ picture, masks: more }) {
  for (const [key, mask] of Object.entries(more)) masks.set(key, { ...prepared(mask), middle: middle(mask) });
  page.picture = picture;
  const byNumber = new Map(picture.units.map((unit) => [unit.id, unit]));
  for (const unit of picture.units) unit.object = byNumber.get(unit.parent)?.class === unit.class;
  if (!unitOf(page.current)) page.current = picture.units[0].id;
}

function choose(id) {
  page.current = id;
  redraw();
}

function whole() {
  const unit = unitOf(page.current);
  if (unit && unit.parent !== null) choose(unit.parent);
}

/** The chosen unit, and its parts, or if it has none what stands beside it. */
function shownUnits(current) {
  const parts = partsOf(current.id);
  const beside = parts.length || current.parent === null ? parts : partsOf(current.parent);
  const seen = beside.flatMap((unit) => {
    const objects = unit.region ? partsOf(unit.id) : [];
    return unit.region && unit.state === "done" && objects.length ? objects : [unit, ...objects];
  });
  return current.parent === null || seen.includes(current) ? seen : [current, ...seen];
}

function redraw() {
  const current = unitOf(page.current);
  sessionStorage.setItem(PLACE, JSON.stringify([page.image, page.current]));
  byId("picture").setAttribute("aria-label", `Picture ${page.state.images[page.image]}`);
  const hasSome = current && partsOf(current.id).length > 0;
  view.objects = !current ? [] : shownUnits(current).map((unit) => {
    const mask = masks.get(unit.mask);
    const isCurrent = unit.id === page.current;
    return {
      box: [mask.x, mask.y, mask.x + mask.w, mask.y + mask.h],
      colour: colourOf(unit.colour), name: nameOf(unit), mask, points: [], framed: false,
      current: isCurrent, filled: isCurrent !== hasSome, anchor: isCurrent ? null : mask.middle,
    };
  });
  const mine = view.objects.find((one) => one.current);
  view.focus = page.zoomed && mine ? mine.box : null;
  view.draw();
  showUnit(current);
  tree.show(page.picture?.units ?? [], page.current);
}

// --- the chosen unit -----------------------------------------------------------------------------

function showUnit(unit) {
  for (const id of ["split", "wrong", "finish"]) byId(id).disabled = !unit;
  byId("new").hidden = !unit || unit.region || Boolean(page.state.refusal);
  byId("concepts").replaceChildren();
  byId("path").replaceChildren();
  byId("unit").textContent = unit ? nameOf(unit) : "";
  byId("about").textContent = "";
  if (!unit) return;
  const above = [];
  for (let at = unitOf(unit.parent); at; at = unitOf(at.parent)) above.unshift(at);
  byId("path").replaceChildren(
    ...(above.length ? [] : ["the whole picture"]),
    ...above.flatMap((one) => [
      element("button", { type: "button", onclick: () => choose(one.id) }, nameOf(one)), " › "]),
  );
  byId("about").textContent = aboutOf(unit);
  byId("wrong").disabled = unit.parent === null;
  byId("split").disabled = !hasParts(unit);
  byId("split-name").textContent = unit.region ? "Tell objects apart" : `Split ${unit.class}`;
  byId("word").placeholder = `new concept in ${unit.class}`;
  byId("word-label").textContent = `New concept in ${unit.class}`;
  byId("concepts").append(...unit.concepts.map((concept, place) => chip(unit, concept, place)));
  byId("concepts").hidden = !unit.concepts.length;
  const at = page.state.knowledge.nodes.findIndex((node) => node.id === unit.node);
  if (at >= 0 && !byId("knowledge").contains(document.activeElement)) {
    byId("place").selectedIndex = at;
    showWords();
  }
}

function aboutOf(unit) {
  const words = [count(unit.area, "pixel")];
  if (unit.source !== "human") words.push(`score ${unit.score.toFixed(2)}`);
  if (unit.region) words.push(unit.state === "done" ? "all objects told apart" : "click its objects in the picture");
  else words.push(hasParts(unit) ? STATES[unit.state] : "no parts in the knowledge base");
  if (unit.stopped) words.push("finished here");
  return words.join(" · ");
}

/** A concept: its button asks for it, or chooses what was found; the small one says not there. */
function chip(unit, concept, place) {
  const said = SAID[concept.is];
  const words = said ? `Ask for ${concept.name}, ${said}` : `Choose ${concept.name}`;
  const note = concept.is === "wrong" ? said : concept.units.length > 1 ? String(concept.units.length) : "";
  const ask = element(
    "button",
    { type: "button", className: "concept", title: words, "aria-label": words, onclick: () => pressed(concept) },
    swatch(concept.colour), element("span", {}, concept.name),
    note ? element("small", {}, note) : "",
    place < 9 ? element("kbd", {}, String(place + 1)) : "",
  );
  const no = element(
    "button",
    {
      type: "button", className: "no-part", "aria-pressed": String(concept.is === "absent"), title: `no ${concept.name} here`,
      "aria-label": `No ${concept.name} here`, onclick: () => act("absent", { unit: unit.id, name: concept.name }),
    },
    "∅",
  );
  for (const button of [ask, no]) button.addEventListener("mousedown", (event) => event.preventDefault());
  return element("li", { className: `is-${concept.is}` }, ask, no);
}

function pressed(concept) {
  if (concept.is !== "there") act("ask", { unit: page.current, name: concept.name });
  else {
    const next = concept.units.indexOf(page.current) + 1;
    choose(concept.units[next % concept.units.length]);
  }
}

// --- what is asked and said ----------------------------------------------------------------------

/** Has something done, and shows what the server says of it; one thing at a time. */
async function act(name, body) {
  if (page.busy || !page.picture) return false;
  page.busy += 1;
  const began = performance.now();
  try {
    const { image, picture: { revision } } = page;
    const answer = await post(name, { image, ...(OF_ALL.has(name) ? {} : { revision }), ...body });
    await answered(answer, name === "undo" || page.image === image);
    timing.requests.push(performance.now() - began);
    return true;
  } catch (error) {
    failed(error);
    if (error.stale) await open(page.image);
    return false;
  } finally {
    page.busy -= 1;
  }
}
const OF_ALL = new Set(["undo", "synonym"]); // not about a picture as it was seen

/** Shows an answer; of a picture that was left meanwhile its words alone. */
async function answered(answer, isHere) {
  const { picture } = answer;
  if (answer.knowledge) showKnowledge(answer.knowledge);
  showProgress(answer.progress);
  say(answer.said);
  if (!isHere) return;
  if (picture.image !== page.image) await open(picture.image);
  else take(picture.units.every((unit) => masks.has(unit.mask) || unit.mask in answer.masks)
    ? answer : await get(`tree?image=${page.image}`));
  if (answer.select !== null && unitOf(answer.select)) page.current = answer.select;
  redraw();
}

function split() {
  const unit = unitOf(page.current);
  if (unit && hasParts(unit)) act("split", { unit: unit.id });
  else say("It has no parts in the knowledge base; add a concept.");
}

function zoom() {
  page.zoomed = !page.zoomed;
  byId("zoom").setAttribute("aria-pressed", String(page.zoomed));
  redraw();
}

function digit(place, isAbsent) {
  const unit = unitOf(page.current);
  const concept = unit?.concepts[place];
  if (!concept) return;
  if (isAbsent) act("absent", { unit: unit.id, name: concept.name });
  else pressed(concept);
}

// --- concepts and words --------------------------------------------------------------------------

const pathOf = (number) => page.state.knowledge.nodes.find((node) => node.id === number)?.path;

async function addConcept(event) {
  event.preventDefault();
  const unit = unitOf(page.current);
  const name = byId("word").value.trim();
  if (!name || !unit) return;
  if (await act("concept", { unit: unit.id, path: pathOf(unit.node), name })) {
    byId("new").reset();
    tree.focus(); // so that keys are keys again
  }
}

const placed = () => page.state.knowledge.nodes[byId("place").selectedIndex];

async function grow(event) {
  event.preventDefault();
  const others = byId("others").value.split(",").map((word) => word.trim()).filter(Boolean);
  await act("concept", {
    unit: page.current, path: placed().path, name: byId("part").value.trim(), synonyms: others,
    thing: byId("thing").checked,
  });
  look();
}

/** Shows what came of it, above. */
const look = () => byId("said").scrollIntoView({ block: "nearest" });

async function addWord(event) {
  event.preventDefault();
  await act("synonym", { path: placed().path, name: byId("synonym").value.trim() });
  look();
}

function showKnowledge(knowledge) {
  const chosen = byId("place").selectedIndex;
  page.state.knowledge = knowledge;
  byId("place").replaceChildren(
    ...knowledge.nodes.map((node) =>
      element("option", {}, `${"\u2003".repeat(node.level)}${node.name}${node.added ? " (new)" : ""}`)),
  );
  byId("place").selectedIndex = Math.min(Math.max(chosen, 0), knowledge.nodes.length - 1);
  byId("file").textContent = knowledge.file;
  byId("grow").reset();
  byId("more").reset();
  showWords();
}

function showWords() {
  const node = placed();
  const words = [node.synonyms.length ? `also ${node.synonyms.join(", ")}` : "no other words"];
  if (node.thing) words.push("can be counted");
  words.push(count(node.parts, "part"));
  byId("words").textContent = words.join(" · ");
  byId("more").hidden = !node.path.length || Boolean(page.state.refusal);
  byId("grow").hidden = Boolean(page.state.refusal);
}

function showProgress(progress) {
  const rows = [
    ["Pictures", progress.pictures], ["Begun", progress.begun], ["Finished", progress.finished], ["Units", progress.units],
    ["Done", progress.done], ["Open", progress.open], ["Not annotated", progress.untouched],
  ];
  byId("progress").replaceChildren(
    ...rows.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value.toLocaleString("en")))),
  );
  globalThis.tenfold.numbers = progress;
}

// --- keys and buttons ----------------------------------------------------------------------------

const KEYS = {
  enter: split,
  w: whole,
  x: () => page.current && act("wrong", { unit: page.current }),
  d: () => act("finish", { unit: page.current }),
  u: () => act("undo", {}),
  n: () => byId("word").focus(),
  t: () => tree.focus(),
  p: () => byId("picture").focus(),
  z: zoom,
  "[": () => open(page.image - 1),
  "]": () => open(page.image + 1),
};
for (let place = 0; place < 9; place++) {
  KEYS[`Digit${place + 1}`] = (event) => digit(place, event.shiftKey);
}
onKeys(KEYS, () => page.state);
onButtons({
  split, zoom, wrong: KEYS.x, finish: KEYS.d, undo: KEYS.u, previous: KEYS["["], following: KEYS["]"], export: download,
});
byId("new").addEventListener("submit", addConcept);
byId("grow").addEventListener("submit", grow);
byId("more").addEventListener("submit", addWord);
byId("place").addEventListener("change", showWords);
byId("pictures").addEventListener("change", (event) => open(event.target.selectedIndex));
byId("word").addEventListener("keydown", (event) => {
  if (event.key === "Escape") tree.focus();
});

async function begin() {
  await resend();
  page.state = await get("state");
  const { state } = page;
  showLists(state);
  byId("refusal").textContent = state.refusal;
  byId("refusal").hidden = !state.refusal;
  showKnowledge(state.knowledge);
  const [image, unit] = JSON.parse(sessionStorage.getItem(PLACE) || "[-1, 0]");
  await open(state.images[image] === undefined ? state.first : image);
  if (unitOf(unit)) choose(unit);
  showProgress(state.progress);
  say(page.picture?.units.length === 1 ? "Click a thing in the picture, or split the whole." : "");
  byId("picture").focus({ preventScroll: true });
}

begin().catch(failed);
