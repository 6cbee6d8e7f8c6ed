"""Who calls, by which credentials, and which status each deserves: one table for every front door.

issuer = Issuer(folder)     secrets and keys of its own, as files in the folder; what they sign and seal:
    config()                the section [auth] of a server that trusts it
    jwt(sub, roles, alg="HS256", key=None, kid=..., header={}, **claims)     None for a claim leaves it out
    cookie(sub, role, secret=None, **claims)      the value of a session cookie of NextAuth 4
    write_secrets()         puts jwt_secret and nextauth_secret into their files, after a change
callers(issuer, keys)       the table, [Caller]; `keys` is what make_keys returned
    Caller(name, headers, who, from_cookie)   who: NOBODY shows nothing, REFUSED shows what is not accepted,
                            STUDENT and ADMIN are known, with that role alone, NO_ROLE with none
revocations(issuer)         the bodies to POST to /api/admin/revocations before the table holds
admin_headers(issuer)       of a caller who is in nobody's way

prepare(cluster, db, server)   installs the schema, and grants the server's role what `grants print` says
make_keys(cluster, db)      API keys, straight into the table: {name: text}
bearer(token), session(value, name=...), chunks(value, size, name=...)   the header fields, a dict each
"""
import base64
import functools
import hashlib
import hmac
import json
import secrets
import subprocess
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from harness import BINARY, patience

NOBODY, REFUSED, NO_ROLE, STUDENT, ADMIN = "nobody", "refused", "no role", "student", "admin"
IDENTIFIED = {NO_ROLE, STUDENT, ADMIN}

ISSUER, AUDIENCE = "https://login.example.org/", "provost"
COOKIE = "next-auth.session-token"
SECURE_COOKIE = "__Secure-" + COOKIE


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


# ---- header fields -------------------------------------------------------------------------------

def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def session(value, name=COOKIE):
    return {"Cookie": f"theme=dark; {name}={value}; next-auth.csrf-token=abc%7Cdef"}


def chunks(value, size=100, name=COOKIE, without=()):
    pieces = [value[at:at + size] for at in range(0, len(value), size)]
    assert len(pieces) > 1
    return {"Cookie": "; ".join(f"{name}.{n}={piece}" for n, piece in enumerate(pieces) if n not in without)}


def flip(text, at):
    """Another base64url text: the last bit of the character there is turned."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:at] + alphabet[alphabet.index(text[at]) ^ 1] + text[at + 1:]


# ---- whoever makes credentials -------------------------------------------------------------------

def nextauth_key(secret):
    return HKDF(hashes.SHA256(), 32, b"", b"NextAuth.js Generated Encryption Key").derive(secret.encode())


def public_pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def rsa_jwk(key, kid):
    n = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "e": b64(n.e.to_bytes(3, "big")),
            "n": b64(n.n.to_bytes((n.n.bit_length() + 7) // 8, "big"))}


def ec_jwk(key, kid):
    n = key.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "use": "sig",
            "x": b64(n.x.to_bytes(32, "big")), "y": b64(n.y.to_bytes(32, "big"))}


def sign(alg, key, data):
    if alg == "HS256":
        return hmac.new(key, data, hashlib.sha256).digest()
    if alg == "RS256":
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if alg == "ES256":
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return b""


def new_rsa():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def new_ec():
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def first_rsa():
    """What every issuer begins with: a key takes a quarter of a second to make."""
    return new_rsa()


class Issuer:
    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jwt_secret, self.nextauth_secret = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
        self.keys = {"RS256": first_rsa(), "ES256": new_ec()}
        self.kids = {"HS256": None, "RS256": "rsa-1", "ES256": "ec-1"}
        self.jwt_file, self.nextauth_file = folder / "jwt.secret", folder / "nextauth.secret"
        self.jwks_file = folder / "jwks.json"
        self.write_secrets()
        self.write_jwks()

    def write_secrets(self):
        write(self.jwt_file, self.jwt_secret + "\n")
        write(self.nextauth_file, self.nextauth_secret + "\n")

    def write_jwks(self):
        write(self.jwks_file, json.dumps({"keys": [rsa_jwk(self.keys["RS256"], self.kids["RS256"]),
                                                   ec_jwk(self.keys["ES256"], self.kids["ES256"])]}))

    def config(self):
        return {"algorithms": "HS256, RS256, ES256", "jwt_secret_file": self.jwt_file, "jwks_file": self.jwks_file,
                "issuer": ISSUER, "audience": AUDIENCE, "nextauth_secret_file": self.nextauth_file}

    def key(self, alg):
        return self.jwt_secret.encode() if alg == "HS256" else self.keys.get(alg)

    def jwt(self, sub="ada", roles=("admin",), alg="HS256", key=None, kid=..., header=(), **claims):
        head = {"alg": alg, "typ": "JWT", "kid": self.kids.get(alg) if kid is ... else kid, **dict(header)}
        now = int(time.time())
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "roles": list(roles) if isinstance(roles, tuple) else roles,
                "iat": now, "exp": now + 3600, "jti": secrets.token_hex(8), **claims}
        text = ".".join(b64(compact({k: v for k, v in part.items() if v is not None})) for part in (head, body))
        return text + "." + b64(sign(alg, key or self.key(alg), text.encode()))

    def cookie(self, sub="ada", role="ADMIN", secret=None, **claims):
        now = int(time.time())
        body = {"name": "Ada", "email": "ada@example.org", "sub": sub, "role": role, "iat": now, "exp": now + 3600,
                "jti": secrets.token_hex(16), **claims}
        head, iv = b64(compact({"alg": "dir", "enc": "A256GCM"})), secrets.token_bytes(12)
        sealed = AESGCM(nextauth_key(secret or self.nextauth_secret)).encrypt(
            iv, compact({k: v for k, v in body.items() if v is not None}), head.encode())
        return ".".join((head, "", b64(iv), b64(sealed[:-16]), b64(sealed[-16:])))


def write(path, text):
    """As an operator who replaces a file does: whole at once."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)


# ---- the database's part -------------------------------------------------------------------------

def command(server, *words, url=None, check=True):
    env = server.environment()
    if url:
        env["PROVOST_DATABASE_URL"] = url
    done = subprocess.run([BINARY, *words, "--config", server.ini], text=True, capture_output=True, env=env,
                          timeout=patience(60))
    assert not check or done.returncode == 0, done
    return done


def prepare(cluster, db, server):
    owner = cluster.dsn(db)
    command(server, "schema", "install", url=owner)
    grants = command(server, "grants", "print", "--role", "provost_app", url=owner).stdout
    cluster.sql(db, grants.replace("%", "%%"))


ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_key():
    """The text of an API key, and its id."""
    key_id = "".join(secrets.choice(ALPHABET) for _ in range(12))
    return f"pv_{key_id}_{secrets.token_hex(32)[:43]}", key_id


def insert_key(cluster, db, subject, roles, expires="infinity", revoked=None):
    text, key_id = new_key()
    expires = None if expires == "infinity" else expires
    cluster.sql(db, "INSERT INTO provost.api_key (id, digest, subject, roles, expires_at, revoked_at)"
                    " VALUES (%s, %s, %s, %s, now() + %s::interval, now() - %s::interval)",
                key_id, hashlib.sha256(text.encode()).digest(), subject, list(roles), expires, revoked)
    return text


def make_keys(cluster, db):
    return {
        "admin": insert_key(cluster, db, "robot", ["admin"]),
        "student": insert_key(cluster, db, "pupil", ["student"]),
        "expiring": insert_key(cluster, db, "robot", ["admin"], expires="1 day"),
        "expired": insert_key(cluster, db, "robot", ["admin"], expires="-1 second"),
        "revoked": insert_key(cluster, db, "robot", ["admin"], revoked="1 second"),
        "revoked by the API": insert_key(cluster, db, "robot", ["admin"]),
        "of a revoked subject": insert_key(cluster, db, "key of mallory", ["admin"]),
    }


def id_of(key):
    return key.split("_")[1]


# ---- the table -----------------------------------------------------------------------------------

REVOKED_JTI, REVOKED_SUBJECT, REVOKED_USER = "jti-of-a-revoked-token", "mallory", "user of a revoked session"


def admin_headers(issuer):
    return bearer(issuer.jwt("the administrator"))


def revocations(keys):
    return [{"token": REVOKED_JTI}, {"subject": REVOKED_SUBJECT}, {"subject": REVOKED_USER, "forever": True},
            {"token": id_of(keys["revoked by the API"])}, {"subject": "key of mallory"}]


class Caller:
    def __init__(self, name, headers, who):
        self.name, self.headers, self.who = name, headers, who
        self.from_cookie = "Authorization" not in headers and who in IDENTIFIED

    def __repr__(self):
        return f"<{self.name}: {self.who}>"


def _forged(i):
    """JWTs that nobody must take for a caller's."""
    now = int(time.time())
    good = i.jwt()
    head, body, signature = good.split(".")
    other = b64(compact({**json.loads(unb64(body)), "sub": "eve"}))
    unsigned = i.jwt(alg="none")
    pem = public_pem(i.keys["RS256"])
    der = i.keys["RS256"].public_key().public_bytes(serialization.Encoding.DER,
                                                    serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "expired": i.jwt(exp=now - 60, iat=now - 3600),
        "expired, RS256": i.jwt(alg="RS256", exp=now - 60, iat=now - 3600),
        "expired, ES256": i.jwt(alg="ES256", exp=now - 60, iat=now - 3600),
        "without an end": i.jwt(exp=None),
        "its end a text": i.jwt(exp=str(now + 3600)),
        "not yet valid": i.jwt(nbf=now + 3600),
        "issued in the future": i.jwt(iat=now + 3600, exp=now + 7200),
        "another secret": i.jwt(key=b"another secret, of 32 bytes or more"),
        "an empty secret": i.jwt(key=b"\0" * 32),
        "another RSA key": i.jwt(alg="RS256", key=new_rsa()),
        "another EC key": i.jwt(alg="ES256", key=new_ec()),
        "alg none": unsigned,
        "alg None": i.jwt(header={"alg": "None"}),
        "alg none with the signature of another": unsigned + signature,
        "alg of nobody": i.jwt(header={"alg": "HS512"}),
        "no alg": i.jwt(header={"alg": None}),
        "RSA's public key as the secret": i.jwt(key=pem),
        "RSA's public key as the secret, by its kid": i.jwt(key=pem, kid="rsa-1"),
        "RSA's public key as the secret, without a newline": i.jwt(key=pem.strip(), kid="rsa-1"),
        "RSA's public key as the secret, DER": i.jwt(key=der, kid="rsa-1"),
        "EC's public key as the secret": i.jwt(key=public_pem(i.keys["ES256"]), kid="ec-1"),
        "RS256 by the EC key's kid": i.jwt(alg="RS256", kid="ec-1"),
        "with a key of its own": i.jwt(alg="RS256", key=(own := new_rsa()), kid="own",
                                       header={"jwk": rsa_jwk(own, "own"), "jku": "https://eve.example.org/jwks"}),
        "another audience": i.jwt(aud="somebody else"),
        "other audiences": i.jwt(aud=["somebody", "provost2"]),
        "no audience": i.jwt(aud=None),
        "another issuer": i.jwt(iss="https://login.example.com/"),
        "no issuer": i.jwt(iss=None),
        "unknown kid": i.jwt(alg="RS256", kid="rsa-2"),
        "unknown kid, HS256": i.jwt(kid="secret-2"),
        "a tampered payload": f"{head}.{other}.{signature}",
        "a tampered header": f"{b64(compact({'alg': 'HS256', 'typ': 'at+jwt'}))}.{body}.{signature}",
        "a tampered signature": f"{head}.{body}.{flip(signature, 5)}",
        "a signature cut short": good[:-4],
        "another spelling of the signature": good + "=",
        "without a signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "four parts": good + "." + signature,
        "a critical extension": i.jwt(header={"crit": ["exp"]}),
        "no sub": i.jwt(sub=None),
        "an empty sub": i.jwt(sub=""),
        "sub a number": i.jwt(sub=7),
        "revoked by its jti": i.jwt("ada", jti=REVOKED_JTI),
        "revoked by its jti, RS256": i.jwt("ada", alg="RS256", jti=REVOKED_JTI),
        "revoked by its subject": i.jwt(REVOKED_SUBJECT, iat=now - 60),
        "revoked by its subject, no iat": i.jwt(REVOKED_SUBJECT, iat=None),
        "too large": i.jwt(padding="x" * 8192),
    }


def _headers(i, keys):
    now = int(time.time())
    cookie, jwt = i.cookie(), i.jwt()
    wrong_secret = keys["admin"][:-1] + ("0" if keys["admin"][-1] != "0" else "1")
    large = i.cookie(padding="x" * 4000)
    return [
        ("nothing", {}, NOBODY),
        ("other cookies alone", {"Cookie": "theme=dark; sessionid=1; next-auth.csrf-token=x"}, NOBODY),
        ("an API key", bearer(keys["admin"]), ADMIN),
        ("an API key that will expire", bearer(keys["expiring"]), ADMIN),
        ("an API key of a student", bearer(keys["student"]), STUDENT),
        ("an API key, expired", bearer(keys["expired"]), REFUSED),
        ("an API key, revoked", bearer(keys["revoked"]), REFUSED),
        ("an API key, revoked by the API", bearer(keys["revoked by the API"]), REFUSED),
        ("an API key of a revoked subject", bearer(keys["of a revoked subject"]), REFUSED),
        ("an API key with a wrong secret", bearer(wrong_secret), REFUSED),
        ("an API key that nobody made", bearer(new_key()[0]), REFUSED),
        ("an API key cut short", bearer(keys["admin"][:-1]), REFUSED),
        ("an API key as the cookie", session(keys["admin"]), REFUSED),
        ("bearer in capitals", {"Authorization": f"BEARER   {jwt}"}, ADMIN),
        ("no scheme", {"Authorization": jwt}, REFUSED),
        ("another scheme", {"Authorization": "Basic YWRtaW46YWRtaW4="}, REFUSED),
        ("an empty Authorization", {"Authorization": ""}, REFUSED),
        ("a scheme without a token", {"Authorization": "Bearer"}, REFUSED),
        ("two tokens in one field", {"Authorization": f"Bearer {jwt}, Bearer {jwt}"}, REFUSED),
        ("a malformed Authorization beside a good cookie", {"Authorization": "Bearer ?", **session(cookie)}, REFUSED),
        ("a forged token beside a good cookie", {**bearer(flip(jwt, -3)), **session(cookie)}, REFUSED),
        ("a student's token beside an admin's cookie", {**bearer(i.jwt("stu", ["student"])), **session(cookie)}, STUDENT),
        ("a token beside a forged cookie", {**bearer(jwt), **session(flip(cookie, -3))}, ADMIN),
        ("a cookie", session(cookie), ADMIN),
        ("a secure cookie", session(cookie, SECURE_COOKIE), ADMIN),
        ("a cookie in chunks", chunks(cookie), ADMIN),
        ("a secure cookie in chunks", chunks(cookie, name=SECURE_COOKIE), ADMIN),
        ("a large cookie in chunks", chunks(large, 3933), ADMIN),
        ("a student's cookie", session(i.cookie("stu", "Student")), STUDENT),
        ("a cookie without a role", session(i.cookie("norma", None)), NO_ROLE),
        ("a cookie with its first chunk missing", chunks(cookie, without=[0]), REFUSED),
        ("a cookie with a chunk missing", chunks(cookie, without=[1]), REFUSED),
        ("a cookie with its last chunk missing", chunks(cookie, without=[(len(cookie) - 1) // 100]), REFUSED),
        ("a cookie of another secret", session(i.cookie(secret="another secret of theirs")), REFUSED),
        ("a cookie of JWT's secret", session(i.cookie(secret=i.jwt_secret)), REFUSED),
        ("a cookie that was tampered with", session(flip(cookie, -40)), REFUSED),
        ("a cookie with a flipped tag", session(flip(cookie, -3)), REFUSED),
        ("a cookie, expired", session(i.cookie(exp=now - 60, iat=now - 3600)), REFUSED),
        ("a cookie, not yet valid", session(i.cookie(nbf=now + 3600)), REFUSED),
        ("a cookie without sub", session(i.cookie(None)), REFUSED),
        ("a cookie, revoked by its jti", session(i.cookie(jti=REVOKED_JTI)), REFUSED),
        ("a cookie, revoked by its subject", session(i.cookie(REVOKED_USER)), REFUSED),
        ("a cookie that is there twice", {"Cookie": f"{COOKIE}={cookie}; {COOKIE}={cookie}"}, REFUSED),
        ("a bad secure cookie before a good one", {"Cookie": f"{SECURE_COOKIE}=x; {COOKIE}={cookie}"}, REFUSED),
        ("a JWT as the cookie", session(jwt), REFUSED),
        ("a cookie's value as the token", bearer(cookie), REFUSED),
    ]


def callers(i, keys):
    found = [Caller(*row) for row in _headers(i, keys)]
    for alg in ("HS256", "RS256", "ES256"):
        found += [Caller(f"{alg}, admin", bearer(i.jwt("ada", ["admin"], alg)), ADMIN),
                  Caller(f"{alg}, admin in capitals", bearer(i.jwt("ada", "ADMIN other", alg)), ADMIN),
                  Caller(f"{alg}, student", bearer(i.jwt("stu", ["Student"], alg)), STUDENT),
                  Caller(f"{alg}, no role", bearer(i.jwt("norma", [], alg)), NO_ROLE),
                  Caller(f"{alg}, no roles at all", bearer(i.jwt("norma", None, alg)), NO_ROLE)]
    found.append(Caller("several audiences", bearer(i.jwt(aud=["other", AUDIENCE])), ADMIN))
    # By a clock that may be ahead as much.
    found.append(Caller("issued within the leeway after the subject was revoked",
                        bearer(i.jwt(REVOKED_SUBJECT, iat=int(time.time()) + 10)), REFUSED))
    found += [Caller(f"a JWT: {name}", bearer(token), REFUSED) for name, token in _forged(i).items()]
    assert len({c.name for c in found}) == len(found)
    return found


# For parametrisation, before anything is made: names only.
def names():
    import pathlib
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        keys = dict.fromkeys(("admin", "student", "expiring", "expired", "revoked", "revoked by the API",
                              "of a revoked subject"), "pv_aaaaaaaaaaaa_" + "x" * 43)
        return [c.name for c in callers(Issuer(pathlib.Path(folder)), keys)]
