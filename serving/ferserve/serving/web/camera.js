// Frames of the camera: what the video shows, brought to the size that is sent.

const SIDE_PX = 640;
const QUALITY = 0.8;
const video = document.getElementById("video");
const canvas = document.createElement("canvas");
const encoder = globalThis.OffscreenCanvas ? new Worker(new URL("encoder.js", import.meta.url)) : null;

export async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) throw Object.assign(new Error(), { name: "InsecureError" });
  const wanted = { video: { width: { ideal: SIDE_PX }, height: { ideal: 480 }, facingMode: "user" }, audio: false };
  video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  await video.play();
}

export function stopCamera() {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

export function onCameraEnd(tell) {
  for (const track of video.srcObject?.getVideoTracks() ?? []) track.addEventListener("ended", tell);
}

// Calls `take` at each new frame of the video until the returned function is called.
export function everyFrame(take) {
  let on = true;
  const next = () => {
    if (!on) return;
    take();
    video.requestVideoFrameCallback?.(next) ?? requestAnimationFrame(next);
  };
  next();
  return () => {
    on = false;
  };
}

// What the video shows now, as the bytes of a JPEG to send and as a bitmap to show beside the answer; null before the
// first frame. The next one is asked for after this one came.
export async function frame() {
  if (!video.videoWidth) return null;
  const scale = SIDE_PX / Math.max(video.videoWidth, video.videoHeight);
  const smaller = { resizeWidth: Math.round(video.videoWidth * scale), resizeHeight: Math.round(video.videoHeight * scale) };
  const bitmap = await createImageBitmap(video, scale < 1 ? smaller : {});
  return encoder ? encodeThere(bitmap) : encodeHere(bitmap);
}

function encodeThere(bitmap) {
  return new Promise((resolve) => {
    encoder.onmessage = ({ data }) => resolve(data);
    encoder.postMessage({ bitmap, quality: QUALITY }, [bitmap]);
  });
}

// For browsers whose workers have no canvas.
async function encodeHere(bitmap) {
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0);
  const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return { picture: await picture.arrayBuffer(), bitmap };
}
