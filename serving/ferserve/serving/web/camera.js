// Frames of the camera: what the video shows, brought to the size that is sent.

const SIDE_PX = 640;
const QUALITY = 0.8;
const video = document.getElementById("video");
const canvas = document.createElement("canvas");

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

// What the video shows now, as a JPEG to send and as a bitmap to show beside the answer; null before the first frame.
export async function frame() {
  if (!video.videoWidth) return null;
  const scale = Math.min(1, SIDE_PX / Math.max(video.videoWidth, video.videoHeight));
  const size = { width: Math.round(video.videoWidth * scale), height: Math.round(video.videoHeight * scale) };
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0, size.width, size.height);
  const shown = createImageBitmap(canvas);
  const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return { picture, bitmap: await shown };
}
