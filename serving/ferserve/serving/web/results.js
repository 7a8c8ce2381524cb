// What was answered so far, for downloads. It lives in this page only and goes with it.

import { LABELS, issueWords, labelOf } from "./words.js";

const MOST_ROWS = 50000; // half an hour of camera with one face
const rows = [];

export const count = () => rows.length;

export function add(source, analysis) {
  const time = new Date().toISOString();
  analysis.faces.forEach((face, place) => rows.push(rowOf(source, time, analysis, face, place)));
  if (rows.length > MOST_ROWS) rows.splice(0, rows.length - MOST_ROWS);
}

function rowOf(source, time, analysis, face, place) {
  return {
    source,
    time,
    face: place,
    track_id: face.track_id ?? "",
    ...face.box,
    detection_score: face.detection_score,
    expression: labelOf(face),
    uncertain: face.uncertain,
    ...Object.fromEntries(LABELS.map((label) => [label, face.scores[label]])),
    issues: issueWords(face).join("; "),
    model: analysis.model.name,
    version: analysis.model.version,
    precision: analysis.model.precision,
  };
}

export function toCsv() {
  if (rows.length === 0) return "";
  const names = Object.keys(rows[0]);
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\r\n");
}

export const toJson = () => JSON.stringify(rows, null, 1);

function cell(value) {
  if (typeof value !== "string") return String(value);
  const harmless = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // a file's name must not become a formula
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
