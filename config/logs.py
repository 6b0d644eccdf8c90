"""What must not stand in a log: a customer's link opens their pages, so its token is a password."""

import logging
import re

_TOKEN = re.compile(r"(/portal/s/)[^\s\"'<>]+")


def without_tokens(text: str) -> str:
    """The text with every portal link's token left out."""
    return _TOKEN.sub(r"\1(token)", text)


class WithoutTokens(logging.Formatter):
    """Writes a record, its traceback too, without tokens."""

    def format(self, record: logging.LogRecord) -> str:
        return without_tokens(super().format(record))


class HideTokens(logging.Filter):
    """The same for loggers whose handlers are not ours: gunicorn's access log names every address."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        hidden = without_tokens(said)
        if hidden != said:
            record.msg, record.args = hidden, ()
        return True
