"""Archiving, for every admin whose objects are put away rather than deleted: the tabs and the two buttons."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest
from django.utils import timezone

from customers.admin.base import CommandForm, PageAdmin, command


class ArchivedTabs(PageAdmin):
    """A list that opens with what is in use, and has what is archived in a tab beside it."""

    def in_tab(self, queryset: Any, value: str) -> Any:
        return queryset if value == "all" else queryset.filter(archived_at__isnull=value != "archived")

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        every, archived = self.model.objects.count(), self.model.objects.filter(archived_at__isnull=False).count()
        return {"": every - archived, "archived": archived, "all": every}


def archive_command(*, noun: str, explain: Callable[[Any], str] | str, do: Callable[[Any, datetime], object]) -> Any:
    """The button that puts an object away; `do` gets it and the instant."""

    @command(
        title="Archive",
        permission="change",
        icon="archive",
        explain=explain,
        submit=f"Archive this {noun}",
        available=lambda obj: not obj.is_archived(),
    )
    def archive(self: PageAdmin, request: HttpRequest, obj: Any, form: CommandForm) -> None:
        do(obj, timezone.now())
        self.log_change(request, obj, "Archived.")
        messages.success(request, f"“{obj}” is archived.")

    return archive


def unarchive_command(*, noun: str, explain: str, do: Callable[[Any], object], again: str) -> Any:
    """The button that brings it back, and is then what `again` says ("on sale")."""

    @command(
        title="Unarchive",
        permission="change",
        icon="unarchive",
        explain=explain,
        submit=f"Unarchive this {noun}",
        available=lambda obj: obj.is_archived(),
    )
    def unarchive(self: PageAdmin, request: HttpRequest, obj: Any, form: CommandForm) -> None:
        do(obj)
        self.log_change(request, obj, "Unarchived.")
        messages.success(request, f"“{obj}” is {again} again.")

    return unarchive
