"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("threshold"), value = document.getElementById("value");
const marks = document.getElementById("marks"), cards = document.getElementById("cards");
const HEAT = [[60, 0, 80], [180, 20, 60], [240, 110, 20], [255, 210, 40], [255, 255, 220]];
const shown = [];

function element(name, parent, text) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function loaded(source) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = source;
  });
}

function pixels(image, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

// The highest map of every pixel and its class: what a threshold decides about.
function winners(entry, stack, count) {
  const best = new Uint8Array(count), winner = new Uint8Array(count);
  entry.classes.forEach((number, row) => {
    for (let i = 0; i < count; i++) {
      const here = stack[4 * (row * count + i)];
      if (here > best[i]) { best[i] = here; winner[i] = number; }
    }
  });
  return [best, winner];
}

function paint(context, picture, colour) {
  const { width, height } = context.canvas;
  const found = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const grey = (picture[4 * i] + picture[4 * i + 1] + picture[4 * i + 2]) / 3;
    const [tone, alpha] = colour(i);
    for (let c = 0; c < 3; c++) found.data[4 * i + c] = (1 - alpha) * grey + alpha * tone[c];
    found.data[4 * i + 3] = 255;
  }
  context.putImageData(found, 0, 0);
}

function heat(value) {
  const place = (value / 255) * (HEAT.length - 1), low = Math.min(HEAT.length - 2, Math.floor(place));
  const tone = HEAT[low].map((from, c) => from + (place - low) * (HEAT[low + 1][c] - from));
  return [tone, 0.75 * Math.pow(value / 255, 0.7)];
}

async function card(entry) {
  const section = element("section", cards);
  const name = element("p", section, entry.name);
  name.className = "name";
  const three = element("div", section);
  three.className = "three";
  const contexts = ["picture", "activation", "mask"].map((what) => {
    const canvas = element("canvas", three);
    [canvas.width, canvas.height] = [entry.width, entry.height];
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${what} of ${entry.name}`);
    return canvas.getContext("2d");
  });
  const said = element("p", section);
  said.className = "soft";
  const count = entry.width * entry.height;
  const image = await loaded(entry.picture);
  contexts[0].drawImage(image, 0, 0, entry.width, entry.height);
  const picture = pixels(image, entry.width, entry.height);
  let best = new Uint8Array(count), winner = new Uint8Array(count);
  if (entry.classes.length) {
    const stack = await loaded(entry.maps);
    [best, winner] = winners(entry, pixels(stack, entry.width, entry.height * entry.classes.length), count);
  }
  paint(contexts[1], picture, (i) => heat(best[i]));
  shown.push(() => {
    const limit = 255 * slider.value, shares = new Map();
    paint(contexts[2], picture, (i) => {
      if (best[i] <= limit) return [[0, 0, 0], 0];
      shares.set(winner[i], (shares.get(winner[i]) || 0) + 1);
      return [data.colours[winner[i]], 0.65];
    });
    const parts = entry.classes.map((c) => `${data.names[c]} ${Math.round((100 * (shares.get(c) || 0)) / count)} %`);
    said.textContent = (parts.join(", ") || "no class") + (entry.note ? ` · ${entry.note}` : "");
  });
  shown[shown.length - 1]();
}

let waiting = false;
function update() {
  value.textContent = Number(slider.value).toFixed(2);
  for (const button of marks.children) {
    button.setAttribute("aria-pressed", String(button.dataset.at === value.textContent));
  }
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; shown.forEach((draw) => draw()); });
}

for (const [name, at] of data.marks) {
  const button = element("button", marks, `${name} ${at.toFixed(2)}`);
  button.type = "button";
  button.dataset.at = at.toFixed(2);
  button.addEventListener("click", () => { slider.value = at; update(); });
}
const occurring = new Set(data.pictures.flatMap((entry) => entry.classes));
data.names.forEach((name, number) => {
  if (!occurring.has(number)) return;
  const item = element("span", document.getElementById("legend"));
  element("i", item).style.background = `rgb(${data.colours[number]})`;
  item.append(name);
});
slider.value = data.threshold;
slider.addEventListener("input", update);
update();
data.pictures.forEach(card);
