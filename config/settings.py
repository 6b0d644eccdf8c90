"""Every setting of Meterbook, read once, here, from the environment (or a `.env` file beside `manage.py`).

A wrong value stops the start with one sentence; nothing secret has a default. `make run` (config/up) makes a
secret key on its first start and passes it on.
"""

import sys
import zoneinfo
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import environ
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from config import embedded
from config.unfold import UNFOLD as UNFOLD  # the admin's look, its menu and its start page

BASE_DIR = Path(__file__).resolve().parent.parent
TESTING = "pytest" in sys.modules

env = environ.Env()
if not TESTING:  # the suite must mean the same on every machine
    environ.Env.read_env(BASE_DIR / ".env")

# Where the embedded database, its secret key and other things that outlive a restart are kept.
VAR_DIR = Path(env("METERBOOK_VAR", default=str(BASE_DIR / "var"))).resolve()


def _secret_key() -> str:
    if key := env("SECRET_KEY", default=""):
        return str(key)
    if TESTING:
        return "only-for-the-test-suite"
    if key := embedded.stored_secret_key(VAR_DIR):
        return key
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. `make run` makes one by itself; elsewhere set a long random value."
    )


def _time_zone(name: str, default: str) -> str:
    value = str(env(name, default=default))
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ImproperlyConfigured(f"{name}={value!r} is not a time zone such as Europe/Berlin.") from error
    return value


def _whole_number(name: str, default: int, *, least: int = 0) -> int:
    try:
        value = int(env(name, default=str(default)))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a whole number.") from error
    if value < least:
        raise ImproperlyConfigured(f"{name} must be {least} or more.")
    return value


SECRET_KEY = _secret_key()
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])
PORT = _whole_number("PORT", 8000, least=1)
# `make run` listens here; 0.0.0.0 lets other machines in (then set ALLOWED_HOSTS and BASE_URL too).
BIND_ADDRESS = str(env("BIND_ADDRESS", default="127.0.0.1"))
# Whether the first `make run` fills an empty database with the demo.
SEED_DEMO = env.bool("METERBOOK_DEMO", default=True)
# What links in portal sessions and mails begin with; behind a proxy set the address customers see.
BASE_URL = str(env("BASE_URL", default=f"http://localhost:{PORT}")).rstrip("/")
HTTPS = BASE_URL.startswith("https://")

# -- what is billed, and when -------------------------------------------------------------------------------

BILLING_TIME_ZONE = _time_zone("BILLING_TIME_ZONE", "UTC")
# An ordinary key may send events this far in the past; a period closes this long after its end (design §6).
LATENESS_WINDOW = timedelta(seconds=_whole_number("LATENESS_WINDOW_SECONDS", 3600))
# How far ahead of our clock an event's time may lie.
EVENT_CLOCK_TOLERANCE = timedelta(minutes=5)
MAX_EVENTS_PER_BATCH = 1000
# A thousand events of the largest allowed metadata do not fit; a thousand ordinary ones do ten times over.
MAX_REQUEST_BYTES = _whole_number("MAX_REQUEST_BYTES", 5 * 1024 * 1024, least=1024)
# Files of events that an operator uploads lie in VAR_DIR/imports; web and worker both need that folder.
IMPORT_MAX_BYTES = _whole_number("IMPORT_MAX_BYTES", 200 * 1024 * 1024, least=1024)
# Whole months of events that stay in the database; older ones are archived and dropped. 0 keeps all for ever.
EVENT_RETENTION_MONTHS = _whole_number("EVENT_RETENTION_MONTHS", 0)
EVENT_ARCHIVE_DIR = Path(env("EVENT_ARCHIVE_DIR", default=str(VAR_DIR / "archive"))).resolve()
# Days an invoice may stay open before it is shown as overdue.
PAYMENT_TERM = timedelta(days=_whole_number("PAYMENT_TERM_DAYS", 14))
PORTAL_LINK_LIFETIME = timedelta(hours=24)
# How long an invoice stays a draft for review before it is issued, beyond the lateness window.
INVOICE_GRACE = timedelta(hours=_whole_number("INVOICE_GRACE_HOURS", 0))
INVOICE_NUMBER_PREFIX = str(env("INVOICE_NUMBER_PREFIX", default="INV-"))
CREDIT_NOTE_PREFIX = str(env("CREDIT_NOTE_PREFIX", default="CN-"))
SELLER_NAME = str(env("SELLER_NAME", default="Meterbook"))
SELLER_ADDRESS = str(env("SELLER_ADDRESS", default=""))
SELLER_EMAIL = str(env("SELLER_EMAIL", default=""))
# The wire contract names the business in every object; one installation is one business.
BUSINESS_ID = str(env("BUSINESS_ID", default="bus_meterbook"))

# -- Django -------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "unfold.contrib.inlines",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "config",
    "customers",
    "meters",
    "billing",
]

MIDDLEWARE = [
    "config.middleware.RefuseEarly",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.middleware.SessionMiddleware",
    "config.middleware.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "config.middleware.AuthenticationMiddleware",
    "config.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
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
            ],
        },
    }
]


def _database() -> dict[str, Any]:
    url = env("DATABASE_URL", default="")
    if url:
        config = dict(env.db_url("DATABASE_URL"))
        if config.get("ENGINE") != "django.db.backends.postgresql":
            raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL 15 or newer (postgres://…).")
        config["HOST"] = unquote(str(config["HOST"]))  # a socket's folder comes as %2Fvar%2Frun%2Fpostgresql
    else:
        config = embedded.database_config(VAR_DIR)
    options = config.setdefault("OPTIONS", {})
    # A dead network must become an error in seconds, not a hang (measured: over 45 s without these).
    options.setdefault("connect_timeout", 3)
    options.setdefault("tcp_user_timeout", 5000)
    options.setdefault("keepalives_idle", 5)
    # Only for what asks for it: the statement that stores events (meters/ingestion.py).
    options.setdefault("prepare_threshold", 5)
    config["ENGINE"] = "config.postgresql"
    config["CONN_MAX_AGE"] = 600
    config["CONN_HEALTH_CHECKS"] = True
    return config


DATABASES = {"default": _database()}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = reverse_lazy("admin:login")
LOGIN_REDIRECT_URL = reverse_lazy("admin:index")

LANGUAGE_CODE = "en"
TIME_ZONE = BILLING_TIME_ZONE
USE_TZ = True
USE_I18N = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if TESTING or DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_REQUEST_BYTES
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31536000 if HTTPS else 0
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=False)
if env.bool("BEHIND_HTTPS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "config.logs.WithoutTokens",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        # Django's own handler would write each line of DEBUG a second time, with the tokens in it.
        "django": {"handlers": [], "level": "INFO"},
        # A client's 4xx is the client's business: its answer says what was wrong, and a busy one would fill the log.
        "django.request": {"level": "ERROR"},
        # A foreign Host header is anybody's to send, and each would be a traceback.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        # gunicorn warns of every answer to HEAD that a page was made for, and leaves the page out itself.
        "gunicorn.http.wsgi": {"level": "ERROR"},
    },
    "root": {"handlers": ["stderr"], "level": str(env("LOG_LEVEL", default="WARNING"))},
}

# -- REST ---------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["customers.api.authentication.BearerKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["customers.api.authentication.HasApiKey"],
    "DEFAULT_PARSER_CLASSES": ["customers.api.parsers.ExactJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["customers.api.renderers.ExactJSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "customers.api.pagination.PageNumberFromZero",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "customers.api.errors.exception_handler",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "customers.api.renderers.AlwaysJSON",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": True,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Meterbook",
    "DESCRIPTION": (
        "Usage billing over the wire contract of Dodo Payments: the official `dodopayments` SDKs work with "
        "only the base URL changed. Amounts are integers in the currency's minor unit; a price per unit is a "
        "decimal string, also in the minor unit."
    ),
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {"IntervalEnum": "billing.models.Interval"},
    "OAS_VERSION": "3.1.0",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "customers.api.schema.complete",
    ],
    # No validator badge: it would tell a stranger's server where our schema is.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "validatorUrl": None},
}

# -- Celery -------------------------------------------------------------------------------------------------

_broker_url = str(env("CELERY_BROKER_URL", default=""))
# A task whose worker was killed is delivered again after this long, and so is one that runs longer.
_visibility_timeout = _whole_number("CELERY_VISIBILITY_TIMEOUT", 600, least=1)
if _broker_url:
    CELERY_BROKER_URL = _broker_url
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
        {"visibility_timeout": _visibility_timeout} if _broker_url.startswith(("redis", "rediss")) else {}
    )
else:
    # The broker is the database itself: kombu's pgmq transport (docs/decisions/0002-broker.md).
    CELERY_BROKER_URL = "pgmq://localhost"  # where exactly says conn_string
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "conn_string": embedded.conninfo(DATABASES["default"]),
        "init_extension": False,  # the schema comes with our migrations, not from a server extension
        "wait_time_seconds": 0,  # long polling blocks the first delay() of a process for seconds
        "polling_interval": 0.2,
        "visibility_timeout": _visibility_timeout,
    }
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "config.beat:SingleScheduler"
