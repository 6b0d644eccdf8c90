"""The Celery application. Its tasks are thin: each calls one domain function and may run twice."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
app = Celery("meterbook")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
