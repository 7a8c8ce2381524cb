// One card a face: its name, badges, seven bars, and the heat map on request.

import { LABELS, faceName, issueWords, labelOf, percent } from "./words.js";

const list = document.getElementById("faces");
const cards = new Map();

export function clearCards() {
  cards.clear();
  list.replaceChildren();
}

// Cards of the same key are kept and filled anew: a live view fills them many times a second.
export function drawCards(faces, { chosen, choose, ask }) {
  const wanted = new Set();
  faces.forEach((face, place) => {
    const key = String(face.track_id ?? place);
    wanted.add(key);
    let card = cards.get(key);
    if (!card) {
      card = newCard(key, choose, ask);
      cards.set(key, card);
      list.append(card.root);
    }
    fill(card, face, place);
    card.root.classList.toggle("chosen", key === chosen);
  });
  for (const [key, card] of cards) {
    if (wanted.has(key)) continue;
    card.root.remove();
    cards.delete(key);
  }
}

export function showCard(key) {
  cards.get(key)?.root.scrollIntoView({ block: "nearest" });
}

export function setHeatWords(key, words, withLegend) {
  const card = cards.get(key);
  if (!card) return;
  const legend = element("span", "legend");
  legend.setAttribute("aria-hidden", "true");
  card.heat.replaceChildren(words, ...(withLegend ? [" ", legend] : []));
  card.heat.hidden = false;
}

function newCard(key, choose, ask) {
  const card = { root: element("li", "card"), name: element("h3"), badges: element("span"), bars: {} };
  const head = element("div", "card-head"), scores = element("ul", "scores"), button = element("button");
  head.append(card.name, card.badges);
  for (const label of LABELS) {
    const row = element("li"), name = element("span"), track = element("span", "track"), fill_ = element("span", "fill");
    const amount = element("span", "amount");
    name.textContent = label;
    fill_.style.display = "block";
    track.append(fill_);
    row.append(name, track, amount);
    scores.append(row);
    card.bars[label] = { row, fill: fill_, amount };
  }
  button.type = "button";
  button.textContent = "Where did it look?";
  button.addEventListener("click", () => ask(key));
  card.heat = element("p", "heat-words");
  card.heat.hidden = true;
  card.heat.setAttribute("role", "status");
  card.root.append(head, scores, button, card.heat);
  card.root.addEventListener("click", (event) => event.target.closest("button") ?? choose(key));
  card.button = button;
  return card;
}

function fill(card, face, place) {
  const top = labelOf(face);
  const name = faceName(face, place);
  card.name.textContent = `${name}: ${top}`;
  card.button.setAttribute("aria-label", `Where did it look? ${name}`);
  const notes = [...(face.uncertain ? ["uncertain"] : []), ...issueWords(face)];
  if (card.badges.dataset.notes !== notes.join()) {
    card.badges.dataset.notes = notes.join();
    card.badges.replaceChildren(...notes.flatMap((note) => [badge(note), " "]));
  }
  for (const label of LABELS) {
    const bar = card.bars[label], score = face.scores[label];
    bar.fill.style.width = `${100 * score}%`;
    bar.amount.textContent = percent(score);
    bar.row.classList.toggle("top-score", label === top);
  }
}

function badge(words) {
  const made = element("span", "badge");
  made.textContent = words;
  return made;
}

function element(name, className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  return made;
}
