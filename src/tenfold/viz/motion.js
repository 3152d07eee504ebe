"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (name) => document.getElementById(name);
const canvas = at("view"), context = canvas.getContext("2d"), slider = at("frame");
const truth = data.bodies.length > 1 ? data.bodies[0] : null;
const prediction = data.bodies[data.bodies.length - 1];
const frames = prediction.centred.length;
const FRONT = [-0.5, 0.15];
let [turn, lift] = FRONT, zoom = 1, frame = 0, playing = false, begun = 0, waiting = false;
let extent = null, extentOf = "";

function joints(body, which) {
  const all = at("world").checked && body.placed ? body.placed : body.centred;
  return all[Math.min(which, all.length - 1)];
}

// The box of all frames of all bodies: the picture does not jump while it plays.
function measure() {
  const key = String(at("world").checked);
  if (extentOf === key) return;
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (const body of data.bodies) {
    for (let f = 0; f < frames; f++) {
      const row = joints(body, f);
      for (let i = 0; i < row.length; i++) {
        low[i % 3] = Math.min(low[i % 3], row[i]);
        high[i % 3] = Math.max(high[i % 3], row[i]);
      }
    }
  }
  const size = Math.hypot(...high.map((value, axis) => value - low[axis])) || 1;
  extent = { low, high, size, centre: high.map((value, axis) => (value + low[axis]) / 2) };
  extentOf = key;
}

function view(width, height, shift) {
  const [ct, st, cl, sl] = [Math.cos(turn), Math.sin(turn), Math.cos(lift), Math.sin(lift)];
  const [x, tall, z] = extent.high.map((value, axis) => value - extent.low[axis]), flat = Math.hypot(x, z);
  const scale = zoom * 0.88 * Math.min(width / Math.max(flat, 0.5 * tall, 1), height / (1.05 * tall + 0.3 * flat + 1));
  return (...point) => {
    const [a, b, c] = point.map((value, axis) => value - extent.centre[axis]);
    const side = ct * a - st * c, depth = st * a + ct * c;
    const near = 1 / (1 - (0.25 * (cl * depth + sl * b)) / extent.size);
    return [shift + near * scale * side, height / 2 - near * scale * (cl * b - sl * depth)];
  };
}

function colour(name) {
  return getComputedStyle(at("motion")).getPropertyValue(`--${name}`).trim();
}

function line(from, to, tone, width) {
  context.strokeStyle = tone;
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
}

function floor(project) {
  const step = 500, { low, high, centre } = extent, reach = Math.max(high[0] - low[0], high[2] - low[2]) / 2;
  const many = Math.ceil(reach / step) + 1, [mx, mz] = [centre[0], centre[2]].map((v) => Math.round(v / step) * step);
  for (let i = -many; i <= many; i++) {
    const [x, z, end] = [mx + i * step, mz + i * step, many * step];
    line(project(x, low[1], mz - end), project(x, low[1], mz + end), colour("line"), 1);
    line(project(mx - end, low[1], z), project(mx + end, low[1], z), colour("line"), 1);
  }
}

function bones(project, body, ghost) {
  const row = joints(body, frame), place = (j) => project(row[3 * j], row[3 * j + 1], row[3 * j + 2]);
  data.parents.forEach((parent, joint) => {
    if (parent < 0) return;
    line(place(parent), place(joint), colour(ghost ? "truth" : data.sides[joint]), ghost ? 2 : 4);
  });
}

function word(text, x, strong) {
  context.fillStyle = colour(strong ? "ink" : "soft");
  context.font = `${strong ? 600 : 400} 14px system-ui, sans-serif`;
  context.textAlign = "center";
  context.fillText(text, x, 22);
}

function draw() {
  waiting = false;
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineCap = "round";
  measure();
  const ahead = frame - data.observed + 1, seen = ahead <= 0;
  const panels = truth && at("apart").checked ? [truth, prediction] : [prediction];
  panels.forEach((body, place) => {
    const wide = width / panels.length, middle = (place + 0.5) * wide;
    context.save();
    context.beginPath();
    context.rect(place * wide, 0, wide, height);
    context.clip();
    const project = view(wide, height, middle);
    floor(project);
    if (body === prediction && truth && !seen) bones(project, truth, true);
    bones(project, body, false);
    word(seen ? `${body.name} (observed)` : body.name, middle, !seen);
    context.restore();
    if (place) line([place * wide, 0], [place * wide, height], colour("line"), 1);
  });
  slider.value = frame;
  at("moment").textContent = seen ? "observed" : `+${Math.round((ahead * 1000) / data.fps)} ms`;
  at("play").textContent = playing ? "Pause" : "Play";
  at("play").setAttribute("aria-pressed", String(playing));
}

function redraw() {
  if (!waiting) { waiting = true; requestAnimationFrame(draw); }
}

function tick(now) {
  if (!playing) return;
  const step = 1000 / (data.fps * Number(at("speed").value));
  if (now - begun >= step) {
    frame = (frame + Math.max(1, Math.floor((now - begun) / step))) % frames;
    begun = now;
    redraw();
  }
  requestAnimationFrame(tick);
}

function play(on) {
  playing = on;
  begun = performance.now();
  if (on) requestAnimationFrame(tick);
  redraw();
}

function go(to) { play(false); frame = Math.max(0, Math.min(frames - 1, to)); redraw(); }
function look(to, up) { [turn, lift] = [to, up]; redraw(); }

const held = new Map();
let apart = 0;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  held.set(event.pointerId, [event.clientX, event.clientY]);
  apart = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const before = held.get(event.pointerId);
  if (!before) return;
  held.set(event.pointerId, [event.clientX, event.clientY]);
  if (held.size === 1) {
    turn += (event.clientX - before[0]) * 0.01;
    lift = Math.max(-0.3, Math.min(1.5, lift + (event.clientY - before[1]) * 0.01));
  } else {
    const [[ax, ay], [bx, by]] = [...held.values()], now = Math.hypot(ax - bx, ay - by);
    if (apart) zoom = Math.max(0.3, Math.min(8, (zoom * now) / apart));
    apart = now;
  }
  redraw();
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => { held.delete(event.pointerId); apart = 0; });
}
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom = Math.max(0.3, Math.min(8, zoom * Math.exp(-event.deltaY * 0.001)));
  redraw();
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const keys = { " ": () => play(!playing), ArrowLeft: () => go(frame - 1), ArrowRight: () => go(frame + 1) };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
slider.max = frames - 1;
slider.addEventListener("input", () => go(Number(slider.value)));
at("play").addEventListener("click", () => play(!playing));
at("front").addEventListener("click", () => look(0, 0.05));
at("side").addEventListener("click", () => look(-Math.PI / 2, 0.05));
at("above").addEventListener("click", () => look(0, 1.5));
for (const name of ["apart", "world"]) at(name).addEventListener("change", redraw);
at("apart").parentElement.hidden = !truth;
at("world").parentElement.hidden = !prediction.placed;
const shown = [...new Set(data.sides)];
for (const [tone, name] of [["left", "left"], ["right", "right"], ["middle", "trunk"], ["truth", "truth behind the prediction"]]) {
  if (tone === "truth" ? !truth : !shown.includes(tone)) continue;
  const item = document.createElement("span"), mark = document.createElement("i");
  mark.style.background = `var(--${tone})`;
  item.append(mark, name);
  at("legend").append(item);
}
new ResizeObserver(redraw).observe(canvas);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
play(!window.matchMedia("(prefers-reduced-motion: reduce)").matches);
