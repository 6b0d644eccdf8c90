"""The embedded stack: PostgreSQL, web server, worker and beat from one command, and nothing left behind
after it.

problems.py   how it gives up: one sentence
processes.py  children that end with their parent
places.py     where data, sockets and binaries may lie
postgres.py   the embedded server: initdb, start, stop
outside.py    checks of what replaces an embedded part: DATABASE_URL, CELERY_BROKER_URL, PORT
guardian.py   ends the children's children should the supervisor be killed
__main__.py   the supervisor
"""
