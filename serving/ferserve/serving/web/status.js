// The operators' page: reads /metrics and /status once a second, and shows what changed over the last two minutes.

import { buckets, growth, parse, quantile, total } from "./prometheus.js";

const byId = (id) => document.getElementById(id);
const EVERY_MS = 1000, KEEP_MS = 120000;
const STAGES = ["turn", "decode", "detect", "preprocess", "queue", "infer"];
const STAGE_NOTES = { turn: "a photo waits for a thread", queue: "a face waits for a batch", infer: "one batch" };
const readings = []; // {atMs, metrics, status}

async function read() {
  try {
    const [metrics, status] = await Promise.all([
      fetch("metrics").then((response) => response.text()),
      fetch("status?format=json").then((response) => response.json()),
    ]);
    const nowMs = performance.now();
    const last = readings.at(-1);
    if (last && status.uptime_s < last.status.uptime_s) readings.length = 0; // it was started anew, and counts from 0
    readings.push({ atMs: nowMs, metrics: parse(metrics), status });
    while (readings[0].atMs < nowMs - KEEP_MS) readings.shift();
    draw();
  } catch {
    badge("does not answer", "bad");
  }
  setTimeout(read, EVERY_MS);
}

function draw() {
  const first = readings[0], now = readings.at(-1), seconds = Math.max((now.atMs - first.atMs) / 1000, 1e-3);
  const grown = (name, wanted) => growth(first.metrics, now.metrics, name, wanted);
  const perS = (name, wanted) => grown(name, wanted) / seconds;
  const { status, metrics } = now;
  badge(status.state, status.state === "ready" ? "good" : "bad");
  byId("build").textContent =
    `version ${status.build.version}, ONNX Runtime ${status.build.onnxruntime}, detector ${status.detector}, up ${duration(status.uptime_s)}`;
  tiles({
    "requests in flight": status.in_flight.requests,
    "pictures in the works": total(metrics, "ferserve_in_flight_images"),
    "pictures waiting": total(metrics, "ferserve_waiting_images"),
    "faces queued": total(metrics, "ferserve_queued_faces"),
    "open streams": total(metrics, "ferserve_open_streams"),
    "faces a second": one(perS("ferserve_faces_total")),
  });
  charts();
  stages(first, now, seconds);
  batches(first, now);
  models(status, grown, perS);
  codes(first, now);
}

function badge(text, kind) {
  const shown = byId("state").firstElementChild;
  shown.className = `badge ${kind}`;
  if (shown.textContent !== text) shown.textContent = text;
}

function tiles(values) {
  const place = byId("tiles");
  if (!place.children.length) {
    place.append(...Object.keys(values).map((name) => made("div", { className: "tile" }, made("b"), made("span", { textContent: name }))));
  }
  Object.values(values).forEach((value, index) => {
    place.children[index].firstChild.textContent = value;
  });
}

const CHARTS = {
  "Pictures a second": rates(["ferserve_image_faces_count"]),
  "Requests a second": rates(["ferserve_requests_total"]),
  "Refused or dropped": rates([
    "ferserve_refused_total", "ferserve_dropped_before_compute_total", "ferserve_dropped_stream_frames_total",
  ]),
  "Faces queued": ({ metrics }) => total(metrics, "ferserve_queued_faces"),
};

function rates(names) {
  return (now, before) => {
    if (!before) return 0;
    const seconds = (now.atMs - before.atMs) / 1000;
    return names.reduce((sum, name) => sum + growth(before.metrics, now.metrics, name, {}), 0) / seconds;
  };
}

function charts() {
  const place = byId("charts");
  for (const [name, valueOf] of Object.entries(CHARTS)) {
    let chart = [...place.children].find((child) => child.dataset.name === name);
    if (!chart) {
      chart = made("div", { className: "chart" }, made("p", {}, made("span", { textContent: name }), made("b")));
      chart.dataset.name = name;
      chart.insertAdjacentHTML(
        "beforeend", '<svg viewBox="0 0 120 100" preserveAspectRatio="none" aria-hidden="true"><polyline/></svg>',
      );
      place.append(chart);
    }
    const nowMs = readings.at(-1).atMs;
    const values = readings.map((reading, index) => valueOf(reading, readings[index - 1]));
    const most = Math.max(...values, 1);
    const points = values.map((value, index) => [120 - (nowMs - readings[index].atMs) / 1000, 98 - (95 * value) / most]);
    chart.querySelector("polyline").setAttribute("points", points.map((point) => point.map((x) => x.toFixed(1)).join()).join(" "));
    chart.querySelector("b").textContent = `${one(values.at(-1))} (most ${one(Math.max(...values))})`;
  }
}

function stages(first, now, seconds) {
  const name = "ferserve_stage_duration_seconds";
  rows("stages", STAGES.map((stage) => {
    const wanted = { stage }, found = buckets(first.metrics, now.metrics, name, wanted);
    const count = growth(first.metrics, now.metrics, `${name}_count`, wanted);
    const mean = count ? (1000 * growth(first.metrics, now.metrics, `${name}_sum`, wanted)) / count : null;
    const shares = [0.5, 0.95, 0.99].map((share) => quantile(share, found)).map((value) => (value === null ? null : value * 1000));
    const title = STAGE_NOTES[stage] ? `${stage} (${STAGE_NOTES[stage]})` : stage;
    return [title, one(count / seconds), ...[mean, ...shares].map((ms) => (ms === null ? "–" : one(ms)))];
  }));
}

function batches(first, now) {
  const found = buckets(first.metrics, now.metrics, "ferserve_batch_faces");
  const all = found.reduce((sum, { count }) => sum + count, 0);
  const faces = growth(first.metrics, now.metrics, "ferserve_batch_faces_sum", {});
  byId("batch-words").textContent = all
    ? `${all} batches in the last two minutes, ${one(faces / all)} faces in one on average.`
    : "No batch in the last two minutes.";
  const most = Math.max(...found.map(({ count }) => count), 1);
  byId("batches").replaceChildren(...found.filter(({ upTo }) => upTo <= 32).map(({ upTo, count }) => {
    const bar = made("i");
    bar.style.height = `${(84 * count) / most}%`;
    return made("div", {}, bar, made("span", { textContent: `≤ ${upTo}` }));
  }));
}

function models(status, grown, perS) {
  rows("models", status.models.map((model) => [
    model.name + (model.is_default ? " (default)" : ""), model.version, model.precision, `${model.worker.kind}: ${model.worker.detail}`,
    model.worker.concurrency, model.queued_faces, one(perS("ferserve_faces_total", { model: model.name })),
    grown("ferserve_worker_failed_faces_total", { model: model.name }), model.archive_sha256.slice(0, 12),
  ]));
}

function codes(first, now) {
  const entries = [];
  const add = (name, metric, label) => {
    const values = new Set((now.metrics.get(metric) ?? []).map(({ labels }) => (label ? labels[label] : "")));
    for (const value of [...values].sort()) {
      const wanted = label ? { [label]: value } : {};
      const ever = total(now.metrics, metric, wanted);
      if (ever) entries.push([`${name} ${value}`.trim(), `${ever} (${growth(first.metrics, now.metrics, metric, wanted)})`]);
    }
  };
  add("requests", "ferserve_requests_total", "code");
  add("frames", "ferserve_stream_frames_total", "code");
  add("frames dropped for newer ones", "ferserve_dropped_stream_frames_total", null);
  add("refused for", "ferserve_refused_total", "reason");
  add("dropped before compute:", "ferserve_dropped_before_compute_total", "cause");
  byId("codes").replaceChildren(
    ...entries.map(([name, value]) => made("div", {}, made("dt", { textContent: name }), made("dd", { textContent: value }))),
  );
}

function rows(id, lines) {
  byId(id).replaceChildren(...lines.map(([head, ...cells]) =>
    made("tr", {}, made("th", { scope: "row", textContent: head }), ...cells.map((text) => made("td", { textContent: text })))));
}

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const one = (value) => (Number.isInteger(value) || value >= 100 ? String(Math.round(value)) : value.toFixed(1));

function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

read();
