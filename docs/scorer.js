// A page whose title holds all that was asked for comes first, lessons before exercises.
var Scorer = {
  score: ([page, title, , , score]) => {
    const asked = new URLSearchParams(window.location.search).get("q") || "";
    const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
    const holds = words.length && words.every((w) => title.toLowerCase().includes(w));
    if (!holds) return score;
    return score + (/^notebooks\/[^/]+$/.test(page) ? 40 : 20);
  },
  // The rest as Sphinx has it.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
