"""Read a file of events into the log: JSON Lines, or CSV with a header; plain or gzip.

It may be stopped at any moment and started again with the same file: it goes on where it was. Lines that cannot be
stored are written to FILE.refused.jsonl with the reason, and the rest is stored.
"""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from customers.clock import database_now
from customers.errors import DomainError
from meters.imports import Progress, begin_import, report_path, run_import


class Command(BaseCommand):
    help = __doc__
    # The byte at which this run began; negative as long as it has not.
    _from = -1

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--again", action="store_true", help="read a file that is done once more, from its start")
        parser.add_argument("--report", type=Path, metavar="PATH", help="where refused lines go")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        report: Path = options["report"] or report_path(path)
        try:
            record = begin_import(path=path, name=path.name, now=database_now(), again=options["again"])
            if record.finished_at is not None:
                self.stdout.write(
                    f"{path.name} was read in on {record.finished_at:%Y-%m-%d %H:%M} UTC:"
                    f" {record.stored} stored, {record.repeated} repeated, {record.refused} refused."
                    " Nothing was done; --again reads it once more."
                )
                return
            if record.position:
                self.stderr.write(f"Going on after line {record.position}.", style_func=str)
            run_import(record=record, path=path, report=report, clock=database_now, progress=self._progress)
        except DomainError as error:
            raise CommandError(error.message) from None
        except DatabaseError as error:
            raise CommandError(
                f"The database cannot be used: {str(error).strip()}. Start it again with the same file to go on."
            ) from None
        except KeyboardInterrupt:
            raise CommandError("Stopped. Start it again with the same file to go on.") from None
        finally:
            if self._from >= 0:
                self.stderr.write("", style_func=str)
        self.stdout.write(
            f"{path.name}: {record.stored} events stored, {record.repeated} were there already,"
            f" {record.refused} refused, {record.position} lines."
        )
        if record.refused:
            self.stdout.write(f"The refused lines and why are in {report}.")

    def _progress(self, progress: Progress) -> None:
        if not self.stderr.isatty():
            return
        if self._from < 0:
            # What an earlier run had read says nothing about how fast this one is.
            self._begun, self._from = time.monotonic(), progress.read
            self._first_line = progress.lines
        elapsed = time.monotonic() - self._begun
        done = progress.read / progress.size if progress.size else 1.0
        speed = (progress.read - self._from) / elapsed if elapsed > 0 else 0
        left = f"{(progress.size - progress.read) / speed:.0f} s left" if speed > 0 else "…"
        lines = (progress.lines - self._first_line) / elapsed if elapsed > 0 else 0
        bar = "#" * int(done * 30)
        self.stderr.write(
            f"\r[{bar:<30}] {done:4.0%}  {progress.read / 1e6:.1f} of {progress.size / 1e6:.1f} MB"
            f"  {lines:,.0f} lines/s  {left}    ",
            style_func=str,
            ending="",
        )
