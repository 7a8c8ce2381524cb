// The picture or the video with its boxes: boxes are buttons, placed in percent of the picture.

import { describeFace, labelOf, percent } from "./words.js";

const byId = (id) => document.getElementById(id);
const view = byId("view"), photo = byId("photo"), video = byId("video"), answered = byId("answered"), boxes = byId("boxes");

export function showEmpty(invitation, smallPrint) {
  byId("invitation").textContent = invitation;
  byId("small-print").textContent = smallPrint;
  byId("empty").hidden = false;
  view.hidden = true;
  clearBoxes();
}

// failed: called if the browser cannot show this kind of picture.
export function showPhoto(url, alt, failed) {
  photo.onerror = failed ?? null;
  photo.hidden = false;
  video.hidden = answered.hidden = true;
  photo.alt = alt;
  if (photo.src !== url) photo.src = url;
  reveal();
}

// The video as it comes, without boxes: nothing was said yet of what it shows now.
export function showVideo() {
  photo.hidden = answered.hidden = true;
  video.hidden = false;
  video.classList.remove("covered");
  clearBoxes();
  reveal();
}

// The frame that was answered, over the video: boxes belong to it and not to what the camera sees by now. The bitmap is
// used up.
export function showAnswered(bitmap) {
  if (answered.width !== bitmap.width || answered.height !== bitmap.height) {
    Object.assign(answered, { width: bitmap.width, height: bitmap.height });
  }
  answered.getContext("bitmaprenderer", { alpha: false }).transferFromImageBitmap(bitmap);
  answered.hidden = false;
  video.classList.add("covered");
}

function reveal() {
  byId("empty").hidden = true;
  view.hidden = false;
}

export function clearBoxes() {
  boxes.replaceChildren();
}

// Boxes of the same key stay the same buttons, so that focus survives from frame to frame.
// moved: boxes that are there already are moved and nothing else, which is all that a live view needs at most frames.
export function drawBoxes(analysis, { chosen, choose, moved = false }) {
  const kept = new Map([...boxes.children].map((box) => [box.dataset.key, box]));
  const wanted = analysis.faces.map((face, place) => {
    const key = String(face.track_id ?? place), known = kept.get(key);
    const box = known ?? newBox(key, choose);
    kept.delete(key);
    place_(box, face, analysis);
    if (!known || !moved) describe(box, face, place);
    box.classList.toggle("chosen", key === chosen);
    return box;
  });
  for (const gone of kept.values()) gone.remove();
  for (const box of wanted) if (box.parentElement !== boxes) boxes.append(box);
}

function newBox(key, choose) {
  const box = document.createElement("button");
  const tag = document.createElement("span");
  box.type = "button";
  box.className = "box";
  box.dataset.key = key;
  tag.className = "tag";
  box.append(tag);
  box.addEventListener("click", () => choose(key));
  return box;
}

function describe(box, face, place) {
  const label = labelOf(face);
  box.setAttribute("aria-label", describeFace(face, place));
  box.querySelector(".tag").textContent = `${label} ${percent(face.scores[label])}${face.uncertain ? " ?" : ""}`;
  box.classList.toggle("uncertain", face.uncertain);
  box.classList.toggle("poor", face.quality.issues.length > 0);
}

function place_(box, face, analysis) {
  const { x0, y0, x1, y1 } = face.box;
  box.style.left = `${(100 * x0) / analysis.width_px}%`;
  box.style.top = `${(100 * y0) / analysis.height_px}%`;
  box.style.width = `${(100 * (x1 - x0)) / analysis.width_px}%`;
  box.style.height = `${(100 * (y1 - y0)) / analysis.height_px}%`;
  box.classList.toggle("low", y1 > 0.92 * analysis.height_px);
  box.classList.toggle("end", x0 + x1 > 1.5 * analysis.width_px);
}
