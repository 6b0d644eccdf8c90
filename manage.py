#!/usr/bin/env python
"""Django's command line, for Meterbook."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"{error}")
    except OperationalError as error:
        # Only "no connection" has nothing from a server in it; anything else is a bug that needs its
        # traceback.
        if getattr(error.__cause__, "sqlstate", None) is not None:
            raise
        from config.embedded import sentence_about_connection

        sys.exit(sentence_about_connection(error))


if __name__ == "__main__":
    main()
