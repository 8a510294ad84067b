// Where labels stand, and what masks look like. All lengths are CSS pixels of the shown picture.

/** The colour of a class, the same as in resdet's drawings: hues by the golden angle, three lightnesses in turn. */
export const color = (label) => {
  const [lightness, chroma] = [[0.72, 0.17], [0.8, 0.14], [0.64, 0.19]][label % 3];
  return `oklch(${lightness} ${chroma} ${(25 + 137.508 * label) % 360})`;
};

const overlap = (a, b) =>
  Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));

/** A place (x1, y1, x2, y2) for the label of each box, best boxes first, or null where it would cover another label.
 *
 * A label never covers the box that it names: it stands above, below or beside it. `area` is where labels may be;
 * it is larger than the picture, so that a box which fills the picture has its label outside. Of the places that
 * cover no earlier label and at most half of any other box, the one that covers least of the other boxes is taken;
 * large boxes count little. */
export function places(boxes, sizes, area) {
  const placed = [];
  return boxes.map(([x1, y1, x2, y2], i) => {
    const [width, height] = sizes[i];
    const left = Math.min(Math.max(x1, area[0]), area[2] - width);
    const right = Math.min(Math.max(x2 - width, area[0]), area[2] - width);
    const corners = [[left, y1 - height], [left, y2], [right, y1 - height], [right, y2]];
    for (const y of [y1, y2 - height]) corners.push([x2, y], [x1 - width, y]);
    if (y1 - height < 0 || y2 + height > area[3]) // in the margins, anywhere along them
      for (const y of [area[1], area[3] - height])
        for (let x = area[0]; x + width <= area[2]; x += Math.max(8, width / 2)) corners.push([x, y]);
    let best = null, least = Infinity;
    for (const [x, y] of corners) {
      const spot = [x, y, x + width, y + height];
      if (x < area[0] || y < area[1] || spot[2] > area[2] || spot[3] > area[3]) continue;
      if (overlap(spot, boxes[i]) > 0.5 || placed.some((other) => overlap(spot, other) > 0.5)) continue;
      let hidden = 0;
      boxes.forEach((box, j) => {
        const common = overlap(spot, box), size = (box[2] - box[0]) * (box[3] - box[1]);
        if (j !== i) hidden += common > size / 2 ? Infinity : common / Math.sqrt(size + 1);
      });
      if (hidden < least - 1e-6) [best, least] = [spot, hidden];
    }
    if (best) placed.push(best);
    return best;
  });
}

/** A mask as a canvas of the size of its box: the cells are stretched over the box, from 0.5 on it is the object. */
export function painted(mask, width, height, style) {
  const side = Math.round(Math.sqrt(mask.length));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width)), Math.max(1, Math.round(height)));
  const context = canvas.getContext("2d");
  context.fillStyle = style;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  const image = context.createImageData(canvas.width, canvas.height);
  const along = (length) => Array.from({ length }, (_, i) => {
    const at = ((i + 0.5) * side) / length - 0.5, low = Math.floor(at);
    return [low, at - low];
  });
  const cell = (row, column) => (row < 0 || column < 0 || row >= side || column >= side ? 0 : mask[row * side + column]);
  const columns = along(canvas.width), inside = new Uint8Array(canvas.width * canvas.height);
  along(canvas.height).forEach(([row, below], y) => columns.forEach(([column, right], x) => {
    const value = (1 - below) * ((1 - right) * cell(row, column) + right * cell(row, column + 1)) +
      below * ((1 - right) * cell(row + 1, column) + right * cell(row + 1, column + 1));
    inside[y * canvas.width + x] = value >= 0.5;
  }));
  for (let y = 0, i = 0; y < canvas.height; y++)
    for (let x = 0; x < canvas.width; x++, i++) {
      if (!inside[i]) continue;
      const rim = !inside[i - 1] || !inside[i + 1] || !inside[i - canvas.width] || !inside[i + canvas.width] || !x || x === canvas.width - 1;
      image.data.set([red, green, blue, rim ? 255 : 110], 4 * i);
    }
  context.putImageData(image, 0, 0);
  return canvas;
}
