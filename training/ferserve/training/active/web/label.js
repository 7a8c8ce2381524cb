// One face at a time; nothing counts as said before the server has it on its disk.

const ANSWERS = [
  ["1", "angry"], ["2", "disgust"], ["3", "fear"], ["4", "happy"], ["5", "sad"], ["6", "surprise"], ["7", "neutral"],
  ["0", "none"],
];
const WORDS = { none: "none of these, or no face" };
const $ = (id) => document.getElementById(id);

let labeller = "";
let face = null;
let sawGuess = false;
let busy = false;

function say(text) { $("status").textContent = text; }

function complain(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function ask(path, body) {
  const options = body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. What was saved stays; start it again and reload this page.");
  }
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.message);
  return value;
}

function show(standing) {
  face = standing.face;
  sawGuess = false;
  $("guess").textContent = "";
  $("count").textContent = `Round ${standing.round}: ${standing.done} of ${standing.total}`;
  $("progress").max = standing.total;
  $("progress").value = standing.done;
  $("figure").hidden = face === null;
  if (face !== null) $("face").src = `picture?face=${encodeURIComponent(face)}`;
  for (const button of document.querySelectorAll("#answers button, #skip, #ask")) button.disabled = face === null;
  $("undo").disabled = !standing.can_undo;
  const kappa = standing.fleiss === null ? "" : `, kappa ${standing.fleiss.toFixed(2)}`;
  $("agreement").textContent = standing.labellers > 1
    ? `${standing.labellers} people have labelled; ${standing.shared} faces by more than one${kappa}.` : "";
}

async function act(path, body, said) {
  if (busy) return;
  busy = true;
  try {
    const standing = await ask(path, { labeller, ...body });
    complain("");
    show(standing);
    const put = standing.skipped ? ` ${standing.skipped} put off.` : "";
    say(standing.face === null ? `${said} All faces of this round are labelled. Thank you.` : `${said}${put}`);
  } catch (error) {
    complain(`Not saved. ${error.message}`);
  } finally {
    busy = false;
  }
}

function answer(word) {
  if (face !== null) act("label", { face, answer: word, saw_guess: sawGuess }, `Saved: ${WORDS[word] ?? word}.`);
}

function skip() {
  if (face !== null) act("skip", { face }, "Put off.");
}

function undo() {
  if (!$("undo").disabled) act("undo", {}, "Taken back.");
}

async function guess() {
  if (face === null) return;
  const asked = face;
  try {
    const found = await ask(`guess?face=${encodeURIComponent(asked)}`);
    if (face !== asked) return;
    sawGuess = true;
    $("guess").textContent = `The model says ${found.label}, ${Math.round(100 * found.score)} %`;
  } catch (error) {
    complain(error.message);
  }
}

async function begin(name) {
  try {
    const standing = await ask(`standing?labeller=${encodeURIComponent(name)}`);
    labeller = name;
    complain("");
    $("who").hidden = true;
    $("desk").hidden = false;
    show(standing);
    say(standing.face === null ? "All faces of this round are labelled." : "Press 1 to 7, or 0 for none of these.");
  } catch (error) {
    complain(error.message);
  }
}

for (const [key, word] of ANSWERS) {
  const button = document.createElement("button");
  const hint = document.createElement("kbd");
  hint.textContent = key;
  button.type = "button";
  button.dataset.answer = word;
  button.setAttribute("aria-keyshortcuts", key);
  button.append(hint, WORDS[word] ?? word);
  button.addEventListener("click", () => answer(word));
  $("answers").append(button);
}
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("ask").addEventListener("click", guess);
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  begin($("name").value.trim());
});
document.addEventListener("keydown", (event) => {
  if ($("desk").hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const chosen = ANSWERS.find(([key]) => key === event.key);
  const others = { s: skip, u: undo, g: guess };
  if (chosen) answer(chosen[1]);
  else others[event.key.toLowerCase()]?.();
});
$("name").focus();
