// Photos: dropped, pasted or chosen; each is analysed once a model, the chosen one is shown.

import { analyze, pause } from "./api.js";
import { notify, withdraw } from "./notices.js";
import * as results from "./results.js";
import { clearBoxes, showPhoto } from "./stage.js";
import { explain } from "./words.js";

const MOST_SHOWN = 24;
const AWAY = ["UNREACHABLE", "NOT_READY"];
const AGAIN_MS = 1500;
const gallery = document.getElementById("gallery");
const photos = [];
let current = null;

// page: {model(), withoutModel(name), show(analysis, picture), clear(), busy(text)}
export function setUpPhotos(page) {
  const input = document.getElementById("files"), stage = document.getElementById("stage");
  document.getElementById("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take([...input.files], page);
    input.value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    take([...event.dataTransfer.files], page);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files, page);
  });
}

export function showCurrent(page) {
  if (current) show(current, page);
  return current !== null;
}

// After another model was chosen.
export async function analyzeAgain(page) {
  if (!current) return;
  await answer(current, page);
}

async function take(files, page) {
  page.toPhotos();
  for (const file of files) {
    if (file.type && !file.type.startsWith("image/")) {
      notify(explain({ reason: "UNSUPPORTED_MEDIA" }, file.name), { bad: true });
      continue;
    }
    const photo = { file, name: file.name || "The pasted picture", url: URL.createObjectURL(file), analysis: null };
    if (!(await answer(photo, page))) URL.revokeObjectURL(photo.url);
  }
}

// Whether the gateway could say anything about it; why not stands in a notice.
async function answer(photo, page) {
  page.busy(`Looking at ${photo.name} …`);
  try {
    photo.analysis = await analysisOf(photo, page);
  } catch (error) {
    if (error.reason === undefined) throw error;
    notify(explain(error, photo.name), { bad: true });
    if (current) show(current, page);
    else page.clear();
    return false;
  }
  results.add(photo.name, photo.analysis);
  if (!photos.includes(photo)) keep(photo, page);
  show(photo, page);
  return true;
}

// Asks until there is an answer: a gateway that is away comes back, and the default model stands in for one that is gone.
async function analysisOf(photo, page) {
  for (;;) {
    const model = page.model();
    try {
      const analysis = await analyze(photo.file, model);
      withdraw("away");
      return analysis;
    } catch (error) {
      if (AWAY.includes(error.reason)) {
        notify(explain(error, photo.name), { key: "away", bad: true });
        await pause(error.retryAfterMs ?? AGAIN_MS);
      } else {
        if (error.reason === "MODEL_NOT_FOUND") await page.withoutModel(model);
        if (page.model() === model) throw error;
      }
    }
  }
}

function keep(photo, page) {
  const thumb = document.createElement("button"), image = document.createElement("img"), faces = document.createElement("span");
  thumb.type = "button";
  image.src = photo.url;
  image.alt = "";
  thumb.append(image, faces);
  thumb.addEventListener("click", () => show(photo, page));
  gallery.append(thumb);
  Object.assign(photo, { thumb, faces });
  photos.push(photo);
  if (photos.length > MOST_SHOWN) {
    const gone = photos.shift();
    gone.thumb.remove();
    URL.revokeObjectURL(gone.url);
  }
}

function show(photo, page) {
  current = photo;
  const found = photo.analysis.faces.length;
  photo.faces.textContent = found === 1 ? "1 face" : `${found} faces`;
  for (const { thumb, name } of photos) {
    thumb.setAttribute("aria-pressed", String(thumb === photo.thumb));
    thumb.setAttribute("aria-label", `Show ${name}`);
  }
  gallery.hidden = photos.length < 2;
  clearBoxes();
  showPhoto(photo.url, photo.name, () =>
    notify(`This browser cannot show ${photo.name}, but the gateway has read it: its faces stand in the list.`),
  );
  page.show(photo.analysis, photo.file);
}
