// The stack of patches, and facts that are taught.

const writtenBy = (notes) => Object.entries(notes).map(([name, text]) =>
  make("div", {}, make("dt", {}, name), make("dd", {}, text)));

// An edit holds for the version that this page shows: not where another edit came between.
async function edit(path, options) {
  await attempt(async () => {
    const headers = state.pool ? { "if-match": `"${state.pool.version}"` } : {};
    const result = await requestJson(path, { right: "admin", headers, ...options }).catch((error) => {
      if (error.status !== 412) throw error;
      throw new Error("The pool has changed since this page looked: it is reloaded. Look at it, and try again.");
    });
    byId("edit-result").textContent = result.was_there
      ? `Nothing changed: version ${result.version} has it.`
      : `Done and on the disk: version ${result.version}, ${result.num_conflicts} conflicts.`;
    byId("conflicts").replaceChildren(...(result.conflicts.length === 0 ? [] : [
      table(["slot", "written by", "and before by"],
        result.conflicts.slice(0, 50).map((one) => [String(one.slot), patchName(one.later), patchName(one.earlier)]), [0]),
      make("p", { className: "hint" }, "Slots that both write hold what the later one wrote.")]));
  });
  await lookAtPool();
}

function patchName(id) {
  const known = state.pool && [...state.pool.patches, ...state.pool.undone].find((patch) => patch.id === id);
  return known ? `${nameOf(known)} (${id.slice(0, 8)})` : id;
}

function button(text, act, label) {
  const one = make("button", { type: "button", "aria-label": label }, text);
  one.addEventListener("click", act);
  return one;
}

function patchCard(patch, isApplied) {
  const path = `/v1/memory/patches/${encodeURIComponent(patch.id)}`;
  const more = make("div");
  const actions = make("div", { className: "row" });
  const name = nameOf(patch);
  if (!isApplied) {
    actions.append(button("Apply again", () => edit(`${path}/reapply`, { method: "POST" }), `Apply ${name} again`));
  } else {
    if (!patch.is_kept) {
      actions.append(
        button("Roll back", () => edit(path, { method: "DELETE" }), `Roll ${name} back`),
        button("Keep", () => {
          if (confirm("This patch and those below it can then no longer be rolled back. Keep them?")) {
            edit(`${path}/keep`, { method: "POST" });
          }
        }, `Keep ${name}`));
    }
    actions.append(button("Conflicts", () => attempt(async () => {
      const whole = await requestJson(path, { right: "admin" });
      more.replaceChildren(whole.overwritten_by.length === 0
        ? make("p", {}, "No other patch wrote over its slots.")
        : table(["written over by", "slots"],
          whole.overwritten_by.map((one) => [patchName(one.patch), String(one.slots)]), [1]));
    }), `Conflicts of ${name}`));
  }
  return make("div", { className: "patch", tabIndex: -1, "data-patch": patch.id },
    make("h3", {}, name, patch.is_kept ? make("span", { className: "soft" }, " (kept)") : ""),
    make("dl", {},
      ...[["id", patch.id], ["rows", patch.rows], ["erased", patch.erased], ["sub-keys", patch.sub_keys]].map(
        ([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, String(value)))),
      ...writtenBy(patch.notes)),
    actions, more);
}

document.addEventListener("pool", () => {
  const nothing = (text) => [make("p", { className: "hint" }, text)];
  if (!state.pool) {
    byId("patches").replaceChildren(...nothing("The memory is shown to who has the key to edit, where the model has one."));
    byId("undone").replaceChildren();
    return;
  }
  const { patches, undone } = state.pool;
  byId("patches").replaceChildren(...(patches.length === 0 ? nothing("None: the pool is as it was trained.")
    : [...patches].reverse().map((patch) => patchCard(patch, true))));
  byId("undone").replaceChildren(...(undone.length === 0 ? nothing("None.")
    : undone.map((patch) => patchCard(patch, false))));
});

byId("upload-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = byId("patch-file").files[0];
  await edit("/v1/memory/patches", { method: "POST", body });
  byId("upload-form").reset();
});
byId("reload").addEventListener("click", () => attempt(lookAtPool));

const lines = (id) => byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
const facts = [];

function readFact() {
  const fact = { prompt: byId("fact-prompt").value, answer: byId("fact-answer").value };
  if (lines("fact-paraphrases").length > 0) fact.paraphrases = lines("fact-paraphrases");
  if (lines("fact-unseen").length > 0) fact.unseen = lines("fact-unseen");
  if (byId("fact-subject").value.trim()) fact.subject = byId("fact-subject").value.trim();
  return fact;
}

function showFactsToTeach() {
  byId("facts-to-teach").replaceChildren(...facts.map((fact, i) => make("li", {},
    `${fact.prompt} ${fact.answer} `,
    button("Remove", () => {
      facts.splice(i, 1);
      showFactsToTeach();
    }, `Remove ${fact.prompt}`))));
}

byId("add-fact").addEventListener("click", () => {
  if (!byId("teach-form").reportValidity()) return;
  facts.push(readFact());
  for (const field of ["prompt", "answer", "paraphrases", "unseen", "subject"]) byId(`fact-${field}`).value = "";
  showFactsToTeach();
  byId("fact-prompt").focus();
});

byId("teach-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const json = { facts: [...facts, readFact()] };
  const gate = {};
  for (const name of ["recall", "keep", "perplexity"]) {
    const text = byId(`gate-${name}`).value;
    if (text !== "") gate[name] = Number(text);
  }
  if (Object.keys(gate).length > 0) json.gate = gate;
  if (byId("background").value.trim()) json.background = byId("background").value;
  if (byId("fact-note").value) json.note = byId("fact-note").value;
  attempt(async () => {
    const job = await requestJson("/v1/memory/teach", { method: "POST", right: "admin", json });
    facts.length = 0;
    showFactsToTeach();
    byId("jobs").prepend(watch(job));
  });
});

// A job's card, which follows it to its end.
function watch(job) {
  const path = `/v1/memory/teach/${encodeURIComponent(job.id)}`;
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const words = make("p", { role: "status" });
  const cancel = button("Cancel", () => attempt(() => request(path, { method: "DELETE", right: "admin" })), "Cancel the job");
  const card = make("div", { className: "job" }, make("h3", {}, `Job ${job.id}`), bar, words, cancel);
  const show = (status) => {
    bar.max = status.steps || 1;
    bar.value = status.is_over ? bar.max : status.step;
    const share = (name, value) => value === null || value === undefined ? [] : [`${name} ${(100 * value).toFixed(0)} %`];
    words.textContent = [
      status.state, status.steps ? `step ${status.step} of ${status.steps}` : "",
      status.phrasings ? `${status.recalled} of ${status.phrasings} phrasings recalled` : "",
      ...share("recall", status.recall), ...share("unseen", status.unseen_recall), ...share("kept", status.kept),
      status.perplexity_ratio ? `perplexity ${status.perplexity_ratio.toFixed(3)} times` : "",
      status.pool_version ? `pool version ${status.pool_version}` : "", status.message,
    ].filter(Boolean).join(", ");
    words.className = status.state === "failed" || status.state === "rejected" ? "bad" : "";
    cancel.hidden = status.is_over;
  };
  show(job);
  if (!job.is_over) {
    attempt(async () => {
      for await (const status of events(await request(`${path}/events`, { right: "admin" }))) show(status);
      await lookAtPool();
    });
  }
  return card;
}

async function lookAtJobs() {
  if (!state.pool) return;
  const { jobs } = await requestJson("/v1/memory/teach", { right: "admin" });
  byId("jobs").replaceChildren(...jobs.reverse().map(watch));
}

async function begin() {
  await lookAtHealth();
  fillViews();
  await attempt(async () => {
    const models = await requestJson("/v1/models");
    state.model = models.data[0].id;
    byId("model").textContent = state.model;
    await lookAtPool();
    await lookAtJobs();
  });
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const kind of ["ask", "admin"]) keys.set(kind, byId(`${kind}-key`).value);
  byId("keys").open = false;
  begin();
});
for (const kind of ["ask", "admin"]) byId(`${kind}-key`).value = keys.get(kind);
setInterval(lookAtHealth, 5000);
begin();
