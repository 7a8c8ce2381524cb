// What people read, in one place.

export const LABELS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"];

const ISSUES = {
  QUALITY_ISSUE_SMALL: "few pixels",
  QUALITY_ISSUE_BLURRED: "blurred",
  QUALITY_ISSUE_TURNED: "turned away",
  QUALITY_ISSUE_TILTED: "tilted",
  QUALITY_ISSUE_CUT_OFF: "cut off",
  QUALITY_ISSUE_DARK: "too dark",
  QUALITY_ISSUE_BRIGHT: "too bright",
};

export const issueWords = (face) => face.quality.issues.map((issue) => ISSUES[issue] ?? issue.toLowerCase());
export const labelOf = (face) => face.expression.replace("EXPRESSION_", "").toLowerCase();
export const percent = (score) => `${Math.round(score * 100)} %`;
export const faceName = (face, place) => `Face ${face.track_id ?? place + 1}`;

export function describeFace(face, place) {
  const notes = [...(face.uncertain ? ["uncertain"] : []), ...issueWords(face)];
  const label = labelOf(face);
  return `${faceName(face, place)}: ${label} ${percent(face.scores[label])}${notes.length ? `, ${notes.join(", ")}` : ""}`;
}

export function summarise(faces) {
  if (faces.length === 0) return "No face found in this picture.";
  const words = faces.slice(0, 6).map((face) => labelOf(face) + (face.uncertain ? " (uncertain)" : ""));
  const more = faces.length > 6 ? `, and ${faces.length - 6} more` : "";
  return `${faces.length === 1 ? "One face" : `${faces.length} faces`}: ${words.join(", ")}${more}.`;
}

// An answer's error in the words of whoever sent the picture; the gateway's own words say the numbers.
export function explain(error, name) {
  const said = error.message ? ` (${error.message})` : "";
  switch (error.reason) {
    case "UNSUPPORTED_MEDIA":
      return `${name} is no picture that can be read here: JPEG, PNG, WebP, BMP, TIFF and GIF are.`;
    case "INVALID_IMAGE":
      return `${name} seems to be damaged: it could not be read to its end.`;
    case "IMAGE_TOO_LARGE":
      return `${name} is too large for this gateway${said}. A smaller copy will do: faces need no more than 200 pixels.`;
    case "MODEL_NOT_FOUND":
      return "That model is not loaded any more. Please choose another one.";
    case "OVERLOADED":
    case "RATE_LIMITED":
      return "The gateway is busy at the moment. It goes on by itself.";
    case "NOT_READY":
      return "The gateway is restarting. It goes on by itself.";
    case "UNAUTHENTICATED":
      return "The gateway asks for a key.";
    case "FORBIDDEN":
    case "PURPOSE_REFUSED":
      return `This key is not for that${said}.`;
    case "DEADLINE":
      return `${name} took too long. Please try again, or try a smaller picture.`;
    case "UNREACHABLE":
      return "The gateway does not answer. Is it still running? It goes on by itself as soon as it does.";
    default:
      return `${name} could not be analysed${said}.`;
  }
}

export function explainCamera(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The camera was refused. Allow it for this page (beside the address) and press “Start the camera” again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No camera was found. Photos work without one.";
    case "NotReadableError":
    case "AbortError":
      return "The camera is in use by another program, or does not answer. Close the other one and try again.";
    case "InsecureError":
      return "Browsers share a camera with pages from this computer or over https only. Photos work all the same.";
    default:
      return `The camera could not be started (${error.name}). Photos work without it.`;
  }
}
