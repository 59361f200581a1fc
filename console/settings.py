"""Settings, all from the environment. `docs/settings.md` lists the variables.

Database roles: `DATABASE_URL` is the plain role that serves pages, `DATABASE_ENGINE_URL` the plain role of engines and jobs, and
`DATABASE_OWNER_URL` migrates and never serves. `SIGNALBOX_ROLE` (web, engine, jobs; else a command) says which process this is.
"""

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("SIGNALBOX_HOME") or BASE_DIR / ".signalbox")
ROLE = os.environ.get("SIGNALBOX_ROLE") or "command"
PORT = int(os.environ.get("PORT") or 8000)
PUBLIC_URL = (os.environ.get("PUBLIC_URL") or f"http://127.0.0.1:{PORT}").rstrip("/")
DEBUG = False
DEMO = os.environ.get("SIGNALBOX_DEMO") == "1"
SANDBOX_URL = os.environ.get("SANDBOX_URL") or f"http://127.0.0.1:{PORT + 1009}"


def kept_secret(name: str) -> str:
    """A secret made once and kept in the state folder with mode 0600."""
    path = HOME / name
    if not path.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(48))
    return path.read_text()


SECRET_KEY = os.environ.get("SECRET_KEY") or kept_secret("secret")
# Fernet keys that seal credentials, newest first, separated by commas. Kept apart from the database.
SEALING_KEYS = os.environ.get("SEALING_KEYS", "")
# Ed25519 keys that sign the audit trail's checkpoints, newest first, and the file that has a copy of each checkpoint.
AUDIT_SIGNING_KEYS = os.environ.get("AUDIT_SIGNING_KEYS", "")
AUDIT_CHECKPOINTS = Path(os.environ.get("SIGNALBOX_AUDIT_CHECKPOINTS") or HOME / "audit-checkpoints.jsonl")

_url = urlsplit(PUBLIC_URL)
ALLOWED_HOSTS = [
    h
    for h in {
        _url.hostname or "127.0.0.1",
        "127.0.0.1",
        "localhost",
        "[::1]",
        *os.environ.get("ALLOWED_HOSTS", "").split(","),
    }
    if h
]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

INSTALLED_APPS = [
    "tenants",
    "tools",
    "approvals",
    "runs",
    "console",
    "console.site.SiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_q",
    "template_partials",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
]

MIDDLEWARE = [
    "console.csp.SecurityHeaders",
    "console.static_files.StaticFiles",
    "console.api.gateway.RequestIdentity",
    "console.api.gateway.RequestLimits",
    "console.request_scope.RequestScope",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "console.urls"
ASGI_APPLICATION = "console.asgi.application"
AUTH_USER_MODEL = "tenants.User"
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "console.pages.shell.context",
            ],
        },
    }
]


def database(url: str, *, pool: bool = False) -> dict[str, Any]:
    """A libpq URL -> Django's settings for it. The pool is for web only: forks must not share sockets."""
    parts = {k: str(v) for k, v in conninfo_to_dict(url).items() if v is not None}
    options: dict[str, Any] = {k: v for k, v in parts.items() if k not in {"dbname", "user", "password", "host", "port"}}
    # A process frozen inside a transaction must not keep a run's row from everybody else for ever.
    options["options"] = f"{options.get('options', '')} -c idle_in_transaction_session_timeout=10s".strip()
    if pool:
        options["pool"] = {"min_size": 2, "max_size": 8, "timeout": 10}
    return {
        "ENGINE": "tenants.postgresql",
        "NAME": parts.get("dbname", ""),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
        "CONN_MAX_AGE": None if ROLE == "engine" else 0,  # web: each request is a new thread; engines keep their four
        "DISABLE_SERVER_SIDE_CURSORS": ROLE not in {"engine", "jobs"},  # a tenant scope goes with each statement
        "OPTIONS": options,
    }


def database_urls() -> dict[str, str]:
    """From the environment; else those of the embedded database, so that a second terminal reaches what `make run` started."""
    if os.environ.get("DATABASE_URL") or not (HOME / "dev.json").exists():
        return dict(os.environ)
    from .postgres import Cluster

    return Cluster(HOME).urls().environment()


_urls = database_urls()
WEB_URL = _urls.get("DATABASE_URL") or "postgresql:///signalbox"
ENGINE_URL = _urls.get("DATABASE_ENGINE_URL") or WEB_URL
OWNER_URL = _urls.get("DATABASE_OWNER_URL") or WEB_URL
PLAIN_URL = WEB_URL if ROLE == "web" else ENGINE_URL
DATABASES = {
    "default": database(PLAIN_URL, pool=ROLE == "web" and os.environ.get("SIGNALBOX_POOL") == "1"),
    "owner": database(OWNER_URL),
}

SESSION_ENGINE = "console.entry.sessions"
SESSION_IDLE_S = int(os.environ.get("SIGNALBOX_SESSION_IDLE_S") or 1800)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _url.scheme == "https"
if _url.scheme == "https":
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
SECURE_HSTS_SECONDS = 365 * 86_400 if _url.scheme == "https" else 0

# Everybody above viewer needs a second factor. By default where people come by https, and not in the demo.
REQUIRE_MFA = (os.environ.get("REQUIRE_MFA") or ("1" if _url.scheme == "https" and not DEMO else "0")) == "1"
# Second factors and the identity provider are allauth's; its own pages have no address here.
MFA_ADAPTER = "console.entry.factors.Adapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_TOTP_ISSUER = "Signalbox"
MFA_TOTP_TOLERANCE = 1
MFA_RECOVERY_CODE_DIGITS = 10
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_DEFAULT_HTTP_PROTOCOL = _url.scheme
SOCIALACCOUNT_ADAPTER = "console.entry.oidc.Adapter"
SOCIALACCOUNT_LOGIN_ON_GET = True  # a form may not lead to another site (CSP); `console.entry.oidc.begin` turns foreign links away
OIDC_ISSUER = os.environ.get("OIDC_ISSUER", "").rstrip("/")
OIDC_NAME = os.environ.get("OIDC_NAME") or "your identity provider"
_provider = {
    "provider_id": "oidc",
    "name": OIDC_NAME,
    "client_id": os.environ.get("OIDC_CLIENT_ID", ""),
    "secret": os.environ.get("OIDC_CLIENT_SECRET", ""),
    "settings": {"server_url": OIDC_ISSUER},
}
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [_provider] if OIDC_ISSUER else []}}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Messages may hold a fresh API key: never in a table.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = Path(os.environ.get("SIGNALBOX_STATIC") or HOME / "static")
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if os.environ.get("SIGNALBOX_MANIFEST") == "1"
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = os.environ.get("SIGNALBOX_MANIFEST") != "1"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1 << 20

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "console.api.identity.ApiKeyAuthentication",
        "console.api.identity.ConsoleSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["console.api.gateway.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "console.api.problems.handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Signalbox",
    "DESCRIPTION": "Submit agent runs, decide approvals, manage tools and releases.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
}

# Requests a second of one API key or one person, of a tenant's together, and tries at signing in from one address; ten seconds' worth at
# once. 0: no limit.
RATE_LIMITS = {
    "read": float(os.environ.get("SIGNALBOX_RATE_READ") or 300),
    "write": float(os.environ.get("SIGNALBOX_RATE_WRITE") or 100),
    "start": float(os.environ.get("SIGNALBOX_RATE_START") or 100),
    "tenant": float(os.environ.get("SIGNALBOX_RATE_TENANT") or 1000),
    "sign_in": float(os.environ.get("SIGNALBOX_RATE_SIGN_IN") or 5),
}

REDIS_URL = os.environ.get("REDIS_URL", "")
Q_CLUSTER: dict[str, Any] = {
    "name": "signalbox",
    "workers": 2,
    "timeout": 60,
    "retry": 120,
    "max_attempts": 3,
    "ack_failures": True,
    "save_limit": -1,
    "catch_up": False,
    "poll": 1,
    "label": "Jobs",
}
Q_CLUSTER |= {"redis": REDIS_URL} if REDIS_URL else {"orm": "default"}

SIGNALBOX_TOOL_MODULES = [m for m in os.environ.get("SIGNALBOX_TOOL_MODULES", "").split(",") if m]
# Seconds. The lease is the engine's; tests shorten it.
LEASE_TTL_S = float(os.environ.get("SIGNALBOX_LEASE_TTL_S") or 30)
APPROVAL_EXECUTE_WITHIN_S = float(os.environ.get("SIGNALBOX_APPROVAL_EXECUTE_WITHIN_S") or 900)
SCORE_SHARE = float(os.environ.get("SIGNALBOX_SCORE_SHARE") or 0.2)  # of the runs that end: those whose path is scored
APPROVAL_EXPIRY_S = float(os.environ.get("SIGNALBOX_APPROVAL_EXPIRY_S") or 3600)
ENGINE_SLOTS = int(os.environ.get("SIGNALBOX_ENGINE_SLOTS") or 1000)

# E-mail of channels. Without a host letters are printed where the jobs process prints.
EMAIL_HOST = os.environ.get("EMAIL_HOST", "")
EMAIL_PORT = int(os.environ.get("EMAIL_PORT") or 25)
EMAIL_HOST_USER = os.environ.get("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = os.environ.get("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = os.environ.get("EMAIL_USE_TLS") == "1"
DEFAULT_FROM_EMAIL = os.environ.get("EMAIL_FROM") or "signalbox@localhost"
EMAIL_TIMEOUT = 10
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'console'}.EmailBackend"

# Telemetry: the standard's own names. Without an endpoint nothing leaves.
OTEL_ENDPOINT = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
OTEL_HEADERS = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
OTEL_PROTOCOL = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
OTEL_SERVICE_NAME = os.environ.get("OTEL_SERVICE_NAME") or "signalbox"
OTEL_CONTENT = os.environ.get("SIGNALBOX_OTEL_CONTENT") == "1"
OTEL_BUFFER_S = float(os.environ.get("SIGNALBOX_OTEL_BUFFER_S") or 86_400)

LOGGING_CONFIG = "console.logs.configure"  # leaves out the secrets that this process has opened
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("SIGNALBOX_LOG_LEVEL", "INFO")},
    "loggers": {"aiohttp.access": {"level": "WARNING"}, "uvicorn.access": {"level": "WARNING"}},
}
SILENCED_SYSTEM_CHECKS = ["security.W001"]  # `console.csp.SecurityHeaders` sends those headers, the static files' too; TLS ends at a proxy
