// A Parley client for Node.js 20 and later: docs/protocol.md, "A client in an afternoon", rule by rule.
//
//   npm install ws @msgpack/msgpack
//   node node-client.mjs ws://127.0.0.1:7400/ws NAME PASSWORD [CONV or NAME to write to]
//
// Registers NAME if there is no such user; lines of standard input are sent, entries are printed once
// and in order, also those that came while this program was not running (its cursors are in a file).

import { decode, encode } from "@msgpack/msgpack";
import { EventEmitter } from "node:events";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";

const REPLY_TIMEOUT_MS = 30_000;
const NEVER_AGAIN = ["replaced", "bad_frame"]; // after `session_revoked` the password opens a new session

export class CommandError extends Error {
  constructor({ code, message, retry, after_ms, field }) {
    super(`${code}: ${message}`);
    Object.assign(this, { code, retry, after_ms, field });
  }
}

/** Emits `entry` (once, in order), `event` (all other events), `open`, `lost`, and `end` when it gives up. */
export class Client extends EventEmitter {
  constructor(url, name, password, cursors = {}) {
    super();
    Object.assign(this, { url, name, password, cursors });
    this.pending = new Map(); // id -> the promise of a reply
    this.unsent = new Map(); // key -> a send without its `ok`
    this.inFlight = new Set(); // those keys among them that wait for a reply
    this.wanted = {}; // conv -> up to where a pull must go
    this.pulling = new Map(); // conv -> the pull under way
    this.attempt = this.lastId = 0;
  }

  // 1. Open

  connect() {
    this.goodbye = null;
    this.socket = new WebSocket(this.url, "parley.msgpack.v1", { handshakeTimeout: REPLY_TIMEOUT_MS });
    this.socket.binaryType = "arraybuffer";
    this.socket.on("open", () => this.#open().catch((error) => this.#fail(error)));
    this.socket.on("message", (data) => this.#frame(decode(new Uint8Array(data))));
    this.socket.on("pong", () => (this.heard = Date.now()));
    this.socket.on("error", () => {}); // `close` follows
    this.socket.on("close", () => this.#closed());
  }

  async #open() {
    const hello = await this.#identify();
    Object.assign(this, { user: hello.user, limits: hello.limits });
    this.#keepAlive(hello.heartbeat_ms);
    await this.#catchUp();
    this.attempt = 0;
    this.ready = true;
    this.emit("open");
    this.#transmit();
  }

  async #identify() {
    try {
      if (this.token) return await this.command("hello", { token: this.token });
    } catch (error) {
      if (error.code !== "unauthenticated") throw error;
    }
    const session = await this.command("login", { name: this.name, password: this.password });
    this.token = session.token;
    return session;
  }

  // 2. Read all the time

  #frame(frame) {
    this.heard = Date.now();
    if (frame.id !== undefined) {
      const reply = this.pending.get(frame.id);
      this.pending.delete(frame.id);
      if (frame.t === "ok") reply?.resolve(frame);
      else reply?.reject(new CommandError(frame));
    } else if (frame.t === "msg") this.#live(frame);
    else if (frame.t === "behind") this.#pull(frame.conv, frame.head);
    else if (frame.t === "bye") this.goodbye = frame;
    else this.emit("event", frame);
  }

  /** Any command; resolves with the fields of its `ok`, rejects with a CommandError or a broken connection. */
  command(t, fields = {}) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.socket.send(encode({ t, id, ...fields }), (error) => error && reject(error));
    });
  }

  // 3. Cursors

  #live(entry) {
    if (entry.seq === this.#cursor(entry.conv) + 1) this.#take(entry);
    else if (entry.seq > this.#cursor(entry.conv)) this.#pull(entry.conv, entry.seq);
  }

  #cursor(conv) {
    return this.cursors[conv] ?? 0;
  }

  #take(entry) {
    if (entry.seq <= this.#cursor(entry.conv)) return;
    this.cursors[entry.conv] = entry.seq;
    if (entry.key !== undefined) this.#settle(entry.key, "resolve", entry);
    this.emit("entry", entry);
  }

  /** Until there is no gap up to `seq`, and the head is reached (6: then a `behind` ends as well). */
  #pull(conv, seq) {
    this.wanted[conv] = Math.max(seq, this.wanted[conv] ?? 0);
    if (!this.pulling.has(conv)) this.pulling.set(conv, this.#history(conv).finally(() => this.pulling.delete(conv)));
    return this.pulling.get(conv);
  }

  async #history(conv) {
    try {
      for (let head = Infinity; this.#cursor(conv) < Math.max(head, this.wanted[conv]); ) {
        const page = await this.command("history", { conv, after: this.#cursor(conv), limit: 200 });
        head = page.head;
        page.entries.forEach((entry) => this.#take(entry));
        if (!page.entries.length) this.cursors[conv] = Math.max(head, this.#cursor(conv)); // nothing we may read
      }
    } catch (error) {
      if (error.retry) this.socket.terminate(); // begin anew, with the same cursors
    }
  }

  // 4. Catch up

  async #catchUp() {
    const cursors = { ...this.cursors };
    for (let next; next !== null; ) {
      const page = await this.command("sync", { cursors, next });
      next = page.next ?? null;
      for (const moved of page.conversations) {
        moved.entries.forEach((entry) => this.#take(entry));
        if (moved.more) await this.#pull(moved.conv, moved.head);
      }
    }
  }

  // 5. Send with keys

  /** `place`: `{conv}` or `{to: {user}}`. Resolves when the message is durable, over however many connections. */
  send(place, body, more = {}) {
    const fields = { kind: "text", key: randomUUID(), ...place, body, ...more };
    return new Promise((resolve, reject) => {
      this.unsent.set(fields.key, { fields, resolve, reject });
      this.#transmit();
    });
  }

  /** Not before all has been caught up: what is in the log already has settled itself by its key. */
  #transmit() {
    if (!this.ready) return;
    for (const [key, { fields }] of this.unsent) {
      if (this.inFlight.size >= this.limits.in_flight) return;
      if (!this.inFlight.has(key)) this.#transmitOne(key, fields);
    }
  }

  async #transmitOne(key, fields) {
    this.inFlight.add(key);
    try {
      this.#settle(key, "resolve", await this.command("send", fields));
    } catch (error) {
      if (!(error instanceof CommandError)) return; // the connection broke: sent again after the next `hello`
      if (!error.retry) this.#settle(key, "reject", error);
      else await sleep(error.after_ms ?? 1000);
    }
    this.inFlight.delete(key);
    this.#transmit();
  }

  #settle(key, how, value) {
    this.unsent.get(key)?.[how](value);
    this.unsent.delete(key);
  }

  // 7. Heartbeat

  #keepAlive(period) {
    clearInterval(this.timer);
    this.heard = Date.now();
    this.timer = setInterval(() => {
      if (Date.now() - this.heard > 2 * period) this.socket.terminate();
      else this.socket.ping();
    }, period);
  }

  // 8. Reconnect

  #fail(error) {
    if (error instanceof CommandError && !error.retry) this.fatal = error;
    this.socket.close();
  }

  #closed() {
    clearInterval(this.timer);
    this.ready = false;
    for (const { reject } of this.pending.values()) reject(new Error("the connection broke"));
    this.pending.clear();
    this.inFlight.clear();
    if (this.stopped) return;
    const code = this.goodbye?.code;
    this.emit("lost", code);
    if (code === "session_revoked") this.token = undefined;
    if (this.fatal || NEVER_AGAIN.includes(code)) return this.emit("end", this.fatal ?? code);
    const wait = this.goodbye?.after_ms ?? Math.random() * Math.min(30_000, 250 * 2 ** this.attempt++);
    setTimeout(() => this.stopped || this.connect(), wait);
  }

  close() {
    this.stopped = true;
    this.socket.close();
  }
}

// As a program

async function register(url, name, password) {
  const answer = await fetch(new URL("/api/register", url.replace(/^ws/, "http")), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name, password }),
  });
  const { code, message } = await answer.json();
  if (!answer.ok && code !== "conflict") throw new Error(message);
}

async function main(url, name, password, target) {
  if (!password) throw new Error("usage: node node-client.mjs URL NAME PASSWORD [CONV or NAME]");
  await register(url, name, password);
  const file = `cursors-${encodeURIComponent(name)}.json`;
  const cursors = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
  const client = new Client(url, name, password, cursors);
  client.on("entry", (entry) => {
    console.log(`${entry.conv} ${entry.seq} <${entry.from}> ${entry.kind}: ${JSON.stringify(entry.body ?? null)}`);
    writeFileSync(file, JSON.stringify(cursors));
  });
  client.on("lost", (code) => console.error(`connection lost${code ? `: ${code}` : ""}`));
  client.on("end", (why) => {
    console.error(`ended: ${why?.message ?? why}`);
    process.exitCode = 1;
    process.stdin.destroy();
  });
  client.connect();
  if (!target) return;
  await new Promise((resolve) => client.once("open", resolve));
  try {
    await sendLines(client, target);
  } finally {
    client.close();
  }
}

async function sendLines(client, target) {
  const place = /^[dg]\//.test(target)
    ? { conv: target }
    : { to: { user: (await client.command("user.get", { name: target })).user } };
  const sent = [];
  for await (const line of createInterface({ input: process.stdin }))
    sent.push(client.send(place, line).catch((error) => console.error(`not sent: ${error.message}`)));
  await Promise.all(sent);
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  main(...process.argv.slice(2)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
