// A live stream that keeps itself open: frames go out as fast as they are answered, and after a break it comes back.

import { models, pause, streamAddress } from "./api.js";
import { protocols } from "./key.js";

const WINDOW = 2; // frames on their way or in the works, as many as the gateway works on side by side
const ID_BYTES = 8;
const STALLED_MS = 8000;
const WAITS_MS = [300, 700, 1500, 3000, 5000];

// tell: {lost(), gone(), reply(reply, sent), refused(error), list(models)}
export class LiveStream {
  #options;
  #tell;
  #socket = null;
  #sent = new Map(); // by id, in their order
  #nextId = 1;
  #notBefore = 0;
  #ended = false;
  #failures = 0;
  #watch = 0;
  #window = WINDOW;

  constructor(options, tell) {
    this.#options = options;
    this.#tell = tell;
    this.#watch = setInterval(() => this.#checkStall(), 1000);
    this.#open();
  }

  get takesFrame() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#sent.size < this.#window && performance.now() >= this.#notBefore;
  }

  // picture: an ArrayBuffer; the bitmap of it comes back with the reply, and is closed here if there is none.
  send({ picture, bitmap }) {
    const id = this.#nextId++;
    this.#sent.set(String(id), { picture, bitmap, atMs: performance.now() });
    const message = new Uint8Array(ID_BYTES + picture.byteLength);
    new DataView(message.buffer).setBigUint64(0, BigInt(id));
    message.set(new Uint8Array(picture), ID_BYTES);
    this.#socket.send(message);
  }

  end() {
    this.#ended = true;
    clearInterval(this.#watch);
    this.#forget();
    this.#socket?.close();
  }

  #open() {
    const socket = new WebSocket(streamAddress(), protocols());
    this.#socket = socket;
    this.#forget();
    socket.addEventListener("open", () => socket.send(JSON.stringify(this.#options)));
    socket.addEventListener("message", (event) => this.#receive(JSON.parse(event.data)));
    socket.addEventListener("close", () => socket === this.#socket && this.#comeBack());
  }

  #receive(reply) {
    if (reply.id === undefined) {
      this.#tell.refused(reply.error);
      return;
    }
    const sent = this.#sent.get(reply.id);
    this.#sent.delete(reply.id);
    this.#forget(BigInt(reply.id)); // those before it were dropped
    if (reply.error) {
      this.#notBefore = performance.now() + (reply.error.retry_after_ms ?? 0);
      sent?.bitmap.close();
      this.#tell.refused(reply.error);
    } else if (sent) {
      const tookMs = performance.now() - sent.atMs;
      this.#failures = 0;
      this.#window = tookMs > 2 * reply.analysis.timings.total_ms ? WINDOW + 1 : WINDOW; // the way there is long
      this.#tell.reply(reply, { ...sent, tookMs });
      sent.bitmap.close();
    }
  }

  #forget(before = Infinity) {
    for (const [id, { bitmap }] of this.#sent) {
      if (BigInt(id) >= before) continue;
      bitmap.close();
      this.#sent.delete(id);
    }
  }

  #checkStall() {
    const [oldest] = this.#sent.values();
    if (oldest && performance.now() - oldest.atMs > STALLED_MS) this.#drop();
  }

  // A lost network may keep a socket open for minutes; its closing handshake would wait for the same network.
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#comeBack();
  }

  async #comeBack() {
    if (this.#ended) return;
    this.#forget();
    this.#tell.lost();
    for (;;) {
      await pause(WAITS_MS[Math.min(this.#failures, WAITS_MS.length - 1)]);
      this.#failures += 1;
      if (this.#ended) return;
      try {
        const loaded = await models(); // also whether the model is still there: a refused stream does not say
        if (this.#ended) return;
        if (!loaded.some((model) => model.ref.name === this.#options.model)) {
          this.#tell.gone(this.#options.model);
          this.#options = { ...this.#options, model: loaded.find((model) => model.is_default).ref.name };
        }
        this.#tell.list(loaded);
        this.#open();
        return;
      } catch {
        // not there yet
      }
    }
  }
}
