"""The roller as the worker runs it, in a process of its own, until it is ended."""

import os
import time


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from meters.rollups import keep_rolled_up

    while True:
        keep_rolled_up()
        time.sleep(5)  # as often as beat asks


if __name__ == "__main__":
    main()
