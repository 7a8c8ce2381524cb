// Messages above the picture; one of a key takes the place of the one before.

const place = document.getElementById("notices");

export function notify(text, { key = text, bad = false } = {}) {
  withdraw(key);
  const notice = document.createElement("div"), words = document.createElement("span");
  const close = document.createElement("button");
  notice.className = bad ? "notice bad" : "notice";
  notice.dataset.key = key;
  words.textContent = text;
  close.type = "button";
  close.textContent = "OK";
  close.setAttribute("aria-label", "Dismiss the message");
  close.addEventListener("click", () => notice.remove());
  notice.append(words, close);
  place.append(notice);
  while (place.children.length > 4) place.firstChild.remove();
}

export function withdraw(key) {
  [...place.children].find((notice) => notice.dataset.key === key)?.remove();
}
