"use strict";
// Ends an install in a popup window: tells the window that opened it how the install ended, and closes. Where no such window
// is left, the customer goes on in this one. The message has no secret, and its receiver is one registered origin.
const endInPopup = (() => {
  const CLOSE_TIMEOUT_MS = 1_000;
  const { origin, install } = document.currentScript.dataset;

  return (status, url) => {
    if (!window.opener) {
      location.replace(url);
      return;
    }
    const message = { type: "portaria.install", status };
    if (install) message.install = install;
    window.opener.postMessage(message, origin);
    window.close();
    // A browser may refuse to close a window that has a history.
    setTimeout(() => location.replace(url), CLOSE_TIMEOUT_MS);
  };
})();
