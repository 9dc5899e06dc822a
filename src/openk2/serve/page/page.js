// The page: one conversation, which a task or the user begins, and which survives a reload.

import { call, chat, Failure, onKeyNeeded } from "./api.js";
import { showTokens } from "./inspector.js";
import { browser, tab } from "./storage.js";
import { el, ModelView, taskCard, toolList, userView } from "./view.js";

const CONVERSATION = "openk2.conversation";
const THEME = "openk2.theme";
const MOST_TURNS = 12;
const MOST_TOKENS = 512;
const NANO = "openk2-nano";
const DOUBLE_CLICK_MS = 400;

const $ = (id) => document.getElementById(id);
const talk = $("talk");

/**
 * What is said. `tools` is the task whose tools are declared, `task` the one that the world will judge. Messages are
 * OpenAI's; the model's have more: `done` or `stopped`, `ids`, `usage`, `seconds`, `asked` (with what) and `verdict`.
 */
const fresh = () => ({ task: null, tools: "", system: "", most: MOST_TOKENS, messages: [], trouble: null });
let conversation = fresh();
const UNKNOWN = { model: "", inspector: false, tasks: [] };
let server = UNKNOWN;
let running = null;
const views = new Map();

const taskOf = (id) => server.tasks.find((task) => task.id === id);

// --- theme: the system's, unless the user chose one

const dark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = browser.get(THEME);
  const now = chosen ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now;
  const other = now === "dark" ? "light" : "dark";
  $("theme").textContent = now === "dark" ? "☀" : "☾";
  $("theme").setAttribute("aria-label", `Switch to the ${other} theme`);
  $("theme").onclick = () => {
    browser.set(THEME, other);
    showTheme();
  };
}
dark.addEventListener("change", showTheme);

// --- what a screen reader hears: whole sentences, not every token

function say(text) {
  if (!text.trim()) return;
  $("spoken").append(el("p", { text }));
  while ($("spoken").childElementCount > 20) $("spoken").firstChild.remove();
}

/** Says a growing text sentence by sentence. */
function speaker() {
  let said = 0;
  return (text, whole) => {
    const ends = [...text.slice(said).matchAll(/[.!?]\s|\n/g)];
    const until = whole ? text.length : ends.length ? said + ends.at(-1).index + 1 : said;
    say(text.slice(said, until));
    said = until;
  };
}

// --- storage

function save() {
  tab.set(CONVERSATION, JSON.stringify({ ...conversation, draft: $("message").value }));
}
let saving = 0;
function saveSoon() {
  saving ||= setTimeout(() => {
    saving = 0;
    save();
  }, 200);
}

const isText = (value) => typeof value === "string";
const isCall = (call) => isText(call?.function?.name) && isText(call.function.arguments);

function isMessage(message) {
  if (!isText(message?.content)) return false;
  if (message.role !== "assistant") return message.role === "user" || isText(message.tool_call_id);
  const { tool_calls: calls, ids, asked, done, seconds } = message;
  if (!Array.isArray(calls) || !Array.isArray(ids) || !isText(asked?.tools)) return false;
  return calls.every(isCall) && (!done || Number.isFinite(seconds));
}

/** Whether something is a conversation: what was kept may be of another version of the page, or damaged. */
function isConversation({ tools, system, most, messages }) {
  if (!isText(tools) || !isText(system) || !Number.isFinite(most)) return false;
  return Array.isArray(messages) && messages.every(isMessage);
}

function restore() {
  try {
    const { draft, ...kept } = JSON.parse(tab.get(CONVERSATION)) ?? {};
    const whole = { ...fresh(), ...kept };
    if (isConversation(whole)) conversation = whole;
    if (isText(draft)) $("message").value = draft;
  } catch {
    // No JSON: the page begins anew.
  }
  const { messages } = conversation;
  if (messages.length && !conversation.trouble && next(messages)) {
    conversation.trouble = "The page was loaded again before the answer was complete.";
    const cut = cutOff(messages);
    if (cut) cut.stopped = true;
  }
}

// --- showing

function viewOf(message, index) {
  if (message.role === "user") return userView(message);
  const before = conversation.messages.slice(0, index).flatMap((one) => one.tool_calls ?? []).length;
  const view = new ModelView(message, { before, inspect: server.inspector ? inspect : null, again: beginAnew });
  views.set(message, view);
  view.update(resultsAfter(index));
  return view.root;
}

function resultsAfter(index) {
  const rest = conversation.messages.slice(index + 1);
  const end = rest.findIndex((message) => message.role !== "tool");
  return end < 0 ? rest : rest.slice(0, end);
}

function showAll() {
  views.clear();
  talk.replaceChildren(
    ...conversation.messages.flatMap((message, i) => (message.role === "tool" ? [] : [viewOf(message, i)])),
  );
  showDeclared();
  showState();
}

function showDeclared() {
  talk.querySelector(":scope > .declared")?.remove();
  const declared = taskOf(conversation.tools);
  if (declared && conversation.messages.length) talk.prepend(toolList(declared.title, declared.tools));
}

function showState() {
  const begun = conversation.messages.length > 0;
  $("start").hidden = begun;
  talk.hidden = $("new").hidden = !begun;
  $("send").textContent = running ? "Stop" : "Send";
  $("send").classList.toggle("stop", Boolean(running));
  $("trouble").hidden = !conversation.trouble || Boolean(running);
  $("trouble-text").textContent = conversation.trouble ?? "";
  // Behind results of tools nothing has failed: the model only was not asked again.
  $("retry").textContent = conversation.messages.at(-1)?.role === "tool" ? "Go on" : "Try again";
  $("system").value = conversation.system;
  $("tools").value = conversation.tools;
  $("most").value = conversation.most;
  $("options").inert = Boolean(running);
}

/** Show `change`, and stay at the end if that is where the reader is. */
function following(change) {
  const page = document.scrollingElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  change();
  if (atEnd) page.scrollTop = page.scrollHeight;
}

function add(message) {
  conversation.messages.push(message);
  const index = conversation.messages.length - 1;
  following(() => {
    if (message.role === "tool") updateTurn();
    else talk.append(viewOf(message, index));
  });
  save();
}

function updateTurn() {
  const index = conversation.messages.findLastIndex((message) => message.role === "assistant");
  following(() => views.get(conversation.messages[index])?.update(resultsAfter(index)));
}

// --- talking

/** The messages as the server takes them. Turns that were cut off count with their text, without their calls. */
function wire(messages, system) {
  const sent = system.trim() ? [{ role: "system", content: system }] : [];
  messages.forEach((message, index) => {
    const { role, content, tool_calls: calls, tool_call_id, name } = message;
    if (role === "user") sent.push({ role, content });
    else if (role === "tool") sent.push({ role, content, tool_call_id, name });
    else {
      const last = index === messages.length - 1 && message.done;
      const whole = last || messages[index + 1]?.role === "tool";
      if (calls.length && whole) sent.push({ role, content, tool_calls: calls });
      else if (content || last) sent.push({ role, content });
    }
  });
  return sent;
}

/** The request that a turn answers. */
function asking(messages, { tools, system, most }) {
  const declared = taskOf(tools)?.tools;
  const body = { messages: wire(messages, system), max_tokens: most };
  return declared ? { ...body, tools: declared } : body;
}

/** What has to happen now: "model", "world" or nothing. */
function next(messages) {
  const last = messages.at(-1);
  // At its limit of turns a task is judged with results that no model has seen.
  if (messages.findLast((message) => message.role !== "tool")?.verdict) return null;
  if (last.role !== "assistant" || !last.done) return "model";
  if (last.finish === "length") return null;
  return last.tool_calls.length || conversation.task ? "world" : null;
}

const cutOff = (messages) => {
  const last = messages.at(-1);
  return last.role === "assistant" && !last.done ? last : null;
};

const empty = (message) => !message.content && !message.tool_calls.length;

function drop(message) {
  conversation.messages.pop();
  views.get(message).root.remove();
  views.delete(message);
}

async function goOn() {
  if (running) return;
  const run = new AbortController();
  running = run;
  conversation.trouble = null;
  const { messages } = conversation;
  const cut = cutOff(messages);
  if (cut && empty(cut)) drop(cut);
  else if (cut) {
    cut.stopped = false;
    updateTurn();
  }
  showState();
  try {
    // The server may have been away, or without a key, when the page began.
    if (server === UNKNOWN) await load(run.signal);
    let turns = 0;
    for (let what; (what = next(messages)); ) {
      if (what === "world") await askWorld(run.signal);
      else if (turns === MOST_TURNS) throw new Failure(`The model called tools ${turns} times without an answer.`);
      else {
        turns += 1;
        await askModel(run.signal);
      }
    }
  } catch (error) {
    if (running === run) fail(error);
  }
  // Meanwhile another conversation may have begun.
  if (running !== run) return;
  running = null;
  save();
  following(showState);
}

function fail(error) {
  const last = conversation.messages.at(-1);
  if (last.role === "assistant" && !last.done) last.stopped = true;
  if (error.name === "AbortError") conversation.trouble = "Stopped.";
  else if (error instanceof Failure) conversation.trouble = error.message;
  else {
    console.error(error);
    conversation.trouble = "The page failed at this answer; the browser's console has the reason.";
  }
  updateTurn();
  say(conversation.trouble);
}

async function askModel(signal) {
  // What was said before it broke off stays until there is something instead.
  const cut = cutOff(conversation.messages);
  const messages = conversation.messages.slice(0, cut ? -1 : undefined);
  const { tools, system, most } = conversation;
  const asked = { tools, system, most };
  const body = { ...asking(messages, asked), stream_options: { include_usage: true } };
  if (server.inspector) body.return_token_ids = true;
  const message = { role: "assistant", content: "", tool_calls: [], ids: [], asked, done: false };
  let shown = false;
  const show = () => {
    shown = true;
    following(() => {
      if (cut) drop(cut);
      add(message);
    });
  };
  if (!cut) show();
  const began = performance.now();
  const speak = speaker();
  let drawn = 0;
  for await (const chunk of chat(body, signal)) {
    // Chunks that had come before the end of it are not shown in what has begun since.
    signal.throwIfAborted();
    take(message, chunk);
    if (!shown && !empty(message)) show();
    speak(message.content, false);
    // A fast stream is drawn once a frame.
    drawn ||= requestAnimationFrame(() => {
      drawn = 0;
      updateTurn();
    });
    saveSoon();
  }
  cancelAnimationFrame(drawn);
  if (!shown) show();
  speak(message.content, true);
  message.seconds = (performance.now() - began) / 1000;
  message.done = true;
  if (message.finish === "length" && conversation.task) {
    message.verdict = { passed: false, reason: "the turn was cut off at its limit of tokens", unfinished: true };
  }
  for (const one of message.tool_calls) say(`Calls ${one.function.name} with ${one.function.arguments}`);
  updateTurn();
  save();
}

/** A chunk of a stream becomes part of the message. */
function take(message, chunk) {
  if (chunk.usage) message.usage = chunk.usage;
  for (const { delta, finish_reason: finish, token_ids: ids } of chunk.choices) {
    message.content += delta.content ?? "";
    if (ids) message.ids.push(...ids);
    if (finish) message.finish = finish;
    for (const { index, id, function: part } of delta.tool_calls ?? []) {
      message.tool_calls[index] ??= { id, type: "function", function: { name: part.name, arguments: "" } };
      message.tool_calls[index].function.arguments += part.arguments ?? "";
    }
  }
}

async function askWorld(signal) {
  const last = conversation.messages.at(-1);
  // Without a task only the results of calls matter, and those of tasks do not depend on what else was said.
  const body = { task: conversation.task ?? last.asked.tools, messages: wire(conversation.messages, "") };
  const { messages, verdict } = await call("/playground/turn", body, signal);
  for (const message of messages) {
    add(message);
    const how = message.error ? "failed" : "returned";
    say(message.role === "tool" ? `${message.name} ${how}: ${message.content}` : message.content);
  }
  if (verdict && conversation.task) {
    last.verdict = verdict;
    conversation.task = null;
    say(`${verdict.passed ? "Passed" : "Not passed"}: ${verdict.reason}`);
    updateTurn();
  }
}

async function inspect(message, panel) {
  if (panel.childElementCount && !panel.dataset.failed) return;
  panel.replaceChildren(el("p", { class: "muted small", text: "Looking…" }));
  const before = conversation.messages.slice(0, conversation.messages.indexOf(message));
  try {
    const body = { ...asking(before, message.asked), token_ids: message.ids };
    showTokens(panel, await call("/playground/inspect", body), message.usage);
    delete panel.dataset.failed;
  } catch (error) {
    panel.dataset.failed = "yes";
    panel.replaceChildren(el("p", { class: "bad small", text: error.message }));
  }
}

// --- what the user does

let acted = -Infinity;

/** Whether a click is the second of two: that is not meant for what the first one put under the pointer. */
const isSecond = (event) => event.timeStamp - acted < DOUBLE_CLICK_MS;

function startTask(task, event) {
  if (isSecond(event)) return;
  const { system, most } = conversation;
  conversation = { ...fresh(), system, most, task: task.id, tools: task.id };
  conversation.messages.push({ role: "user", content: task.request });
  showAll();
  talk.focus();
  goOn();
}

function send() {
  const text = $("message").value;
  if (running || !text.trim()) return;
  $("message").value = "";
  // From here on it is the user's conversation, and no longer the task's.
  conversation.task = null;
  conversation.trouble = null;
  add({ role: "user", content: text });
  if (conversation.messages.length === 1) showAll();
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  goOn();
}

function beginAnew(event) {
  acted = event.timeStamp;
  running?.abort();
  running = null;
  const { system, most } = conversation;
  conversation = { ...fresh(), system, most };
  save();
  showAll();
  scrollTo(0, 0);
  $("hello").focus();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (isSecond(event)) return;
  acted = event.timeStamp;
  if (running) running.abort();
  else send();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !$("key-dialog").open) running.abort();
});
$("retry").addEventListener("click", () => {
  talk.focus();
  goOn();
});
$("new").addEventListener("click", beginAnew);
$("system").addEventListener("change", () => {
  conversation.system = $("system").value;
  save();
});
$("tools").addEventListener("change", () => {
  conversation.tools = $("tools").value;
  save();
  showDeclared();
});
$("most").addEventListener("change", () => {
  const { valueAsNumber: given, min, max } = $("most");
  conversation.most = Number.isNaN(given) ? MOST_TOKENS : Math.min(max, Math.max(min, Math.round(given)));
  save();
  showState();
});
addEventListener("pagehide", () => {
  save();
  // What breaks off because the page is left is no fault of the server.
  running = null;
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

onKeyNeeded(
  (wrong) =>
    new Promise((resolve) => {
      const dialog = $("key-dialog");
      let given = null;
      $("key-wrong").hidden = !wrong;
      $("key").value = "";
      $("key-form").onsubmit = (event) => {
        event.preventDefault();
        given = $("key").value.trim();
        dialog.close();
      };
      $("key-cancel").onclick = () => dialog.close();
      dialog.onclose = () => resolve(given);
      dialog.showModal();
    }),
);

// --- the beginning

async function begin() {
  try {
    await load();
  } catch (error) {
    const again = el("button", { type: "button", text: "Try again", click: begin });
    $("tasks").replaceChildren(el("li", { class: "notice" }, el("p", { text: error.message }), again));
  }
}

async function load(signal) {
  server = await call("/playground", null, signal);
  $("model").textContent = server.model;
  $("tasks").replaceChildren(...server.tasks.map((task) => taskCard(task, (event) => startTask(task, event))));
  $("tools").replaceChildren(
    el("option", { value: "", text: "None" }),
    ...server.tasks.map((task) => el("option", { value: task.id, text: `Those of “${task.title}”` })),
  );
  $("start-note").textContent =
    server.model === NANO
      ? "Nano has 7.6 million parameters. It solves about half of such tasks, and these three are among them. It is " +
        "not a chat model: to anything but its kinds of task it gives wrong answers."
      : "The tasks are made from seeds, and their words mean nothing: nobody can know an answer without the tools.";
  showAll();
}

showTheme();
restore();
showAll();
begin();
