// The server's routes: JSON in, JSON or a stream of chunks out, and one kind of failure.

import { tab } from "./storage.js";

const KEY = "openk2.key";

/** What went wrong, as a sentence for the user. */
export class Failure extends Error {}

// What fetch can put into a header.
const SENDABLE = /^[\t\x20-\x7e\x80-\xff]*$/;
const AWAY = "The server went away in the middle of its answer; what was said stays, and you can try again once it is back.";

let askForKey = async () => null;

/** `ask(wrong)` comes to a key, or to null when there is none. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

let asking = null;

/** Comes to whether the user gave a key, which is then kept. Requests that need one at the same time ask once. */
function newKey(wrong) {
  asking ??= (async () => {
    let given = await askForKey(wrong);
    while (given !== null && !SENDABLE.test(given)) given = await askForKey(true);
    if (given !== null) tab.set(KEY, given);
    return given !== null;
  })().finally(() => {
    asking = null;
  });
  return asking;
}

async function request(path, body, signal) {
  for (;;) {
    const key = tab.get(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
    if (body) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, { ...options, headers, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Failure("The server does not answer: start it again if it is not running, then try again.");
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      // Another request may have got a key in the meantime.
      if (tab.get(KEY) !== key || (await newKey(key !== null))) continue;
      throw new Failure("This server needs an API key.");
    }
    throw new Failure(await sentence(answer));
  }
}

async function sentence(answer) {
  try {
    return capital((await answer.json()).error.message);
  } catch {
    return `The server refused with status ${answer.status}.`;
  }
}

function capital(text) {
  return /^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

/** The JSON that a route answers with: GET without a body, else POST. */
export async function call(path, body, signal) {
  const answer = await request(path, body, signal);
  try {
    return await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(AWAY);
  }
}

/** The chunks of an answer to a chat. A stream that ends without its last word fails as broken. */
export async function* chat(body, signal) {
  const answer = await request("/v1/chat/completions", { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let news;
    try {
      news = await reader.read();
    } catch (error) {
      if (signal?.aborted) throw error;
      news = { done: true };
    }
    if (news.done) throw new Failure(AWAY);
    const lines = (rest + news.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice(6);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failure(capital(chunk.error.message));
      yield chunk;
    }
  }
}
