// Live refresh, copy buttons and the focus after an error. Every page works without this script.
"use strict";

for (const notice of document.querySelectorAll("[data-focus]")) notice.focus();

for (const input of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = input.dataset.copy;
  button.addEventListener("click", async () => {
    input.select();
    await navigator.clipboard.writeText(input.value);
    button.textContent = input.dataset.copied;
  });
  input.after(button);
}

// A part of the page is fetched again while it is visible. A focused link keeps the focus; a form that is in use is left alone.
for (const part of document.querySelectorAll("[data-refresh]")) {
  const focused = () => (part.contains(document.activeElement) ? document.activeElement : null);
  const isInUse = () => document.hidden || (focused() !== null && !focused().matches("a[href]"));
  const refresh = async () => {
    if (isInUse()) return;
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (response.status === 401) location.reload();
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").querySelector("[data-refresh]");
    if (!fresh || isInUse()) return;
    const link = focused()?.getAttribute("href");
    part.replaceChildren(...fresh.childNodes);
    if (link) [...part.querySelectorAll("a")].find((each) => each.getAttribute("href") === link)?.focus({ preventScroll: true });
  };
  setInterval(() => refresh().catch(() => {}), Number(part.dataset.refresh) * 1000);
}

// The mapping editor shows what the sample record becomes while a person types. The same form without this script has a button.
for (const form of document.querySelectorAll("form[data-preview]")) {
  const result = document.querySelector("[data-preview-result]");
  let timer, asked = 0;
  const preview = async () => {
    if (!form.elements.record.value.trim()) return;
    const body = new URLSearchParams(new FormData(form));
    const turn = ++asked;
    body.set("do", "preview");
    const response = await fetch(location.pathname, { method: "POST", body });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.querySelector("[data-preview-result]");
    if (fresh && turn === asked) result.replaceChildren(...fresh.childNodes);
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => preview().catch(() => {}), 600);
  });
}
