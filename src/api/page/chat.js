// A conversation, and one question to two states of the memory.

const conversation = [];  // {role, content, article}
let running = null;       // what stops the answer that comes

function addMessage(role, content) {
  const body = make("div", { className: "answer" }, content);
  const article = make("div", { className: "message" }, make("h2", {}, role === "user" ? "You" : "Model"), body);
  byId("messages").append(article);
  byId("messages").scrollTop = byId("messages").scrollHeight;
  const message = { role, content, article, body };
  conversation.push(message);
  return message;
}

function showRunning(isRunning) {
  byId("send").disabled = isRunning;
  byId("stop").disabled = !isRunning;
  byId("again").disabled = isRunning || !conversation.some((message) => message.role === "user");
  byId("clear").disabled = isRunning;
}

async function answerNow() {
  const messages = conversation.map(({ role, content }) => ({ role, content }));
  const message = addMessage("assistant", "");
  const answer = new Answer(message.body);
  running = new AbortController();
  showRunning(true);
  byId("speed").textContent = "";
  try {
    byId("speed").textContent = await ask(messages, answer, {
      memory: JSON.parse(byId("chat-view").value),
      temperature: Number(byId("temperature").value),
      maxTokens: Number(byId("max-tokens").value),
      explain: byId("explain").checked,
      signal: running.signal,
    });
  } catch (error) {
    tell(error);
    if (error.name === "AbortError") byId("speed").textContent = "stopped";
  }
  message.content = answer.content;
  running = null;
  if (!message.content) {  // nothing came: no message that a next request would hold
    message.article.remove();
    conversation.splice(conversation.indexOf(message), 1);
  }
  showRunning(false);
}

byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("question").value.trim();
  if (!text || running) return;
  byId("question").value = "";
  byId("trouble").textContent = "";
  addMessage("user", text);
  answerNow();
});
byId("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("ask-form").requestSubmit();
});
byId("stop").addEventListener("click", () => running && running.abort());
byId("again").addEventListener("click", () => {
  while (conversation.length > 0 && conversation.at(-1).role === "assistant") {
    conversation.pop().article.remove();
  }
  byId("trouble").textContent = "";
  answerNow();
});
byId("clear").addEventListener("click", () => {
  conversation.length = 0;
  byId("messages").replaceChildren();
  byId("speed").textContent = "";
  showRunning(false);
  byId("question").focus();
});

let comparing = null;
byId("compare-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (comparing) return;
  comparing = new AbortController();
  byId("trouble").textContent = "";
  byId("compare-stop").disabled = false;
  byId("difference").textContent = "";
  const question = [{ role: "user", content: byId("compare-question").value }];
  const both = await Promise.allSettled(["left", "right"].map(async (side) => {
    const select = byId(`${side}-view`);
    byId(`${side}-name`).textContent = select.selectedOptions[0].textContent;
    const place = byId(`${side}-answer`);
    place.replaceChildren();
    const answer = new Answer(place, false);
    await ask(question, answer, {
      memory: JSON.parse(select.value), temperature: 0, maxTokens: Number(byId("max-tokens").value),
      explain: false, signal: comparing.signal,
    });
    return answer;
  }));
  comparing = null;
  byId("compare-stop").disabled = true;
  const failed = both.find((one) => one.status === "rejected");
  if (failed) return tell(failed.reason);
  const [left, right] = both.map((one) => one.value.tokens.map((token) => token.text));
  const length = Math.max(left.length, right.length);
  let at = 0;
  while (at < length && left[at] === right[at]) ++at;
  byId("difference").textContent =
    at === length ? "The two answers are the same." : `They differ from token ${at + 1} on.`;
  for (const side of ["left", "right"]) {
    for (const span of [...byId(`${side}-answer`).children].slice(at)) span.classList.add("differs");
  }
});
byId("compare-stop").addEventListener("click", () => comparing && comparing.abort());
