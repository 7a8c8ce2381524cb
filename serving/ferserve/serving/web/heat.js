// The occlusion map of one face, drawn over its crop's square, which may be turned.

import { labelOf } from "./words.js";

const canvas = document.getElementById("heat");
const COLOUR = [255, 106, 0];
const STRONGEST = 0.72; // of opaque

export function clearHeat() {
  canvas.width = canvas.height = 1;
}

export function drawHeat({ width_px: width, height_px: height, corners, drops }) {
  const scale = Math.min(1, 1600 / Math.max(width, height)); // a phone cannot hold a canvas of 12 megapixels
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const grid = drops.length, cells = cellsOf(drops);
  const context = canvas.getContext("2d");
  const [topLeft, topRight, , bottomLeft] = corners;
  const along = (to) => [((to.x - topLeft.x) * scale) / grid, ((to.y - topLeft.y) * scale) / grid];
  context.setTransform(...along(topRight), ...along(bottomLeft), topLeft.x * scale, topLeft.y * scale);
  context.imageSmoothingQuality = "high";
  context.drawImage(cells, 0, 0);
  context.setTransform(1, 0, 0, 1, 0, 0);
}

function cellsOf(drops) {
  const grid = drops.length, most = Math.max(...drops.flat(), 0.02);
  const cells = document.createElement("canvas");
  cells.width = cells.height = grid;
  const context = cells.getContext("2d"), image = context.createImageData(grid, grid);
  drops.flat().forEach((drop, index) => {
    image.data.set([...COLOUR, Math.round(255 * STRONGEST * Math.max(0, drop / most))], 4 * index);
  });
  context.putImageData(image, 0, 0);
  return cells;
}

// The same for whoever does not see it.
export function heatWords({ face, drops }) {
  const flat = drops.flat(), most = Math.max(...flat), index = flat.indexOf(most), grid = drops.length;
  const label = labelOf(face);
  if (most < 0.02) return `Covering any one part changes “${label}” by less than 2 points: it rests on the whole face.`;
  const third = (place) => Math.min(2, Math.floor((3 * (place + 0.5)) / grid));
  const row = ["upper", "middle", "lower"][third(Math.floor(index / grid))];
  const column = ["left", "centre", "right"][third(index % grid)];
  const where = row === "middle" && column === "centre" ? "centre" : `${row} ${column}`;
  return `Covering the ${where} of the face (as you see it) lowers “${label}” most, by ${Math.round(most * 100)} points.`;
}
