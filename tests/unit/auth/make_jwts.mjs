// Makes jwts.json: keys and tokens by node's crypto, for tests/unit/test_auth_jwt.c. `node make_jwts.mjs
// >jwts.json`; new ones each time.
import { createHmac, generateKeyPairSync, randomBytes, sign } from "node:crypto";

const b64 = (x) => Buffer.from(x).toString("base64url");
const secret = randomBytes(36).toString("base64");
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const other = generateKeyPairSync("rsa", { modulusLength: 2048 });
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" });
const small = generateKeyPairSync("rsa", { modulusLength: 1024 });

const jwk = (k, more) => ({ ...k.publicKey.export({ format: "jwk" }), ...more });
const pem = (k) => k.publicKey.export({ format: "pem", type: "spki" });

const claims = {
  iss: "https://issuer.example.org",
  aud: ["other", "provost"],
  sub: "user-1",
  iat: 1700000000,
  exp: 1900000000,
  jti: "token-1",
  realm_access: { roles: ["Admin", "editor"] },
  scope: "read write",
};
const signers = {
  HS256: (s) => createHmac("sha256", secret).update(s).digest(),
  RS256: (s) => sign("sha256", s, rsa.privateKey),
  ES256: (s) => sign("sha256", s, { key: ec.privateKey, dsaEncoding: "ieee-p1363" }),
  none: () => Buffer.alloc(0),
  other: (s) => sign("sha256", s, other.privateKey),
  der: (s) => sign("sha256", s, ec.privateKey),
  // The public key's PEM as if it were a secret.
  confused: (s) => createHmac("sha256", pem(rsa)).update(s).digest(),
};
function token(header, signer, body = claims) {
  const text = `${b64(JSON.stringify(header))}.${b64(JSON.stringify(body))}`;
  return `${text}.${signers[signer](Buffer.from(text)).toString("base64url")}`;
}

console.log(JSON.stringify({
  secret,
  claims,
  pem: { rsa: pem(rsa), ec: pem(ec), p384: pem(p384), small: pem(small) },
  jwks: { keys: [
    jwk(rsa, { kid: "rsa-1", use: "sig", alg: "RS256" }),
    jwk(ec, { kid: "ec-1" }),
    jwk(other, { kid: "enc-1", use: "enc" }),
    jwk(p384, { kid: "p384-1" }),
  ] },
  tokens: {
    hs256: token({ alg: "HS256", typ: "JWT" }, "HS256"),
    rs256: token({ alg: "RS256", typ: "JWT", kid: "rsa-1" }, "RS256"),
    rs256_no_kid: token({ alg: "RS256" }, "RS256"),
    es256: token({ alg: "ES256", typ: "at+jwt", kid: "ec-1" }, "ES256"),
    none: token({ alg: "none", typ: "JWT" }, "none"),
    wrong_key: token({ alg: "RS256", kid: "rsa-1" }, "other"),
    unknown_kid: token({ alg: "RS256", kid: "rsa-2" }, "RS256"),
    confused: token({ alg: "HS256", kid: "rsa-1" }, "confused"),
    confused_no_kid: token({ alg: "HS256" }, "confused"),
    es256_der: token({ alg: "ES256", kid: "ec-1" }, "der"),
  },
}, null, 1));
