// How a conversation looks. What a model or a tool says only ever becomes text nodes.

/** An element. Functions among the properties are listeners; `text` is its text. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "text") made.textContent = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** JSON as it reads best: in one line if that is short, else indented; anything else as it is. */
function pretty(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return text;
  }
  const line = JSON.stringify(value, null, 1).replace(/\n\s*/g, " ");
  return line.length <= 60 ? line : JSON.stringify(value, null, 2);
}

export const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;

/** A task to click. */
export function taskCard(task, start) {
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", class: "task", click: start },
      el("span", { class: "task-title", text: task.title }),
      el("span", { class: "muted small", text: task.about }),
      el("q", { dir: "auto", text: task.request.trim() }),
    ),
  );
}

/** The tools that a conversation declares, folded. */
export function toolList(title, tools) {
  return el(
    "details",
    { class: "declared" },
    el("summary", {}, `${title} · ${count(tools.length, "tool")}`),
    el("dl", {}, ...tools.flatMap(declared)),
  );
}

function declared({ function: { name, description, parameters } }) {
  const required = new Set(parameters.required);
  const names = Object.keys(parameters.properties ?? {}).map((one) => (required.has(one) ? one : `${one}?`));
  return [el("dt", {}, el("code", { text: `${name}(${names.join(", ")})` })), el("dd", { text: description })];
}

export function userView(message) {
  return el(
    "article",
    { class: "said user" },
    el("h2", { class: "unseen", text: "You" }),
    el("p", { class: "text", dir: "auto", text: message.content.trim() }),
  );
}

/** A turn of the model, which grows: `update` shows what its message has become. */
export class ModelView {
  constructor(message, { before, inspect, again }) {
    this.message = message;
    this.before = before;
    this.again = again;
    this.text = el("p", { class: "text", dir: "auto" });
    this.cards = [];
    this.calls = el("div", { class: "calls" });
    this.facts = el("span", { class: "muted small" });
    this.panel = el("div", { class: "inspector", hidden: true });
    this.look = el("button", { type: "button", class: "quiet small", "aria-expanded": "false", text: "Tokens" });
    this.look.addEventListener("click", () => this.toggle(inspect));
    this.foot = el("div", { class: "foot", hidden: true }, this.facts, inspect ? this.look : null);
    this.verdict = el("div", { hidden: true });
    const name = el("h2", { class: "unseen", text: "Model" });
    this.root = el("article", { class: "said model" }, name, this.text, this.calls, this.foot, this.panel, this.verdict);
    this.update();
  }

  update(results = []) {
    const { content, tool_calls: calls, done, stopped, finish, usage, seconds, verdict } = this.message;
    const waits = !done && !stopped;
    this.root.hidden = Boolean(stopped) && !content && !calls.length;
    this.root.setAttribute("aria-busy", String(waits));
    this.root.classList.toggle("waits", waits && !calls.length);
    this.root.classList.toggle("cut", Boolean(stopped));
    if (this.text.textContent !== content) this.text.textContent = content;
    this.text.hidden = !content && (calls.length > 0 || done);
    calls.forEach((call, index) => {
      if (!this.cards[index]) {
        this.cards[index] = new CallCard(this.before + index + 1);
        this.calls.append(this.cards[index].root);
      }
      this.cards[index].update(call, results.find((result) => result.tool_call_id === call.id), done, stopped);
    });
    if (done) {
      const took = `${seconds.toFixed(1)} s`;
      const end = finish === "length" ? ", cut off at the limit" : "";
      // No prompt is empty: with a count of zero nobody counted.
      if (usage?.prompt_tokens) {
        const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
        const prompt = `prompt ${usage.prompt_tokens.toLocaleString("en")}, cached ${cached.toLocaleString("en")}`;
        this.facts.textContent = `${count(usage.completion_tokens, "token")} in ${took}${end} · ${prompt}`;
      } else this.facts.textContent = took + end;
    }
    this.foot.hidden = !done;
    this.look.hidden = !this.message.ids?.length;
    if (verdict) this.judge(verdict);
  }

  judge({ passed, reason, unfinished }) {
    this.verdict.hidden = false;
    this.verdict.className = `verdict ${passed ? "good" : "bad"}`;
    const mark = el("span", { class: "sign", "aria-hidden": "true", text: passed ? "✓" : "✕" });
    this.verdict.replaceChildren(
      mark,
      el(
        "div",
        {},
        el("p", {}, el("strong", { text: passed ? "Passed" : "Not passed" }), `: ${reason}.`),
        unfinished ? null : el("p", { class: "muted small", text: "Judged by the code of the world, not by a model." }),
      ),
      el("button", { type: "button", text: "More tasks", click: this.again }),
    );
  }

  async toggle(inspect) {
    const open = this.panel.hidden;
    this.panel.hidden = !open;
    this.look.setAttribute("aria-expanded", String(open));
    if (open) await inspect(this.message, this.panel);
  }
}

class CallCard {
  constructor(number) {
    this.number = number;
    this.name = el("code", { class: "call-name" });
    this.state = el("span", { class: "state" });
    this.arguments = el("pre", { dir: "auto" });
    this.result = el("pre", { dir: "auto" });
    this.rows = el("div", { class: "call-rows" }, el("span", { class: "key", text: "Arguments" }), this.arguments);
    this.resultKey = el("span", { class: "key", text: "Result", hidden: true });
    this.rows.append(this.resultKey, this.result);
    this.root = el("section", { class: "call" }, el("header", {}, this.name, this.state), this.rows);
  }

  update(call, result, done, stopped) {
    const { name, arguments: text } = call.function;
    this.name.textContent = name;
    this.root.setAttribute("aria-label", `Call ${this.number}: ${name}`);
    this.arguments.textContent = done ? pretty(text) : text || "…";
    this.result.hidden = this.resultKey.hidden = !result;
    if (result) this.result.textContent = pretty(result.content);
    const [kind, word] = result
      ? result.error
        ? ["bad", "failed"]
        : ["good", "returned"]
      : stopped
        ? ["", "not made"]
        : ["", done ? "waiting" : "writing"];
    this.root.className = `call ${kind}`;
    this.state.textContent = word;
  }
}
