// The API key of gateways that ask for one: asked for when it is missed, and kept in this page's memory alone.

const form = document.getElementById("key-form"), field = document.getElementById("key");
const words = document.getElementById("key-words"), another = document.getElementById("key-another");

let key = "";
let waiting = null; // {promise, resolve} of those who need one

// What goes with a request, and with a WebSocket, on which scripts can set no header.
export const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
export const protocols = () => (key ? ["ferserve.v1", `ferserve.key.${key}`] : []);

// Resolves once people have given a key that may be tried.
export function askForKey() {
  words.textContent = key
    ? "The gateway does not know this key, or it has expired."
    : "This gateway answers holders of a key. It is kept in this page until that is closed, and nowhere else.";
  show();
  if (!waiting) {
    waiting = {};
    waiting.promise = new Promise((resolve) => {
      waiting.resolve = resolve;
    });
  }
  return waiting.promise;
}

function show() {
  form.hidden = false;
  another.hidden = true;
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  key = field.value.trim();
  field.value = "";
  form.hidden = true;
  another.hidden = false;
  waiting?.resolve();
  waiting = null;
});
another.addEventListener("click", () => {
  words.textContent = "The next request goes out with the new key.";
  show();
});
