"""The simulated platforms of one local cloud."""

from __future__ import annotations

from local.simulators.adobe_io import AdobeIO
from local.simulators.engage import Engage
from local.simulators.kommo.simulator import Kommo
from local.simulators.leadconnector import LeadConnector
from local.simulators.marketo.simulator import Marketo
from local.simulators.oauth2 import OAuth2
from local.simulators.serving import Front
from local.simulators.world import World


class Platforms:
    """All simulators, the world that they share, and the front that dispatches the platforms' requests to them."""

    def __init__(self, proxy_url: str) -> None:
        self.proxy_url = proxy_url
        self.reset()

    def reset(self) -> None:
        """Replace everything with empty simulators in a new world."""
        self.world = World()
        self.kommo = Kommo(self.world, self.proxy_url)
        self.marketo = Marketo(self.world)
        self.leadconnector = LeadConnector(self.world)
        self.engage = Engage(self.world)
        self.oauth2 = OAuth2(self.world)
        self.adobe = AdobeIO(self.world, self.proxy_url)
        self.connect()

    def connect(self) -> None:
        """Dispatch the platforms' requests to the present simulators."""
        self.front = Front(
            self.world, [self.kommo, self.marketo, self.oauth2, self.leadconnector, self.engage, self.adobe]
        )
