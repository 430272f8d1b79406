// A page opened from a folder may not read its neighbours, so the search lists titles only.
if (window.location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// The theme's arrows in the sidebar have no name of their own for those who cannot see.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".toctree-toggle")) {
    const link = arrow.closest("li").querySelector("a");
    const summary = arrow.closest("summary") || arrow;
    summary.setAttribute("aria-label", `Pages below ${link.textContent.trim()}`);
  }
});

// Long names in code break after an underscore, a dot or a slash, not within a word.
document.addEventListener("DOMContentLoaded", () => {
  for (const code of document.querySelectorAll("code.literal .pre, dt.sig .pre")) {
    const parts = code.textContent.split(/(?<=[_./])/);
    code.replaceChildren(...parts.flatMap((part) => [part, document.createElement("wbr")]));
  }
});

// A click on a figure shows it as large as the window, Escape or another click ends it.
function enlarge(image) {
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.setAttribute("aria-label", "The figure, enlarged");
  const close = document.createElement("button");
  close.setAttribute("aria-label", "Close");
  close.textContent = "×";
  const large = new Image();
  Object.assign(large, { src: image.src, alt: image.alt });
  dialog.append(close, large);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll("article img:not(a img, .sd-card img)")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Enlarge";
    button.className = "enlarge";
    for (const theme of ["only-light", "only-dark"])
      if (image.classList.contains(theme)) button.classList.add(theme);
    image.replaceWith(button);
    button.append(image);
    if (parseInt(image.style.width) > 700 && !image.closest(".model-map")) {
      const box = document.createElement("div"); // scrolls on a phone
      box.className = "wide";
      button.replaceWith(box);
      box.append(button);
    }
    button.addEventListener("click", () => enlarge(image));
  }
  for (const map of document.querySelectorAll(".model-map")) {
    const middle = map.dataset.middle * map.scrollWidth;
    map.scrollLeft = middle - map.clientWidth / 2;
  }
});

// What scrolls in its box fades at the edges where there is more.
function fadeEdges(box) {
  const right = box.scrollWidth - box.clientWidth - box.scrollLeft;
  box.classList.toggle("more-left", box.scrollLeft > 1);
  box.classList.toggle("more-right", right > 1);
}

document.addEventListener("DOMContentLoaded", () => {
  const sizes = new ResizeObserver((all) => all.forEach(({ target }) => fadeEdges(target)));
  const boxes = "article :is(pre, .output, .model-map, .wide, table.docutils, div.math)";
  for (const box of document.querySelectorAll(boxes)) {
    sizes.observe(box);
    box.addEventListener("scroll", () => fadeEdges(box));
  }
});

// The meaning of a term stays inside of the window; Escape hides it.
for (const event of ["mouseover", "focusin"])
  document.addEventListener(event, ({ target }) => {
    const term = target.closest?.(".term");
    if (!term) return;
    const meaning = term.querySelector(".meaning");
    term.classList.remove("closed");
    term.style.setProperty("--shift", "0px");
    const over = meaning.getBoundingClientRect().right - document.body.clientWidth + 8;
    if (over > 0) term.style.setProperty("--shift", `${-over}px`);
  });
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape")
    document.querySelectorAll(".term").forEach((term) => term.classList.add("closed"));
});
