// The camera's view: frames to the stream, replies to the page, and how fast that goes.

import { everyFrame, frame, onCameraEnd, startCamera, stopCamera } from "./camera.js";
import { notify, withdraw } from "./notices.js";
import * as results from "./results.js";
import { showAnswered, showPhoto, showVideo } from "./stage.js";
import { LiveStream } from "./stream.js";
import { explain, explainCamera } from "./words.js";

const OPTIONS = { mode: "live", tracks: true, smoothing: 0.6 };
const SPEED_OVER_MS = 2000;
const LOST = "lost", BUSY = "busy";

let stream = null;
let stopFrames = null;
let last = null; // the newest answer, with the picture that it is of
let held = null; // address of the picture that is held still
let shown = [];
let dropped = 0;
let encoding = false;
let missed = false; // whether a frame came for which there was no room

export const isRunning = () => stream !== null;
export const isHeld = () => held !== null;

// page: {model(), withoutModel(name), show(analysis, picture, speed), status(text), models(list), ended()}
export async function start(page) {
  try {
    await startCamera();
  } catch (error) {
    stopCamera();
    notify(explainCamera(error), { key: "camera", bad: true });
    return false;
  }
  withdraw("camera");
  onCameraEnd(() => {
    notify("The camera was disconnected. Plug it in and start it again, or use photos.", { key: "camera", bad: true });
    page.ended();
  });
  shown = [];
  dropped = 0;
  showVideo();
  open(page);
  stopFrames = everyFrame(sendFrame);
  return true;
}

export function stop() {
  stopFrames?.();
  stream?.end();
  stream = stopFrames = last = null;
  letGo();
  stopCamera();
  withdraw(LOST);
  withdraw(BUSY);
}

// Another model: the stream is opened anew, the camera goes on.
export function reopen(page) {
  stream.end();
  open(page);
}

// Stop at the newest answer, so that one face can be looked at in peace; gives that answer, or null.
export function hold() {
  if (!last) return null;
  held ??= URL.createObjectURL(new Blob([last.picture], { type: "image/jpeg" }));
  showPhoto(held, "The camera's picture, held still");
  return last;
}

export function letGo() {
  if (!held) return;
  URL.revokeObjectURL(held);
  held = null;
  showVideo();
}

function open(page) {
  stream = new LiveStream(
    { ...OPTIONS, model: page.model() },
    {
      lost() {
        if (!isHeld()) showVideo();
        notify("The connection was lost. Trying again …", { key: LOST });
      },
      gone: page.withoutModel,
      list: page.models,
      refused: (error) => notify(explain(error, "The camera's picture"), { key: BUSY }),
      reply: (reply, sent) => receive(reply, sent, page),
    },
  );
}

async function sendFrame() {
  if (encoding || isHeld() || !stream?.takesFrame) {
    missed = true;
    return;
  }
  encoding = true;
  missed = false;
  try {
    const taken = await frame();
    if (taken && stream?.takesFrame && !isHeld()) stream.send(taken);
    else taken?.bitmap.close();
  } finally {
    encoding = false;
  }
}

function receive(reply, sent, page) {
  withdraw(LOST);
  withdraw(BUSY);
  dropped += reply.dropped_frames;
  if (isHeld()) return;
  if (missed) sendFrame(); // to wait for the camera's next frame would leave the gateway idle until then
  last = { analysis: reply.analysis, picture: sent.picture };
  const nowMs = performance.now();
  shown = [...shown.filter((atMs) => atMs > nowMs - SPEED_OVER_MS), nowMs];
  const perS = shown.length > 1 ? ((shown.length - 1) * 1000) / (nowMs - shown[0]) : 0;
  results.add("camera", reply.analysis);
  showAnswered(sent.bitmap);
  page.show(reply.analysis, sent.picture, { perS, tookMs: sent.tookMs, dropped });
}
