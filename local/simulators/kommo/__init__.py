"""Kommo, as developers.kommo.com describes it: consent, tokens, the contacts API, webhooks, rate limits.

Source pages: oauth-20, get-token, button-on-site, contacts-list, companies-list, webhooks-general, limitations; and captured
events. docs/fidelity.md lists the source of each payload.
"""
