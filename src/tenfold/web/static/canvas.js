// A picture with boxes, masks and points on it, and what fingers, mice and keys do to it.

import { cursorOf, dragged, drawHandles, grabbed } from "./boxes.js";
import { hatch } from "./masks.js";

const LONG = 500; // milliseconds of a long press
const MOVED = 8; // pixels of the screen from which a press is a drag
const REACH = { mouse: 9, pen: 14, touch: 24 }; // pixels of the screen around a handle
const COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#9ecae1", "#c7a6e8"];

/** The colour of a class: told apart by people with any colour vision, and never alone. */
export function colourOf(index) {
  return COLOURS[index % COLOURS.length];
}

/**
 * Shows one picture; `on` has `tap(x, y, label)`, `box(x0, y0, x1, y1)` and `moved(x, y)`, in its
 * pixels; if boxes are changed, `changing(box)` while that is done by keys, and `changed(box)`.
 */
export class View {
  constructor(canvas, ring, on) {
    this.canvas = canvas;
    this.ring = ring;
    this.on = on;
    this.picture = null;
    this.objects = []; // {id, box, colour, name, mask, points, current}, and where they differ {framed, filled, anchor}
    this.mark = null; // the pixel that is asked about
    this.drawing = false;
    this.focus = null; // the box that is zoomed to
    this.cursor = null; // of the keyboard
    this.corner = null; // of a box that the keyboard began
    this.press = null; // what the pointer that is down began
    this.band = null; // the box that is being drawn
    this.edited = null; // the box that is being changed
    this.of = null; // the object whose it is
    this.layer = document.createElement("canvas");
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.#listen();
  }

  show(picture) {
    if (picture !== this.picture) {
      this.#release(); // what was begun on one picture does not end on another
      this.cursor = this.corner = this.band = null;
    }
    this.picture = picture;
    this.draw();
  }

  setDrawing(drawing) {
    this.drawing = drawing;
    this.corner = this.band = null;
    this.canvas.classList.toggle("drawing", drawing);
    this.draw();
  }

  /** Puts handles on an object's box, or on none; what was not kept yet stays. */
  edit(object) {
    const same = object && this.of && object.id === this.of.id && String(object.box) === String(this.of.box);
    if (!same) {
      if (this.press?.grip) this.#release(); // it holds the box of another
      this.edited = object && [...object.box];
    }
    this.of = object;
    this.canvas.classList.toggle("editing", Boolean(object));
    if (!object) this.canvas.style.cursor = "";
  }

  // --- places ----------------------------------------------------------------------------------

  #place() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const { width: w, height: h } = this.picture;
    const whole = Math.min(width / w, height / h);
    let scale = whole;
    let [x, y] = [w / 2, h / 2];
    if (this.focus) {
      const [x0, y0, x1, y1] = this.focus;
      const wanted = Math.min(width / (1.5 * (x1 - x0)), height / (1.5 * (y1 - y0)));
      scale = Math.min(Math.max(wanted, whole), Math.max(3, 3 * whole));
      [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    }
    const keep = (centre, size, room) =>
      size * scale <= room ? size / 2 : Math.min(Math.max(centre, room / 2 / scale), size - room / 2 / scale);
    this.scale = scale;
    this.left = width / 2 - keep(x, w, width) * scale;
    this.top = height / 2 - keep(y, h, height) * scale;
  }

  /** Pixel of the picture under a point of the page. */
  #pixel(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left - this.left) / this.scale, (event.clientY - frame.top - this.top) / this.scale];
  }

  #inside([x, y]) {
    const { width, height } = this.picture;
    return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
  }

  // --- drawing ---------------------------------------------------------------------------------

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const size = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    this.ring.hidden = true;
    if (!this.picture || !size[0] || !size[1]) return;
    this.#place();
    this.ratio = ratio;
    pen.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.left, ratio * this.top);
    pen.imageSmoothingEnabled = this.scale < 2;
    pen.drawImage(this.picture, 0, 0);
    for (const object of this.objects) if (!object.current) this.#object(pen, object);
    for (const object of this.objects) if (object.current) this.#object(pen, object);
    if (this.band) this.#frame(pen, this.band, "#ffffff", [4, 4]);
    if (this.edited) {
      this.#frame(pen, this.edited, "#ffffff", [4, 4]);
      drawHandles(pen, this.edited, this.scale);
    }
    if (this.cursor) this.#cross(pen, this.cursor);
    this.#putRing();
  }

  #object(pen, object) {
    const { mask, colour } = object;
    if (mask && mask.w && mask.h) {
      if (object.filled ?? object.current) this.#fill(pen, mask, colour);
      for (const [width, ink] of [[3.5, "#000000"], [1.75, colour]]) {
        pen.lineWidth = width / this.scale;
        pen.strokeStyle = ink;
        pen.globalAlpha = object.current ? 1 : 0.7;
        pen.stroke(mask.path);
      }
      pen.globalAlpha = 1;
    }
    if (object.framed !== false) this.#frame(pen, object.box, colour, object.current ? [] : [6, 4]);
    this.#label(pen, object);
    if (object.current) for (const point of object.points) this.#point(pen, point);
  }

  #fill(pen, mask, colour) {
    const { layer } = this;
    const step = this.ratio * this.scale;
    const [width, height] = [Math.ceil(mask.w * step), Math.ceil(mask.h * step)];
    layer.width = width;
    layer.height = height;
    const brush = layer.getContext("2d");
    brush.imageSmoothingEnabled = false;
    brush.drawImage(mask.stencil, 0, 0, width, height);
    brush.globalCompositeOperation = "source-in";
    brush.fillStyle = hatch(brush, colour);
    brush.fillRect(0, 0, width, height);
    pen.drawImage(layer, mask.x, mask.y, width / step, height / step);
  }

  #frame(pen, [x0, y0, x1, y1], colour, dashes) {
    for (const [width, ink] of [[3, "#000000"], [1.5, colour]]) {
      pen.lineWidth = width / this.scale;
      pen.strokeStyle = ink;
      pen.setLineDash(dashes.map((dash) => dash / this.scale));
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    pen.setLineDash([]);
  }

  #label(pen, { box, name, colour, current, anchor }) {
    const size = 12 / this.scale;
    pen.font = `${current ? "bold " : ""}${size}px system-ui, sans-serif`;
    const width = pen.measureText(name).width + size * 0.7;
    const above = box[1] * this.scale + this.top > 20 ? box[1] - size * 1.4 : box[1];
    const [left, top] = anchor ? [anchor[0] - width / 2, anchor[1] - size * 0.7] : [box[0], above];
    pen.fillStyle = "rgba(0, 0, 0, 0.75)";
    pen.fillRect(left, top, width, size * 1.4);
    pen.fillStyle = colour;
    pen.fillText(name, left + size * 0.35, top + size * 1.05);
  }

  /** A plus in a circle, a minus in a square, a question mark: told apart by shape. */
  #point(pen, [column, row, label]) {
    const [x, y, r] = [column + 0.5, row + 0.5, 6 / this.scale];
    pen.beginPath();
    if (label === 1) pen.arc(x, y, r, 0, 2 * Math.PI);
    else if (label === 0) pen.rect(x - r, y - r, 2 * r, 2 * r);
    else {
      pen.moveTo(x, y - r * 1.2);
      pen.lineTo(x + r * 1.2, y + r);
      pen.lineTo(x - r * 1.2, y + r);
      pen.closePath();
    }
    pen.fillStyle = label === 1 ? "#0b6b3a" : label === 0 ? "#9c1f1f" : "#555555";
    pen.fill();
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = 1.5 / this.scale;
    pen.stroke();
    pen.beginPath();
    if (label === 1 || label === 0) {
      pen.moveTo(x - r * 0.55, y);
      pen.lineTo(x + r * 0.55, y);
    }
    if (label === 1) {
      pen.moveTo(x, y - r * 0.55);
      pen.lineTo(x, y + r * 0.55);
    }
    pen.stroke();
  }

  #cross(pen, [x, y]) {
    const { width, height } = this.picture;
    for (const [thick, ink] of [[3, "#000000"], [1, "#ffffff"]]) {
      pen.lineWidth = thick / this.scale;
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.moveTo(0, y + 0.5);
      pen.lineTo(width, y + 0.5);
      pen.moveTo(x + 0.5, 0);
      pen.lineTo(x + 0.5, height);
      pen.stroke();
    }
  }

  #putRing() {
    if (!this.mark) return;
    const x = (this.mark[0] + 0.5) * this.scale + this.left;
    const y = (this.mark[1] + 0.5) * this.scale + this.top;
    this.ring.style.transform = `translate(${x}px, ${y}px)`;
    this.ring.hidden = false;
  }

  // --- fingers, mice and keys ------------------------------------------------------------------

  #listen() {
    const { canvas } = this;
    // a palm or a second finger moves nothing that the first one holds
    const isOurs = (event) => this.press?.pointer === event.pointerId;
    canvas.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      // macOS asks for the menu at a click with Ctrl, which is its right click, and calls the button left
      if (this.press?.button === 0 && event.ctrlKey) Object.assign(this.press, { button: 2, grip: "" });
    });
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.picture || !event.isPrimary) return;
      this.#release();
      const press = { pointer: event.pointerId, x: event.clientX, y: event.clientY, button: event.button };
      press.pixel = this.#pixel(event);
      press.grip = event.button === 0 ? this.#grip(event) : "";
      press.box = this.edited;
      this.press = press;
      canvas.setPointerCapture(event.pointerId); // its end is heard outside of the picture, too
      if (!press.grip && !(this.drawing && event.button === 0) && event.pointerType !== "mouse") {
        press.timer = setTimeout(() => {
          this.#release();
          this.#tap(press.pixel, 0);
        }, LONG);
      }
    });
    canvas.addEventListener("pointermove", (event) => {
      const { press } = this;
      if (!press && this.edited) canvas.style.cursor = cursorOf(this.#grip(event));
      if (!isOurs(event)) return;
      if (Math.hypot(event.clientX - press.x, event.clientY - press.y) < MOVED) return;
      clearTimeout(press.timer);
      press.moved = true;
      if (press.grip) {
        const [x, y] = this.#pixel(event);
        this.edited = dragged(press.box, press.grip, [x - press.pixel[0], y - press.pixel[1]], this.picture);
        this.draw();
      } else if (this.drawing && press.button === 0) {
        this.band = ordered(this.#inside(press.pixel), this.#inside(this.#pixel(event)));
        this.draw();
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!isOurs(event)) return;
      const { moved, pixel, button, grip } = this.press;
      this.#release();
      if (grip && moved) this.on.changed(this.edited);
      else if (this.drawing) this.#finish();
      else if (!moved) this.#tap(pixel, button === 0 ? 1 : 0);
    });
    canvas.addEventListener("pointercancel", (event) => {
      if (!isOurs(event)) return;
      if (this.press.grip) this.edited = this.press.box;
      this.#release();
      this.band = null;
      this.draw();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Forgets what the pointer that is down began. */
  #release() {
    clearTimeout(this.press?.timer);
    this.press = null;
  }

  /** What of the edited box is under a pointer. */
  #grip(event) {
    return this.edited ? grabbed(this.edited, this.#pixel(event), REACH[event.pointerType] / this.scale) : "";
  }

  #tap([x, y], label) {
    const { width, height } = this.picture;
    if (x >= 0 && y >= 0 && x < width && y < height) this.on.tap(Math.floor(x), Math.floor(y), label);
  }

  #finish() {
    const { band } = this;
    this.band = null;
    this.corner = null;
    if (band && band[2] - band[0] >= 1 && band[3] - band[1] >= 1) this.on.box(...band);
    this.draw();
  }

  /** Arrows move a cross (with Shift by one pixel); Enter is a corner or a click, with Shift off. */
  #key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.picture || event.ctrlKey || event.altKey || event.metaKey) return;
    if (this.edited && this.#editKey(event, steps[event.key])) {
      event.preventDefault();
      this.draw();
      return;
    }
    if (steps[event.key]) {
      const far = event.shiftKey ? 1 : Math.max(1, Math.round(12 / this.scale));
      const { width, height } = this.picture;
      const from = this.cursor || this.mark || [width >> 1, height >> 1];
      const [x, y] = [0, 1].map((axis) => from[axis] + far * steps[event.key][axis]);
      this.cursor = [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
      if (this.corner) this.band = this.#around(this.corner, this.cursor);
      this.on.moved(...this.cursor);
    } else if (event.key === "Enter" && this.cursor) {
      if (!this.drawing) this.#tap(this.cursor, event.shiftKey ? 0 : 1);
      else if (this.corner) this.#finish();
      else {
        this.corner = this.cursor;
        this.band = this.#around(this.corner, this.cursor);
      }
    } else if (event.key === "Escape" && (this.cursor || this.corner)) {
      this.cursor = this.corner = this.band = null;
    } else return;
    event.preventDefault();
    this.draw();
  }

  /** Arrows move the edited box, with Shift its lower right corner; Enter keeps it, Escape does not. */
  #editKey(event, step) {
    if (step) {
      this.edited = dragged(this.edited, event.shiftKey ? "se" : "box", step, this.picture);
      this.on.changing(this.edited);
    } else if (event.key === "Enter") this.on.changed(this.edited);
    else if (event.key === "Escape") this.edited = [...this.of.box];
    else return false;
    return true;
  }

  #around(one, other) {
    const [x0, y0, x1, y1] = ordered(one, other);
    return [x0, y0, x1 + 1, y1 + 1];
  }
}

function ordered([x0, y0], [x1, y1]) {
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
}

/** Draws the pixels around one, each a square, that one framed. */
export function magnify(canvas, picture, [x, y], sides = 21) {
  const pen = canvas.getContext("2d");
  const cell = canvas.width / sides;
  const half = sides >> 1;
  pen.imageSmoothingEnabled = false;
  pen.fillStyle = "#808080";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, x - half, y - half, sides, sides, 0, 0, canvas.width, canvas.height);
  for (const [width, ink] of [[4, "#000000"], [2, "#ffffff"]]) {
    pen.lineWidth = width;
    pen.strokeStyle = ink;
    pen.strokeRect(half * cell - 1, half * cell - 1, cell + 2, cell + 2);
  }
}
