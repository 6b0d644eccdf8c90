"""The WSGI application that gunicorn serves."""

import os
from importlib import import_module

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()
# The views too: otherwise the first request waits for them, and they are not yet here when the worker freezes what is.
import_module(settings.ROOT_URLCONF)
