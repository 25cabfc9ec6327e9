// An answer as it comes: its tokens, each of which can be opened.

const percent = (logprob) => Math.exp(logprob);
const shown = (text) => JSON.stringify(text);

function meter(value) {
  return make("meter", { min: 0, max: 1, value: Math.min(1, value), title: `${(100 * value).toFixed(1)} %` });
}

// One token: {text, logprob, top: [{token, logprob}], slots: [{layer, head, slot, weight, patch}]}.
function showToken(token) {
  const parts = [make("p", {}, make("code", {}, shown(token.text)))];
  if (token.top) {
    parts.push(make("h3", {}, "What else could have come"), table(["token", "", "%"],
      token.top.map((one) => [make("code", {}, shown(one.token)), meter(percent(one.logprob)),
        (100 * percent(one.logprob)).toFixed(1)]), [2]));
  }
  if (token.slots && token.slots.length > 0) {
    parts.push(make("h3", {}, "Slots of the memory"), table(
      ["layer", "head", "slot", "weight", "written by"],
      token.slots.map((slot) => [String(slot.layer), String(slot.head), String(slot.slot),
        slot.weight.toFixed(3), slot.patch ? patchLink(slot.patch) : "the base"]), [0, 1, 2, 3]));
  } else {
    parts.push(make("p", { className: "hint" }, "No slots were asked for, or it rested on none."));
  }
  byId("token-details").replaceChildren(...parts);
}

function patchLink(id) {
  const known = state.pool && state.pool.patches.find((patch) => patch.id === id);
  const link = make("button", { type: "button" }, known ? nameOf(known) : id);
  link.addEventListener("click", () => {
    choose(byId("tab-memory"));
    const patch = document.querySelector(`[data-patch="${CSS.escape(id)}"]`);
    if (patch) patch.focus();
    else byId("tab-memory").focus();
  });
  return link;
}

// Tokens in an element: one of them can be reached by Tab, the others from there.
class Answer {
  constructor(element, opens = true) {
    this.element = element;
    this.opens = opens;
    this.tokens = [];
    this.content = "";
    this.decoder = new TextDecoder();
    element.className = "answer";
    if (!opens) return;
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "Answer: arrow keys go from token to token, Enter opens one");
    element.addEventListener("click", (event) => this.open(event.target));
    element.addEventListener("keydown", (event) => this.key(event));
  }

  // A choice of a chunk. Who reads the end of the conversation goes on to see it.
  take(choice) {
    const scrolled = this.element.closest("#messages");
    const isAtEnd = scrolled && scrolled.scrollHeight - scrolled.scrollTop - scrolled.clientHeight < 40;
    this.takeTokens(choice);
    if (isAtEnd) scrolled.scrollTop = scrolled.scrollHeight;
  }

  takeTokens(choice) {
    const text = choice.delta.content || "";
    this.content += text;
    const tokens = choice.logprobs && choice.logprobs.content ? choice.logprobs.content : [];
    const slots = choice.explain || [];
    if (tokens.length === 0 && text) this.add({ text });
    tokens.forEach((token, i) => {
      // A character may be in parts: it stands with its last one.
      const bytes = token.bytes ? this.decoder.decode(new Uint8Array(token.bytes), { stream: true }) : token.token;
      this.add({ text: bytes, logprob: token.logprob, top: token.top_logprobs, slots: slots[i] && slots[i].slots });
    });
  }

  add(token) {
    this.tokens.push(token);
    const span = make("span", { className: "t" }, token.text);
    if (token.slots && token.slots.some((slot) => slot.patch)) {
      span.classList.add("written");
      span.title = "rests on rows that a patch wrote";
    }
    if (this.opens) {
      span.tabIndex = this.element.childElementCount === 0 ? 0 : -1;
      span.setAttribute("role", "button");
    }
    this.element.append(span);
  }

  open(span) {
    const index = [...this.element.children].indexOf(span);
    if (index < 0) return;
    for (const other of document.querySelectorAll(".t.chosen")) other.classList.remove("chosen");
    span.classList.add("chosen");
    showToken(this.tokens[index]);
  }

  key(event) {
    const spans = [...this.element.children];
    const at = spans.indexOf(event.target);
    if (at < 0) return;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.open(spans[at]);
    else if (to === undefined || !spans[to]) return;
    else {
      spans[at].tabIndex = -1;
      spans[to].tabIndex = 0;
      spans[to].focus();
    }
    event.preventDefault();
  }
}

// Asks, and gives the answer to `answer` as it comes; what it was, in words.
async function ask(messages, answer, { memory, temperature, maxTokens, explain, signal }) {
  const body = {
    messages, stream: true, stream_options: { include_usage: true }, temperature,
    max_completion_tokens: maxTokens, logprobs: true, top_logprobs: 5,
  };
  if (state.model) body.model = state.model;
  if (memory) body.memory = memory;
  if (explain && state.hasMemory) body.explain = true;
  const begin = performance.now();
  const send = () => request("/v1/chat/completions", { method: "POST", json: body, signal });
  const response = await send().catch((error) => {
    if (error.param !== "explain") throw error;
    state.hasMemory = false;  // which the key to ask alone does not tell
    delete body.explain;
    return send();
  });
  let first = 0, count = 0, reason = "";
  for await (const event of events(response)) {
    if (event.usage) count = event.usage.completion_tokens;
    for (const choice of event.choices) {
      if (!first && choice.delta.content) first = performance.now();
      answer.take(choice);
      reason = choice.finish_reason || reason;
    }
  }
  const now = performance.now();
  const rate = count > 1 && first ? (count - 1) / ((now - first) / 1000) : 0;
  const version = response.headers.get("x-memlayers-pool-version");
  state.speed = rate ? `${rate.toFixed(1)} tokens/s` : "";
  showFacts(health);
  return [
    `${count} tokens`, rate ? `${rate.toFixed(1)} tokens/s` : "",
    first ? `first after ${Math.round(first - begin)} ms` : "",
    version ? `pool version ${version}` : "", reason === "length" ? "cut at the limit" : "",
  ].filter(Boolean).join(", ");
}
