// A box that is changed: its handles, and what dragging one, or the box itself, makes of it.

const PLACES = { nw: [0, 0], n: [0.5, 0], ne: [1, 0], e: [1, 0.5], se: [1, 1], s: [0.5, 1], sw: [0, 1], w: [0, 0.5] };
const LEAST = 2; // pixels of a side
const CURSORS = { nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew" };

/** Name and place of each handle, corners last, so that they are found first. */
function handles([x0, y0, x1, y1]) {
  const every = Object.entries(PLACES).map(([name, [x, y]]) => [name, x0 + x * (x1 - x0), y0 + y * (y1 - y0)]);
  return every.sort(([one], [other]) => one.length - other.length);
}

/** The handle within `reach` of a place, "box" inside, "" elsewhere. */
export function grabbed(box, [x, y], reach) {
  const near = handles(box)
    .map(([name, column, row]) => [Math.hypot(column - x, row - y), name])
    .filter(([distance]) => distance <= reach)
    .sort(([one, a], [other, b]) => one - other || b.length - a.length);
  if (near.length) return near[0][1];
  return x > box[0] && y > box[1] && x < box[2] && y < box[3] ? "box" : "";
}

export function cursorOf(name) {
  return name === "box" ? "move" : name ? `${CURSORS[name]}-resize` : "";
}

/** The box after its handle was dragged by so many pixels, inside a picture of this size. */
export function dragged([x0, y0, x1, y1], name, [dx, dy], { width, height }) {
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  if (name === "box") {
    const [right, down] = [within(dx, -x0, width - x1), within(dy, -y0, height - y1)];
    return [x0 + right, y0 + down, x1 + right, y1 + down];
  }
  return [
    name.includes("w") ? within(x0 + dx, 0, x1 - LEAST) : x0,
    name.includes("n") ? within(y0 + dy, 0, y1 - LEAST) : y0,
    name.includes("e") ? within(x1 + dx, x0 + LEAST, width) : x1,
    name.includes("s") ? within(y1 + dy, y0 + LEAST, height) : y1,
  ];
}

/** Squares on corners and sides, of the same size on the screen at any zoom. */
export function drawHandles(pen, box, scale) {
  const side = 10 / scale;
  for (const [, x, y] of handles(box)) {
    pen.fillStyle = "#ffffff";
    pen.strokeStyle = "#000000";
    pen.lineWidth = 1.5 / scale;
    pen.fillRect(x - side / 2, y - side / 2, side, side);
    pen.strokeRect(x - side / 2, y - side / 2, side, side);
  }
}
