"use strict";
// Filter the answers; a chosen opponent stands alone beside the judged arm. The state lives in the address
// (#q=...&outcome=lose), so that a view can be kept and shared.
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const PAGE = 25; // cards shown at a time
  const KEYS = ["q", "group", "opponent", "annotator", "outcome"];
  const fields = Object.fromEntries(KEYS.map((key) => [key, document.getElementById("f-" + key)]));
  const cards = Array.from(document.querySelectorAll(".card"), (element) => ({
    element,
    group: element.dataset.group,
    outcomes: JSON.parse(element.dataset.outcomes),
    opponents: element.querySelectorAll("[data-opponent]"),
    text: element.textContent.toLowerCase(),
  }));
  const more = document.querySelector(".more");
  let limit = PAGE;

  const chosen = (map, key) => (key ? (Object.hasOwn(map, key) ? [map[key]] : []) : Object.values(map));
  const hasOutcome = (card, want) =>
    chosen(card.outcomes, want.opponent).some((by) => {
      const found = chosen(by, want.annotator);
      return want.outcome ? found.includes(want.outcome) : found.length > 0;
    });
  const matches = (card, want) =>
    (!want.group || card.group === want.group) &&
    (!(want.opponent || want.annotator || want.outcome) || hasOutcome(card, want)) &&
    want.words.every((word) => card.text.includes(word));

  const show = () => {
    const want = Object.fromEntries(KEYS.map((key) => [key, fields[key].value]));
    want.words = want.q.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const card of cards) {
      const found = matches(card, want);
      card.element.hidden = !(found && n < limit);
      for (const answer of card.opponents) answer.hidden = want.opponent !== "" && answer.dataset.opponent !== want.opponent;
      n += found;
    }
    const shown = Math.min(n, limit);
    document.getElementById("count").textContent =
      n === 0 ? `None of ${cards.length} prompts match.` : `${n} of ${cards.length} prompts match, ${shown} shown.`;
    more.hidden = shown === n;
  };

  const read = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    if (!KEYS.some((key) => state.has(key))) return false;
    for (const key of KEYS) fields[key].value = state.get(key) ?? "";
    return true;
  };
  const write = () => {
    const state = new URLSearchParams();
    for (const key of KEYS) if (fields[key].value) state.set(key, fields[key].value);
    history.replaceState(null, "", state.size ? "#" + state : location.pathname + location.search);
  };
  const changed = () => {
    limit = PAGE;
    write();
    show();
  };

  let timer;
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(changed, 60);
  });
  form.addEventListener("reset", () => setTimeout(changed));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("more").addEventListener("click", () => { limit += PAGE; show(); });
  document.getElementById("every").addEventListener("click", () => { limit = Infinity; show(); });
  window.addEventListener("hashchange", () => { if (read()) { limit = PAGE; show(); } });

  form.hidden = false;
  const asked = read();
  show();
  if (asked) document.getElementById("answers").scrollIntoView({ behavior: "instant" });
})();
