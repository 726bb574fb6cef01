"""Kommo's consent page, and the button script that opens it."""

from __future__ import annotations

import html
import json
from urllib.parse import urlencode

from aiohttp import web

from local.simulators.kommo.responses import problem
from local.simulators.kommo.state import State
from local.simulators.world import Route


class ConsentPage:
    def __init__(self, state: State) -> None:
        self.state = state

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/oauth", self.show),
            Route("GET", "/oauth/", self.show),
            Route("POST", "/oauth/decision", self.decide),
            Route("GET", "/auth/button.js", self.button_script),
        ]

    async def show(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        client = self.state.clients.get(request.query.get("client_id", ""))
        if client is None:
            return web.Response(status=404, text="<h1>Integration not found</h1>", content_type="text/html")
        choices = "".join(
            f'<option value="{html.escape(host)}">{html.escape(account.name)} ({html.escape(host)})</option>'
            for host, account in self.state.accounts.items()
        )
        kept = "".join(
            f'<input type="hidden" name="{name}" value="{html.escape(request.query.get(name, ""))}">'
            for name in ("client_id", "state", "mode")
        )
        page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Kommo (simulator)</title>
<style>body{{font:16px sans-serif;max-width:28rem;margin:3rem auto;padding:0 1rem}}
button,select{{font:inherit;padding:.5rem}}</style>
<h1>Allow {html.escape(client.name)} to use your account?</h1>
<form method="post" action="/oauth/decision">{kept}<input type="hidden" name="opener" value="">
<p><label>Account <select name="account">{choices}</select></label>
<p><button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>
<script>if (window.opener) document.forms[0].opener.value = "1"</script></html>"""
        return web.Response(text=page, content_type="text/html")

    async def decide(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        form = await request.post()
        client = self.state.clients.get(str(form.get("client_id")))
        host = str(form.get("account"))
        if client is None or (form.get("decision") == "allow" and host not in self.state.accounts):
            return problem(404, "Not Found")
        state = {"state": str(form["state"])} if form.get("state") else {}
        if form.get("decision") == "allow":
            answer = {"code": self.state.issue_code(client.client_id, host), **state, "referer": host}
        else:
            answer = {"error": "access_denied", **state}
        separator = "&" if "?" in client.redirect_uri else "?"
        url = f"{client.redirect_uri}{separator}{urlencode({**answer, 'client_id': client.client_id})}"
        if form.get("opener") and form.get("mode") == "popup":
            script = f"window.opener.location.href = {json.dumps(url)}; window.close()".replace("</", "<\\/")
            return web.Response(
                text=f"<!doctype html><title>Kommo</title><script>{script}</script>", content_type="text/html"
            )
        return web.Response(status=303, headers={"Location": url})

    async def button_script(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        return web.Response(text=BUTTON_SCRIPT, content_type="text/javascript")


# Like https://www.kommo.com/auth/button.js: adds a button after each script element. The button opens the consent page.
BUTTON_SCRIPT = """(function () {
  document.querySelectorAll("script.kommo_oauth").forEach(function (script) {
    var data = script.dataset;
    if (data.rendered) return;
    data.rendered = "1";
    var button = document.createElement("button");
    button.type = "button";
    button.className = data.className || "kommo-oauth";
    button.textContent = data.title || "Connect with Kommo";
    button.addEventListener("click", function () {
      var query = new URLSearchParams({client_id: data.clientId, state: data.state || "", mode: data.mode || "popup"});
      var opened = window.open("https://www.kommo.com/oauth?" + query, "kommo_oauth", "width=750,height=580");
      if (!opened) window.location.href = "https://www.kommo.com/oauth?" + query;
    });
    script.parentNode.insertBefore(button, script.nextSibling);
  });
})();
"""
