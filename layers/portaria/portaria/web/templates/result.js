"use strict";
// Follows the install until it is connected or failed, without a reload. The server has put every view into the page as a
// template; only the account's name and an unforeseen reason are filled in, as text.
(() => {
  const FIRST_WAIT_MS = 1_000;
  const LONGEST_WAIT_MS = 5_000;
  const ANSWER_TIMEOUT_MS = 10_000;
  const LONG_AFTER_MS = 60_000;
  const STOP_AFTER_MS = 30 * 60_000; // a code lives 20 minutes, so by then the install has long ended

  const texts = document.currentScript.dataset;
  const main = document.querySelector("main");
  let wait = FIRST_WAIT_MS;
  let timer = 0;
  let asking = false;
  let ended = false;

  const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

  const note = (text) => {
    const notice = main.querySelector(".notice");
    if (notice) notice.textContent = text;
  };

  const name = (account) => {
    if (typeof account !== "string" || !account) return;
    main.querySelector('[data-slot="account"]').textContent = account;
    main.querySelector(".account").hidden = false;
  };

  const show = (state, reason) => {
    const views = [...document.querySelectorAll(`template[data-state="${state}"]`)];
    const exact = views.find((view) => view.dataset.reason === reason);
    const view = (exact || views.at(-1));
    const content = view.content.cloneNode(true);
    const slot = content.querySelector('[data-slot="reason"]');
    if (slot && !exact) slot.textContent = reason;
    for (const place of ["status", "rest"]) part(main, place).replaceChildren(...part(content, place).childNodes);
    main.dataset.state = state;
    document.title = view.dataset.title;
  };

  const ask = async () => {
    if (asking || ended) return;
    asking = true;
    clearTimeout(timer);
    const timeout = new AbortController();
    const deadline = setTimeout(() => timeout.abort(), ANSWER_TIMEOUT_MS);
    try {
      const answer = await fetch(location.href, {
        headers: { Accept: "application/json" },
        cache: "no-store",
        credentials: "same-origin",
        signal: timeout.signal,
      });
      if (answer.ok) follow(await answer.json());
    } catch {
      // No network or no JSON this time: the install goes on without us, so ask again.
    } finally {
      clearTimeout(deadline);
      asking = false;
    }
    if (ended) return;
    timer = setTimeout(ask, wait);
    wait = Math.min(wait * 1.5, LONGEST_WAIT_MS);
  };

  // Back to the application's page, whose URL the server has checked again for this answer.
  const goBack = (state, url) => {
    const back = part(main, "back");
    if (!back) {
      location.replace(url);
      return;
    }
    back.querySelector("a").href = url;
    back.hidden = false;
    endInPopup(state, url);
  };

  const follow = ({ state, reason, account, return_to: url }) => {
    name(account);
    if (state !== "connected" && state !== "failed") return;
    ended = true;
    show(state, String(reason || ""));
    if (typeof url === "string" && url) goBack(state, url);
  };

  timer = setTimeout(ask, wait);
  setTimeout(() => { if (!ended) note(texts.long); }, LONG_AFTER_MS);
  setTimeout(() => { if (!ended) { ended = true; clearTimeout(timer); note(texts.stopped); } }, STOP_AFTER_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
})();
