// Masks as they come, run lengths along the rows of a crop, and as they are drawn.

/** The pixels of a crop {x, y, w, h, counts}: 1 on the object; counts begin with a run of zeros. */
export function decode(mask) {
  const pixels = new Uint8Array(mask.w * mask.h);
  let at = 0;
  mask.counts.forEach((count, index) => {
    if (index % 2) pixels.fill(1, at, at + count);
    at += count;
  });
  return pixels;
}

/** The edges between pixels on the object and off it, as a path in pixels of the picture. */
export function outline(mask, pixels) {
  const { x, y, w, h } = mask;
  const path = new Path2D();
  const on = (column, row) =>
    column >= 0 && row >= 0 && column < w && row < h && pixels[row * w + column];
  for (let row = 0; row <= h; row++) {
    for (let column = 0; column <= w; column++) {
      const here = on(column, row);
      if (Boolean(here) !== Boolean(on(column, row - 1))) {
        path.moveTo(x + column, y + row);
        path.lineTo(x + column + 1, y + row);
      }
      if (Boolean(here) !== Boolean(on(column - 1, row))) {
        path.moveTo(x + column, y + row);
        path.lineTo(x + column, y + row + 1);
      }
    }
  }
  return path;
}

/** A canvas of the crop's size, opaque where the object is. */
function stencil(mask, pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, mask.w);
  canvas.height = Math.max(1, mask.h);
  if (!mask.w || !mask.h) return canvas;
  const image = new ImageData(mask.w, mask.h);
  for (let i = 0; i < pixels.length; i++) image.data[4 * i + 3] = pixels[i] * 255;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** What drawing a mask needs, made once an answer. */
export function prepared(mask) {
  if (!mask) return null;
  const pixels = decode(mask);
  return { ...mask, stencil: stencil(mask, pixels), path: outline(mask, pixels) };
}

/** The middle of the longest run of a mask along a row: a place on the object, for its name. */
export function middle({ x, y, w, counts }) {
  let [at, best, place] = [0, 0, 0];
  counts.forEach((run, index) => {
    if (index % 2) {
      // a run goes on from one row to the next
      for (let from = at, end = at + run; from < end; ) {
        const length = Math.min(end, (Math.floor(from / w) + 1) * w) - from;
        if (length > best) [best, place] = [length, from];
        from += length;
      }
    }
    at += run;
  });
  return [x + (place % w) + best / 2, y + Math.floor(place / w) + 0.5];
}

/** Diagonal lines on a tint, so that a mask is seen without its colour, too. */
export function hatch(context, colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.fillStyle = colour;
  pen.globalAlpha = 0.28;
  pen.fillRect(0, 0, 8, 8);
  pen.globalAlpha = 0.7;
  pen.strokeStyle = colour;
  pen.lineWidth = 1.2;
  for (const shift of [-8, 0, 8]) {
    pen.beginPath();
    pen.moveTo(shift, 8);
    pen.lineTo(shift + 8, 0);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}
