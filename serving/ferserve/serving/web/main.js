// Puts the page together: model, photos or camera, what is shown of an answer, downloads.

import { models, occlusion, pause } from "./api.js";
import { clearCards, drawCards, setHeatWords, showCard } from "./faces.js";
import { clearHeat, drawHeat, heatWords } from "./heat.js";
import * as live from "./live.js";
import { notify, withdraw } from "./notices.js";
import { analyzeAgain, setUpPhotos, showCurrent } from "./photos.js";
import * as results from "./results.js";
import { clearBoxes, drawBoxes, showEmpty } from "./stage.js";
import { explain, faceName, summarise } from "./words.js";

const byId = (id) => document.getElementById(id);
const select = byId("model"), summary = byId("summary"), timings = byId("timings"), camera = byId("camera"), freeze = byId("freeze");
const SAY_EVERY_MS = 4000; // a screen reader must not be talked over by every frame
const DETAILS_EVERY_MS = 125; // bars and figures that change faster are not read, and cost more than the boxes
const STAGES = ["decode", "detect", "preprocess", "queue", "infer", "total"];
const shown = { analysis: null, picture: null, chosen: null };
let saidAtMs = -Infinity;
let drawnAtMs = -Infinity;
let questions = 0;

const page = {
  model: () => select.value,
  models: fillModels,
  async withoutModel(name) {
    notify(`The model ${name} is not loaded any more. The default one goes on.`, { key: "model" });
    await loadModels();
  },
  toPhotos: () => setMode("photos"),
  busy: say,
  clear() {
    Object.assign(shown, { analysis: null, picture: null, chosen: null });
    clearHeat();
    clearCards();
    clearBoxes();
    timings.replaceChildren();
    say("No picture yet.");
    if (inCamera()) showEmpty("The camera is off", "Its pictures are analysed in memory and forgotten; no sound is taken.");
    else
      showEmpty(
        "Drop photos here, paste one, or choose them",
        "JPEG, PNG, WebP, BMP, TIFF or GIF. Pictures are analysed in memory and forgotten.",
      );
  },
  show(analysis, picture, speed = null) {
    if (!speed) {
      clearHeat();
      clearCards();
      shown.chosen = null;
    }
    Object.assign(shown, { analysis, picture });
    const nowMs = performance.now(), moved = speed !== null && nowMs - drawnAtMs < DETAILS_EVERY_MS;
    drawFaceBoxes(moved);
    if (moved) return;
    drawnAtMs = nowMs;
    drawFaceCards();
    drawTimings(analysis.timings, speed);
    byId("csv").disabled = byId("json").disabled = results.count() === 0;
    if (!speed || nowMs - saidAtMs > SAY_EVERY_MS) say(summarise(analysis.faces));
  },
  ended: stopCamera,
};

function draw() {
  drawFaceBoxes();
  drawFaceCards();
}

const drawFaceBoxes = (moved = false) => drawBoxes(shown.analysis, { chosen: shown.chosen, choose, moved });
const drawFaceCards = () => drawCards(shown.analysis.faces, { chosen: shown.chosen, choose, ask: askForHeat });

function choose(key) {
  shown.chosen = key;
  draw();
  showCard(key);
}

function say(text) {
  saidAtMs = performance.now();
  if (summary.textContent !== text) summary.textContent = text;
}

function drawTimings(taken, speed) {
  const values = Object.fromEntries(STAGES.map((stage) => [`${stage} ms`, taken[`${stage}_ms`].toFixed(1)]));
  const view = speed
    ? { "frames/s": speed.perS.toFixed(1), "round trip ms": speed.tookMs.toFixed(0), dropped: String(speed.dropped) }
    : {};
  const entries = Object.entries({ ...view, ...values });
  if (timings.children.length !== entries.length) {
    timings.replaceChildren(
      ...entries.map(([name]) => {
        const pair = document.createElement("div"), term = document.createElement("dt");
        term.textContent = name;
        pair.append(term, document.createElement("dd"));
        return pair;
      }),
    );
  }
  entries.forEach(([, value], index) => {
    timings.children[index].lastChild.textContent = value;
  });
}

async function askForHeat(key) {
  if (inCamera()) hold();
  const { analysis, picture } = shown;
  const place = analysis.faces.findIndex((face, index) => String(face.track_id ?? index) === key);
  if (place < 0) return;
  choose(key);
  const question = ++questions;
  setHeatWords(key, "Covering one part of the face after another …", false);
  try {
    const answer = await occlusion(picture, analysis.model.name, place);
    if (question !== questions || shown.analysis !== analysis) return;
    drawHeat(answer);
    setHeatWords(key, `${heatWords(answer)} It shows where the model looked, nothing about the person.`, true);
  } catch (error) {
    if (error.reason === undefined) throw error;
    setHeatWords(key, explain(error, faceName(analysis.faces[place], place)), false);
  }
}

const inCamera = () => document.body.classList.contains("live");

function setMode(mode) {
  if ((mode === "camera") === inCamera()) return;
  if (mode === "photos") stopCamera();
  document.body.classList.toggle("live", mode === "camera");
  for (const name of ["photos", "camera"]) byId(`mode-${name}`).setAttribute("aria-pressed", String(name === mode));
  byId("gallery").hidden = mode === "camera";
  page.clear();
  if (mode === "photos") showCurrent(page);
}

async function startCamera() {
  camera.disabled = true;
  const runs = await live.start(page);
  camera.disabled = false;
  if (!runs) return;
  if (!inCamera()) live.stop();
  clearHeat();
  camera.textContent = "Stop the camera";
  freeze.disabled = false;
  say("The camera is on.");
  saidAtMs = -Infinity; // what is seen is worth saying at once
}

function stopCamera() {
  if (!live.isRunning()) return;
  live.stop();
  camera.textContent = "Start the camera";
  goOn();
  freeze.disabled = true;
  page.clear();
}

function hold() {
  const last = live.hold();
  if (!last) return;
  Object.assign(shown, last);
  draw();
  freeze.setAttribute("aria-pressed", "true");
  freeze.textContent = "Go on";
}

function goOn() {
  live.letGo();
  clearHeat();
  questions += 1;
  clearCards();
  freeze.setAttribute("aria-pressed", "false");
  freeze.textContent = "Hold still";
}

function fillModels(list) {
  const before = select.value;
  select.replaceChildren(
    ...list.map(({ ref, is_default: isDefault }) => {
      const option = new Option(`${ref.name} ${ref.version}, ${ref.precision}`, ref.name, isDefault);
      option.title = `SHA-256 ${ref.archive_sha256}`;
      return option;
    }),
  );
  select.value = list.some(({ ref }) => ref.name === before) ? before : list.find((model) => model.is_default).ref.name;
}

async function loadModels() {
  for (;;) {
    try {
      fillModels(await models());
      withdraw("models");
      return;
    } catch (error) {
      if (error.reason === undefined) throw error;
      notify(explain(error, "The list of models"), { key: "models", bad: true });
      await pause(error.retryAfterMs ?? 2000);
    }
  }
}

byId("mode-photos").addEventListener("click", () => setMode("photos"));
byId("mode-camera").addEventListener("click", () => setMode("camera"));
camera.addEventListener("click", () => (live.isRunning() ? stopCamera() : startCamera()));
freeze.addEventListener("click", () => (live.isHeld() ? goOn() : hold()));
select.addEventListener("change", () => {
  if (live.isRunning()) live.reopen(page);
  else analyzeAgain(page);
});
byId("csv").addEventListener("click", () => results.save("ferserve.csv", "text/csv", results.toCsv()));
byId("json").addEventListener("click", () => results.save("ferserve.json", "application/json", results.toJson()));
setUpPhotos(page);
page.clear();
loadModels();
