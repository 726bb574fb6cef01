"""Any OAuth 2.0 provider. https://www.rfc-editor.org/rfc/rfc6749"""

from __future__ import annotations

from portaria.platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.platforms import protocols


class OAuth2(Platform):
    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        from portaria.platforms.oauth2 import tokens

        return tokens

    @property
    def log_in(self) -> protocols.LogIn:
        from portaria.platforms.oauth2 import tokens

        return tokens

    @property
    def install(self) -> protocols.InstallCallbacks:
        from portaria.platforms.oauth2 import install

        return install

    @property
    def authorization_links(self) -> protocols.AuthorizationLinks:
        from portaria.platforms.oauth2 import install

        return install

    @property
    def token_endpoint(self) -> protocols.TokenEndpoint:
        from portaria.platforms.oauth2 import tokens

        return tokens

    @property
    def provider_clients(self) -> protocols.ProviderClients:
        from portaria.platforms.oauth2 import tokens

        return tokens


PLATFORM = OAuth2("oauth2")
