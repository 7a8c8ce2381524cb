// Requests to the gateway that serves this page, and to nobody else.

import { askForKey, headers } from "./key.js";

// reason, message and retryAfterMs are those of the gateway's own errors; UNREACHABLE is ours.
export class GatewayError extends Error {
  constructor({ reason, message = "", retry_after_ms: retryAfterMs = null }) {
    super(message);
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

const PATIENCE = 4; // tries of a request that the gateway asks to repeat

export async function models() {
  return (await request("v1/models")).models;
}

export function analyze(picture, model) {
  return post("v1/images:analyze", picture, { model });
}

export function occlusion(picture, model, face) {
  return post("v1/faces:occlusion", picture, { model, face });
}

export function streamAddress() {
  const address = new URL("v1/stream", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function post(path, picture, options) {
  const body = { method: "POST", body: picture, headers: { "Content-Type": "application/octet-stream" } };
  for (let left = PATIENCE; ; left -= 1) {
    try {
      return await request(`${path}?${new URLSearchParams(options)}`, body);
    } catch (error) {
      if (left <= 1 || error.retryAfterMs === null) throw error;
      await pause(error.retryAfterMs);
    }
  }
}

async function request(path, options = {}) {
  for (;;) {
    try {
      return await requestOnce(path, { ...options, headers: { ...options.headers, ...headers() } });
    } catch (error) {
      if (error.reason !== "UNAUTHENTICATED") throw error;
      await askForKey();
    }
  }
}

async function requestOnce(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new GatewayError({ reason: "UNREACHABLE" });
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new GatewayError(answer.error ?? { reason: "INTERNAL", message: `status ${response.status}` });
  return answer;
}
