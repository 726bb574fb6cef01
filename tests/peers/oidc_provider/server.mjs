// npm's oidc-provider as an authorization server of one client of each grant, on a loopback port behind the local proxy.
// Settings come as JSON in the environment variable PEER; `/_control` changes lives, scopes and the clock.
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const { issuer, clients } = JSON.parse(process.env.PEER);
const control = { access_s: 3600, refresh_s: 86400, offset_s: 0, scopes: null };
const now = Date.now;
Date.now = () => now() + control.offset_s * 1000;

const provider = new Provider(issuer, {
  clients: clients.map((client) => ({
    client_id: client.client_id,
    client_secret: client.client_secret,
    token_endpoint_auth_method: `client_secret_${client.token_auth}`,
    redirect_uris: client.redirect_uri ? [client.redirect_uri] : [],
    response_types: client.redirect_uri ? ['code'] : [],
    grant_types: client.redirect_uri ? ['authorization_code', 'refresh_token'] : ['client_credentials'],
    scope: client.scopes,
  })),
  scopes: ['openid', 'read', 'write'],
  features: {
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    devInteractions: { enabled: true },
  },
  pkce: { required: () => true },
  issueRefreshToken: async () => true,
  expiresWithSession: () => false,
  rotateRefreshToken: () => true,
  // A grant may give fewer scopes than were asked for.
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope(control.scopes ?? 'openid read write');
    if (control.scopes) grant.rejectOIDCScope(['read', 'write'].filter((s) => !control.scopes.includes(s)).join(' '));
    await grant.save();
    return grant;
  },
  ttl: {
    AccessToken: () => control.access_s,
    ClientCredentials: () => control.access_s,
    RefreshToken: () => control.refresh_s,
    AuthorizationCode: 60,
    Interaction: 600,
    Session: 86400,
    Grant: 86400,
  },
  findAccount: async (ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
  cookies: { keys: ['peer'] },
});
provider.proxy = true;

const serve = provider.callback();
const server = createServer((request, response) => {
  if (request.url === '/_control') {
    let text = '';
    request.on('data', (part) => { text += part; });
    request.on('end', async () => {
      const { end_access_token: ended, ...changes } = JSON.parse(text || '{}');
      if (ended) await (await provider.AccessToken.find(ended)).destroy();
      Object.assign(control, changes);
      response.end(JSON.stringify(control));
    });
    return;
  }
  // The proxy ends TLS.
  request.headers['x-forwarded-proto'] = 'https';
  serve(request, response);
});
server.listen(0, '127.0.0.1', () => console.log(`ready ${server.address().port}`));
