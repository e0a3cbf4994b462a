"""Atelier's settings. What differs between machines comes from the environment; docs/settings.md lists it all."""

import re
import sys
from pathlib import Path

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from config.embedded import urls as embedded_urls
from config.environment import database, env_bool, env_choice, env_int, env_list, env_str, env_time_zone, secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env_str("DATA_DIR", str(BASE_DIR / ".data"))).expanduser().resolve()

# PRODUCTION says that people reach this over HTTPS under a name; everything that rests on that is switched by it.
PRODUCTION = env_bool("PRODUCTION", False)
DEBUG = env_bool("DEBUG", False)
SECRET_KEY = secret_key(DATA_DIR)
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS", [])

INSTALLED_APPS = [
    "config",
    "accounts",
    "jobs",
    "generation",
    "curation",
    "training",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "django_htmx",
    "ninja",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "accounts.policies.AccessPolicyMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

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
                "accounts.navigation.navigation",
            ],
            "builtins": ["accounts.templatetags.icons"],
        },
    }
]

# --- Data -----------------------------------------------------------------------------------------------------------
_embedded = embedded_urls(DATA_DIR)
_database_url = env_str("DATABASE_URL") or (_embedded[0] if _embedded else "postgres://atelier@127.0.0.1:1/atelier")
_database = database(_database_url)
_database["OPTIONS"] = {
    "connect_timeout": 5,
    "application_name": env_str("ATELIER_PROCESS", "atelier"),
    # A process that is frozen in the middle of a transaction does not keep its locks for ever.
    # Statements that the server keeps (accounts.rows) are planned once for all values, which is most of what some of them take.
    "options": f"-c idle_in_transaction_session_timeout={env_int('DATABASE_IDLE_SECONDS', 60, least=1, most=3600)}s "
    "-c plan_cache_mode=force_generic_plan",
    "prepare_threshold": 5,
    # What the address says, such as sslmode, goes before.
    **_database.get("OPTIONS", {}),
}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Images and weights: content-addressed files behind Django's storage API. MEDIA_STORAGE is `file` or `s3://BUCKET/PREFIX`.
MEDIA_ROOT = DATA_DIR / "media"
MEDIA_STORAGE = env_str("MEDIA_STORAGE", "file")
if MEDIA_STORAGE == "file":
    _media = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(MEDIA_ROOT), "base_url": None},
    }
else:
    if not re.fullmatch(r"s3://[^/\s]+(/.*)?", MEDIA_STORAGE):
        raise ImproperlyConfigured(f"MEDIA_STORAGE is {MEDIA_STORAGE!r}, but must be file or s3://BUCKET/PREFIX.")
    _bucket, _, _prefix = MEDIA_STORAGE.removeprefix("s3://").partition("/")
    _media = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {"bucket_name": _bucket, "location": _prefix, "file_overwrite": True},
    }
STORAGES = {
    "default": _media,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
# Model folders lie on the local disk of the machine that draws and trains, since the libraries map the files into memory.
MODELS_DIR = DATA_DIR / "models"
RUNS_DIR = DATA_DIR / "runs"
CACHE_DIR = DATA_DIR / "cache"
DEMO_DIR = BASE_DIR / "demo"
DEMO_RATERS = env_int("RATERS", 1, least=1, most=50)
# The open_clip model that measures evaluations: open_clip_config.json and open_clip_model.safetensors.
CLIP_DIR = Path(env_str("CLIP_DIR", str(DEMO_DIR / "clip")))
# A model is imported from a folder below one of these, and from nowhere else on the server.
IMPORT_ROOTS = env_list("IMPORT_ROOTS", [str(DATA_DIR / "imports"), str(DEMO_DIR)])
# Corpora are read below this folder, which web and workers see under the same path; empty: there are none.
CORPORA_ROOT = env_str("CORPORA_ROOT", "")
# Corpora whose latents and captions would take more are not cached first, and no more of theirs is kept as they are drawn.
CORPUS_CACHE_GIB = env_int("CORPUS_CACHE_GIB", 50, least=0, most=1_000_000)
# What the latents and texts of all runs may take on the disk of a machine that trains.
TRAINING_CACHE_GIB = env_int("TRAINING_CACHE_GIB", max(200, 2 * CORPUS_CACHE_GIB), least=1, most=2_000_000)
CORPORA_DIR = DATA_DIR / "corpora"
# Processes that train one run together, each on a GPU of its own.
TRAINER_PROCESSES = env_int("TRAINER_PROCESSES", 1, least=1, most=64)
# A worker that has trained once keeps torch imported, for half a gigabyte, and its next runs begin seconds earlier.
WARM_TRAINER = env_bool("WARM_TRAINER", True)
# Whether somebody else than who froze a dataset version has to approve it.
APPROVAL_BY_ANOTHER = env_bool("APPROVAL_BY_ANOTHER", False)

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]

# Of a body of ten megabytes the rating API answers each judgment by itself.
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000

# --- People ---------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
ACCOUNT_ADAPTER = "accounts.invitations.InvitationOnlyAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_RATE_LIMITS = {"login_failed": "10/5m/ip,5/5m/key"}
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
# Nobody's address is verified by mail here, since people come by invitation: without this nobody could switch two-factor sign-in on.
MFA_ALLOW_UNVERIFIED_EMAIL = True
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
EMAIL_BACKEND = env_str("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
SESSION_COOKIE_AGE = 14 * 24 * 3600

# --- Security -------------------------------------------------------------------------------------------------------
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = env_int("HSTS_SECONDS", 31_536_000, least=0, most=63_072_000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env_bool("BEHIND_PROXY", False) else None
    # /healthz and /readyz are asked by the load balancer inside, in plain HTTP.
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "worker-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "blob:", "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "object-src": [NONE],
    }
}

# --- Jobs: Postgres is the truth, Celery the engine, the broker a doorbell ------------------------------------------
CELERY_BROKER_URL = env_str("CELERY_BROKER_URL") or (_embedded[1] if _embedded else "redis://127.0.0.1:1/0")
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_DEFAULT_QUEUE = "cpu"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_POOL_START_METHOD = "spawn"  # A forked child could not use CUDA.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 200
# Of a second SIGINT or SIGQUIT; the first signal, of either kind, is a warm shutdown (see jobs.workers).
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 3
# With True, a broker that blinks for three seconds kills the running job and strands its message.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 6 * 3600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 30,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
JOB_LEASE_SECONDS = env_int("JOB_LEASE_SECONDS", 30, least=3, most=3600)
JOB_HEARTBEAT_SECONDS = max(1, JOB_LEASE_SECONDS // 5)
JOB_STOP_SECONDS = env_int("JOB_STOP_SECONDS", 30, least=1, most=3600)
JOB_BACKOFF_SECONDS = env_int("JOB_BACKOFF_SECONDS", 2, least=1, most=600)
JOB_SWEEP_SECONDS = env_int("JOB_SWEEP_SECONDS", 5, least=1, most=300)
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "jobs.sweep",
        "schedule": JOB_SWEEP_SECONDS,
        "options": {"queue": "control", "expires": JOB_SWEEP_SECONDS * 2},
    },
    "fold": {"task": "curation.fold_tallies", "schedule": 5, "options": {"queue": "control", "expires": 10}},
    # Seconds of work where a campaign is large: beside the jobs, and not in the way of what keeps them going.
    "estimate": {"task": "curation.estimate_due", "schedule": 60, "options": {"queue": "cpu", "expires": 60}},
}
CODE_VERSION = env_str("CODE_VERSION", "0.1.0")

# --- Language, time, logs -------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = env_time_zone("TIME_ZONE", "UTC")
LOG_LEVEL = env_choice("LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # They tell of every request, and of every place where credentials may lie; only their warnings are news.
    "loggers": {
        "httpx": {"level": "WARNING"},
        "botocore": {"level": "WARNING"},
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}
