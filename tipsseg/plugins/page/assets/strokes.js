"use strict";
// Which pixels a stroke covers. `tipsseg correct` has the same rule: a pixel belongs to the stroke of a brush if its centre is within
// the radius of the stroke's line, and to a lasso if its line winds around the centre. Points are y, x in pixels of the image.

/**
 * Draw a stroke into labels: ids, base (what an eraser brings back) and owners, each [h * w] of a map of `size` (h, w).
 * A stroke has a label (ERASE for an eraser), points [y, x], and a radius, which a lasso lacks. `imageSize` is that of the image.
 */
function drawStroke({ ids, base, owners }, { label, radius, points }, number, size, imageSize) {
  const [height, width] = size;
  const [yScale, xScale] = [imageSize[0] / height, imageSize[1] / width];
  const columnFrom = (x) => Math.ceil(x / xScale - 0.5); // the first one whose centre is not left of x
  const fill = (row, first, last) => {
    for (let at = row * width + Math.max(0, first); at <= row * width + Math.min(width - 1, last); at++) {
      ids[at] = label === ERASE ? base[at] : label;
      owners[at] = label === ERASE ? 0 : number;
    }
  };
  /** The rows whose centres are between two y. */
  const eachRow = (low, high, visit) => {
    const last = Math.min(height - 1, Math.floor(high / yScale - 0.5));
    for (let row = Math.max(0, Math.ceil(low / yScale - 0.5)); row <= last; row++) visit(row, (row + 0.5) * yScale);
  };
  if (radius === undefined) {
    for (const [row, left, right] of lassoRows(points, height, eachRow)) fill(row, columnFrom(left), columnFrom(right) - 1);
    return;
  }
  points.slice(points.length > 1 ? 1 : 0).forEach((end, place) => {
    const start = points[place];
    eachRow(Math.min(start[0], end[0]) - radius, Math.max(start[0], end[0]) + radius, (row, y) => {
      const [left, right] = chord(y, start, end, radius);
      fill(row, columnFrom(left), Math.floor(right / xScale - 0.5));
    });
  });
}

const ERASE = -1;

/** The box around a stroke, in shares of an image of `size` (h, w): it bounds the time of an import. */
function boxShare({ radius = 0, points }, size) {
  const sides = size.map((side, axis) => {
    const values = points.map((point) => point[axis]);
    return Math.max(0, Math.min(side, Math.ceil(Math.max(...values) + radius)) - Math.max(0, Math.floor(Math.min(...values) - radius))) / side;
  });
  return sides[0] * sides[1];
}

/** The leftmost and the rightmost x of a row within a radius of a segment. */
function chord(y, [startY, startX], [endY, endX], radius) {
  const [runY, runX] = [endY - startY, endX - startX];
  const length = Math.sqrt(runY * runY + runX * runX);
  const isLevel = Math.abs(runY) < 1e-9;
  const slope = isLevel ? 1 : runY;
  const touch = (radius * runX * Math.sign(slope)) / (length === 0 ? 1 : length);
  const ends = [(y - startY - radius) / slope, (y - startY + radius) / slope];
  const between = (value, low, high) => Math.min(high, Math.max(low, value));
  const [low, high] = [between(Math.min(...ends), 0, 1), between(Math.max(...ends), 0, 1)];
  return [-1, 1].map((side) => {
    const share = isLevel ? Number(side * runX > 0) : between((y - startY + side * touch) / slope, low, high);
    const above = y - startY - share * runY;
    return startX + share * runX + side * Math.sqrt(Math.max(radius * radius - above * above, 0));
  });
}

/** Where a lasso is: rows, each with the x from which and up to which it winds around. */
function lassoRows(points, height, eachRow) {
  const crossings = Array.from({ length: height }, () => []); // of each row: x, and 1 if the line goes down there, -1 if up
  points.forEach(([startY, startX], place) => {
    const [endY, endX] = points[(place + 1) % points.length];
    eachRow(Math.min(startY, endY), Math.max(startY, endY), (row, y) => {
      if (startY <= y !== endY <= y) crossings[row].push([startX + ((y - startY) / (endY - startY)) * (endX - startX), endY > startY ? 1 : -1]);
    });
  });
  return crossings.flatMap((found, row) => {
    let turns = 0;
    found.sort(([one], [other]) => one - other);
    return found.flatMap(([x, step], place) => ((turns += step) ? [[row, x, found[place + 1][0]]] : []));
  });
}
