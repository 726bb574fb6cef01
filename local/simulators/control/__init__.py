"""The simulators' control API: plain JSON over HTTP, on loopback. `local.control.Control` is its client.

`application` serves it. Each other module documents and implements the calls of one part: `world` those that concern all
simulators, the others those of one platform. A request that the simulators cannot fulfil is answered with 400 and `error`.
"""
