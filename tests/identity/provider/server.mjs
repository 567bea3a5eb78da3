// An OpenID provider for the tests: node server.mjs PORT REDIRECT_URI POST_LOGOUT_URI PEOPLE_FILE KEY_NAME
// PEOPLE_FILE is JSON, {"alice": {"preferred_username": "alice", "groups": ["plant-admins"]}}, and is read again at each
// sign-in. Who signs in is the account in the file `PEOPLE_FILE.current`; nobody has to click anything.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, redirectUri, postLogoutUri, peopleFile, keyName] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const people = () => JSON.parse(readFileSync(peopleFile, 'utf8'));

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'authsvc',
    client_secret: 'a client secret/with ?& signs',
    redirect_uris: [redirectUri],
    post_logout_redirect_uris: [postLogoutUri],
  }],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: keyName, use: 'sig', alg: 'RS256' }] },
  cookies: { keys: ['tests'] },
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true, methods: ['S256'] },
  features: { devInteractions: { enabled: false } },
  findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id, ...people()[id] }) }),
  ttl: { AccessToken: 60, AuthorizationCode: 60, IdToken: 60, Interaction: 60, Session: 600, Grant: 600 },
});

async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  const accountId = session?.accountId ?? readFileSync(`${peopleFile}.current`, 'utf8').trim();
  if (accountId === '') {
    return provider.interactionFinished(request, response, { error: 'access_denied' });
  }
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = prompt.name === 'login' ? { login: { accountId } } : { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, result);
}

const answer = provider.callback();
createServer((request, response) => (
  request.url.startsWith('/interaction/') ? interact(request, response) : answer(request, response)
)).listen(Number(port), '127.0.0.1', () => console.log('ready'));
