// What https://developers.kommo.com/docs/button-on-site says of Kommo's button script, as far as a page can notice it:
// at window.onload it puts a <div onclick> styled by attributes beside each script of class kommo_oauth; a click opens the
// consent page in a second window; a message {client_id, error} marks the script, a message {url} moves this window.
window.onload = function () {
  document.querySelectorAll(".kommo_oauth").forEach(function (script) {
    var light = script.dataset.theme === "dark";
    var fore = light ? "#0e0142" : "#ffffff";
    var back = light ? "#ffffff" : "#0e0142";
    var button = document.createElement("div");
    button.className = script.dataset.className || "kommo-oauth";
    button.innerHTML =
      '<div style="display: flex; align-items: center; justify-content: center; width: 38px; height: 38px; color: ' + fore + '">K</div>' +
      '<span style="padding: 0 8px 0 6px; font: 700 16px Roboto, Helvetica, Arial, sans-serif; color: ' + fore + '">' +
      script.dataset.title + "</span>";
    button.style = "display: inline-flex; align-items: center; box-sizing: border-box; height: 42px; cursor: pointer; " +
      "border: 2px solid " + back + "; border-radius: 4px; background: " + back;
    script.parentNode.insertBefore(button, script);
    button.onclick = function () {
      window.open(
        "https://www.kommo.com/oauth/?state=" + script.dataset.state + "&mode=" + script.dataset.mode +
        "&origin=" + window.location.href + "&client_id=" + script.dataset.clientId,
        "Grant access for integration", "width=1024, height=620"
      );
    };
  });
  window.addEventListener("message", function (event) {
    document.querySelectorAll(".kommo_oauth").forEach(function (script) {
      if (event.data.client_id && event.data.client_id === script.dataset.clientId) script.dataset.error = event.data.error;
    });
    if (event.data.url) window.location = event.data.url;
  });
};
