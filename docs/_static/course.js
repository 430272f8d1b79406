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
