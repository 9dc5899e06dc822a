// Each token of an answer: how likely it was, what else was, what the grammar left, and which experts computed it.

import { count, el } from "./view.js";

const MOST_CELLS = 64;
const percent = (logprob) => {
  const p = 100 * Math.exp(logprob);
  return p > 99.95 ? "100 %" : p < 0.1 ? "< 0.1 %" : `${p.toFixed(1)} %`;
};
const number = (logprob) => (logprob > -5e-4 ? "0.000" : `−${(-logprob).toFixed(3)}`);

/** A token's text with what cannot be seen made visible. */
function visible(text) {
  const shown = text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return shown.trim() ? shown : shown.replaceAll(" ", "␣") || "∅";
}

/** Fills a panel with what the server found. */
export function showTokens(panel, found, usage) {
  const { tokens } = found;
  const forced = tokens.filter((token) => token.allowed === 1).length;
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const detail = el("div", { class: "detail" });
  const strip = el("div", { class: "strip", role: "listbox", "aria-label": "Tokens", "aria-orientation": "horizontal" });
  const options = tokens.map((token, index) => {
    const kind = token.allowed === 1 ? "forced" : "free";
    const option = el("span", { role: "option", class: `token ${kind}`, tabindex: "-1", text: visible(token.text) });
    option.setAttribute("aria-label", `${visible(token.text)}, ${percent(token.logprob)}, ${kind}`);
    option.style.setProperty("--doubt", kind === "forced" ? 0 : 1 - Math.exp(token.logprob));
    option.addEventListener("click", () => choose(index));
    option.addEventListener("focus", () => choose(index));
    return option;
  });
  let chosen = -1;
  function choose(index) {
    if (index === chosen) return;
    if (chosen >= 0) options[chosen].tabIndex = -1;
    options[chosen]?.setAttribute("aria-selected", "false");
    chosen = index;
    options[chosen].tabIndex = 0;
    options[chosen].setAttribute("aria-selected", "true");
    detail.replaceChildren(...details(tokens[chosen], found));
  }
  strip.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    options[Math.min(options.length - 1, Math.max(0, chosen + step))].focus();
  });
  strip.append(...options);
  panel.replaceChildren(
    el("p", {
      class: "small",
      text:
        `${count(tokens.length, "token")}: ${forced} forced by the grammar, ${tokens.length - forced} free. ` +
        `Of ${count(found.prompt_tokens, "prompt token")} ${cached.toLocaleString("en")} came from the cache.`,
    }),
    el(
      "p",
      { class: "legend small muted" },
      el("span", { class: "token forced", text: "forced" }),
      " had no alternative; the stronger the mark of a ",
      doubtful(0.15, "free"),
      " ",
      doubtful(0.6, "token"),
      ", the less likely it was. Arrow keys move.",
    ),
    strip,
    detail,
  );
  if (options.length) choose(0);
}

function doubtful(doubt, text) {
  const shown = el("span", { class: "token free", text });
  shown.style.setProperty("--doubt", doubt);
  return shown;
}

function details(token, found) {
  const left = token.allowed === 1 ? "forced" : "free";
  const ids = `${token.allowed.toLocaleString("en")} of ${found.vocabulary.toLocaleString("en")} ids allowed`;
  return [
    el(
      "dl",
      { class: "facts" },
      fact("Token", el("code", { text: visible(token.text) }), ` id ${token.id}`),
      fact("Log-probability", `${number(token.logprob)} (${percent(token.logprob)})`),
      fact("Grammar", `${left}, ${ids}`),
    ),
    el("h3", { text: "Likeliest without the grammar" }),
    el("ol", { class: "bars" }, ...token.top.map((one) => bar(one, one.id === token.id))),
    ...(token.experts.length ? experts(token, found) : []),
  ];
}

function fact(name, ...value) {
  return el("div", {}, el("dt", { text: name }), el("dd", {}, ...value));
}

function bar({ text, logprob }, own) {
  const fill = el("span", { class: "fill" });
  fill.style.setProperty("--part", Math.exp(logprob));
  return el(
    "li",
    { class: own ? "own" : null },
    el("code", { text: visible(text) }),
    el("span", { class: "track", "aria-hidden": "true" }, fill),
    el("span", { class: "small", text: percent(logprob) + (own ? ", chosen" : "") }),
  );
}

function experts(token, found) {
  const title = el("h3", { text: `Experts, ${token.experts[0].length} of ${found.experts} per layer` });
  const rows = token.experts.map((used, index) => {
    const words = `Layer ${found.layers[index]}: ${used.join(", ")}`;
    if (found.experts > MOST_CELLS) return el("li", { class: "small", text: words });
    const cells = Array.from({ length: found.experts }, (_, one) => {
      const rank = used.indexOf(one);
      return el("span", { class: rank < 0 ? "cell" : rank ? "cell on" : "cell on first" });
    });
    return el(
      "li",
      {},
      el("span", { class: "unseen", text: words }),
      el("span", { class: "small muted", "aria-hidden": "true", text: found.layers[index] }),
      el("span", { class: "cells", "aria-hidden": "true" }, ...cells),
      el("span", { class: "small", "aria-hidden": "true", text: used.join(", ") }),
    );
  });
  return [title, el("ul", { class: "experts" }, ...rows)];
}
