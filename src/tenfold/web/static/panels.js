// Lists and numbers beside the picture; text of files and users is only ever set as text.

import { colourOf } from "./canvas.js";

const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings are text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-")) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function swatch(index) {
  const square = element("span", { className: "swatch", "aria-hidden": "true" });
  square.style.background = colourOf(index);
  return square;
}

/** The objects that are asked about next, the most uncertain first. */
export function showNext(strip, classes, current, choose) {
  byId("next-empty").hidden = strip.length > 0;
  byId("next").replaceChildren(
    ...strip.map((one) => {
      const known = one.unsure !== null;
      const said = known ? `${Math.round(one.unsure * 100)} % unsure` : "not looked at yet";
      const button = element(
        "button",
        { type: "button", onclick: () => choose(one), "aria-current": String(one.id === current) },
        element("span", { className: "name" }, swatch(classes.indexOf(one.class)), `${one.class} ${one.id}`),
        known
          ? element("meter", { min: 0, max: 1, value: one.unsure, title: said, "aria-hidden": "true" })
          : element("span", { "aria-hidden": "true" }, "…"),
        element("small", {}, `${said}, ${count(one.answers, "answer")}, ${one.name}`),
      );
      return element("li", {}, button);
    }),
  );
}

/** The objects of the picture: choose, another class, remove. */
export function showObjects(objects, classes, current, on) {
  byId("objects").replaceChildren(
    ...objects.map((object) => {
      const name = `${object.class} ${object.id}`;
      const choice = element(
        "select",
        { "aria-label": `Class of ${name}`, onchange: (event) => on.change(object, event.target.value) },
        ...classes.map((one) => element("option", { value: one, selected: one === object.class }, one)),
      );
      const pixels = object.mask ? object.mask.counts.reduce((sum, n, i) => sum + (i % 2 ? n : 0), 0) : 0;
      const made = object.mask ? `mask of ${count(pixels, "pixel")}` : "mask not made yet";
      const mask = object.problem || (object.own_mask ? "its mask is a person's, and stays" : made);
      return element(
        "li",
        { "aria-current": String(object.id === current) },
        element("button", { type: "button", onclick: () => on.choose(object), "aria-label": `Ask about ${name}` },
          swatch(classes.indexOf(object.class)), String(object.id)),
        choice,
        element("button", { type: "button", onclick: () => on.remove(object), "aria-label": `Remove ${name}` }, "✕"),
        element("small", {}, `${count(object.points.length, "answer")}, ${mask}`),
      );
    }),
  );
}

/** "1 answer", "2 answers". */
export function count(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}

/** What was done so far. */
export function showProgress(progress) {
  const rows = [
    ["Objects", progress.objects], ["Answers", progress.answers], ["Yes", progress.yes],
    ["No", progress.no], ["Not sure", progress.unsure], ["Skipped", progress.skipped],
    ["Seconds an answer", progress.seconds === null ? "–" : progress.seconds.toFixed(1)],
    ["Model", progress.model],
  ];
  byId("progress").replaceChildren(
    ...rows.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, typeof value === "number" ? value.toLocaleString("en") : value)),
    ),
  );
  showCurve(progress.curve);
  showJob(progress.job);
}

/** Progress of training. */
export function showJob(job) {
  const running = job.state === "running";
  byId("train").disabled = running;
  byId("stop").hidden = byId("share").hidden = !running;
  byId("share").value = job.share;
  const text = running ? `${Math.round(job.share * 100)} %: ${job.text}` : job.text;
  if (byId("job").textContent !== text) byId("job").textContent = text;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function showCurve(curve) {
  const figure = byId("curve");
  figure.hidden = curve.length === 0;
  figure.querySelector("svg")?.remove();
  if (!curve.length) return;
  const most = Math.max(1, ...curve.map((point) => point.answers));
  const [low, high] = [Math.min(...curve.map((p) => p.ap)), Math.max(...curve.map((p) => p.ap))];
  const span = Math.max(high - low, 1);
  const x = (answers) => 34 + (answers / most) * 250;
  const y = (ap) => 90 - ((ap - low) / span) * 78;
  const places = curve.map((point) => `${x(point.answers)},${y(point.ap)}`);
  const words = curve.map((p) => `${p.ap.toFixed(1)} after ${count(p.answers, "answer")}`).join("; ");
  figure.prepend(
    drawn("svg", { viewBox: "0 0 300 112", role: "img", "aria-label": `Mask AP ${words}` },
      drawn("path", { class: "axis", d: "M34 6V92H290" }),
      drawn("polyline", { class: "line", points: places.join(" ") }),
      ...curve.map((p) => drawn("circle", { class: "dot", cx: x(p.answers), cy: y(p.ap), r: 3 })),
      drawn("text", { x: 2, y: y(low) + 3 }, low.toFixed(1)),
      ...(high - low > 0.05 ? [drawn("text", { x: 2, y: y(high) + 3 }, high.toFixed(1))] : []),
      drawn("text", { x: 34, y: 106 }, "0"),
      drawn("text", { x: 284, y: 106, "text-anchor": "end" }, count(most, "answer"))),
  );
}
