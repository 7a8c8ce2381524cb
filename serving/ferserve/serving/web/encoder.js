// A worker that makes JPEGs of the camera's frames, so that the page's own thread is free to show answers.

const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { alpha: false });

self.addEventListener("message", async ({ data: { bitmap, quality } }) => {
  const { width, height } = bitmap;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.drawImage(bitmap, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
  const picture = await blob.arrayBuffer();
  self.postMessage({ picture, bitmap }, [picture, bitmap]);
});
