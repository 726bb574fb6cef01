"use strict";
// The platform's script puts its button beside itself. Kommo's is a bare <div onclick>, so keyboard and screen reader get
// here what it leaves out; its error callback needs eval, so a refusal is read from the attribute that it sets as well.
(() => {
  const slot = document.querySelector(".vendor");
  const script = slot.querySelector("script");
  const notice = document.querySelector("[data-notice]");

  if (script.dataset.theme && window.matchMedia("(prefers-color-scheme: dark)").matches) {
    script.dataset.theme = "dark";
  }

  const reachable = (button) => {
    if (button.matches("script, a, button") || button.hasAttribute("tabindex")) return;
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
  };

  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) if (node.nodeType === Node.ELEMENT_NODE) reachable(node);
    }
  }).observe(slot, { childList: true });

  new MutationObserver(() => {
    notice.textContent = script.dataset.error ? notice.dataset.notice : "";
  }).observe(script, { attributeFilter: ["data-error"] });
})();
