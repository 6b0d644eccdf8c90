"""Files of events: uploaded, read in by the workers, with what was refused and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError
from unfold.decorators import display
from unfold.enums import ActionVariant

from customers.admin.base import CommandForm, PageAdmin, command, link_action
from customers.admin.formats import badge, grouped, moment
from customers.admin.forms import INPUT
from customers.errors import DomainError
from meters.imports import accept_upload, begin_import, report_path
from meters.models import EventImport
from meters.tasks import import_file

# Refused lines on the page; the download has them all.
MOST_SHOWN = 100


class UploadForm(CommandForm):
    file = forms.FileField(
        label="File",
        allow_empty_file=True,
        help_text="JSON Lines or CSV with a header, UTF-8, plain or gzip.",
        widget=forms.FileInput(attrs={"class": INPUT, "accept": ".jsonl,.ndjson,.json,.csv,.gz,.txt"}),
    )


@admin.register(EventImport)
class EventImportAdmin(PageAdmin):
    page_template = "admin/meters/eventimport/page.html"
    list_display = ("name_shown", "started", "state", "stored_shown", "repeated_shown", "refused_shown")
    list_display_links = ("name_shown",)
    list_select_related = ("started_by",)
    search_fields = ("name",)
    sortable_by = ()
    list_per_page = 25
    actions = None
    actions_list = ("import_a_file",)
    actions_detail = ("try_again",)
    empty_state = (
        "No file imported yet",
        "Import usage you already have: press “Import a file” above. For a file of gigabytes there is the"
        " command import_events.",
    )

    # -- who may -----------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """There is no form for a row; a file is uploaded."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_upload_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_eventimport")

    # -- list --------------------------------------------------------------------------------------------------

    @display(description="File")
    def name_shown(self, obj: EventImport) -> str:
        return obj.name

    @display(description="Started")
    def started(self, obj: EventImport) -> str:
        return moment(obj.started_at)

    @display(description="Result")
    def state(self, obj: EventImport) -> str:
        return state_badge(obj)

    @display(description="Stored")
    def stored_shown(self, obj: EventImport) -> str:
        return grouped(obj.stored)

    @display(description="There already")
    def repeated_shown(self, obj: EventImport) -> str:
        return grouped(obj.repeated)

    @display(description="Refused")
    def refused_shown(self, obj: EventImport) -> str:
        return grouped(obj.refused)

    # -- pages -------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("upload/", view(self.upload_view), name="meters_eventimport_upload"),
            path("<path:object_id>/progress/", view(self.progress_view), name="meters_eventimport_progress"),
            path("<path:object_id>/refused/", view(self.refused_view), name="meters_eventimport_refused"),
            *super().get_urls(),
        ]

    def upload_view(self, request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        if not self.has_upload_permission(request):
            raise PermissionDenied
        posted = request.method == "POST"
        form = UploadForm(request.POST if posted else None, files=request.FILES if posted else None, request=request)
        if posted and form.is_valid():
            upload = form.cleaned_data["file"]
            try:
                record = accept_upload(
                    chunks=upload.chunks(),
                    name=upload.name,
                    folder=settings.VAR_DIR / "imports",
                    now=timezone.now(),
                    started_by=request.user if request.user.is_authenticated else None,
                )
            except DomainError as error:
                form.add_error("file", error.message)
            else:
                if record.finished_at is not None:
                    messages.info(request, "This very file was read in before, so nothing was done.")
                else:
                    self.log_addition(request, record, [{"added": {}}])
                    hand_over(request, record)
                return HttpResponseRedirect(self.page_url(record))
        return TemplateResponse(
            request,
            "admin/meters/eventimport/upload.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "Import events",
                "form": form,
                "most_megabytes": settings.IMPORT_MAX_BYTES // (1024 * 1024),
                "back_url": self.list_url(),
            },
        )

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of an import's page that is asked for again and again while it runs."""
        record = self._seen(request, object_id)
        return TemplateResponse(
            request, "admin/meters/eventimport/_progress.html", {**self.page_context(request, record), "obj": record}
        )

    def refused_view(self, request: HttpRequest, object_id: str) -> HttpResponse | FileResponse:
        """All refused lines, as JSON Lines."""
        record = self._seen(request, object_id)
        report = report_path(Path(record.path)) if record.path else None
        if report is None or not report.is_file():
            raise Http404("There is no report of refused lines here; a command writes it beside the file it read.")
        return FileResponse(
            report.open("rb"),
            as_attachment=True,
            filename=f"{record.name}.refused.jsonl",
            content_type="application/x-ndjson",
        )

    def _seen(self, request: HttpRequest, object_id: str) -> EventImport:
        record = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, record):
            raise PermissionDenied
        if record is None:
            raise Http404("There is no such import.")
        return record

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        now = timezone.now()
        elapsed = ((obj.finished_at or now) - obj.started_at).total_seconds()
        running = obj.finished_at is None and not obj.failure
        return {
            "state": state_badge(obj),
            "seconds": int(elapsed),
            "running": running,
            "slow": running and bool(obj.path) and not obj.position and elapsed > 90,
            "by_command": not obj.path,
            "problems": obj.problems[:MOST_SHOWN],
            "most_shown": MOST_SHOWN,
            "more": max(obj.refused - MOST_SHOWN, 0),
            "progress_url": reverse("admin:meters_eventimport_progress", args=[quote(obj.pk)]),
            "refused_url": reverse("admin:meters_eventimport_refused", args=[quote(obj.pk)])
            if obj.path and obj.refused
            else "",
            "now": now,
        }

    # -- what can be done --------------------------------------------------------------------------------------

    @link_action(title="Import a file", permission="upload", icon="upload_file")
    def import_a_file(self, request: HttpRequest, object_id: str | None = None) -> str:
        return reverse("admin:meters_eventimport_upload")

    @command(
        title="Read it again",
        permission="upload",
        icon="restart_alt",
        variant=ActionVariant.DEFAULT,
        explain=lambda record: (
            "Reads the file once more. Events that are stored are passed over, so nothing counts twice; lines that were"
            " refused are stored if what stood against them is gone."
        ),
        available=lambda record: bool(record.path) and (record.finished_at is not None or bool(record.failure)),
    )
    def try_again(self, request: HttpRequest, obj: EventImport, form: CommandForm) -> str:
        if not obj.path:
            raise DomainError("The file was read by a command and does not lie here.")
        record = begin_import(
            path=Path(obj.path), name=obj.name, now=timezone.now(), again=obj.finished_at is not None, keep=True
        )
        self.log_change(request, record, [{"changed": {"fields": ["read again"]}}])
        hand_over(request, record)
        return self.page_url(record)


def hand_over(request: HttpRequest, record: EventImport) -> None:
    """Give the file to the workers. If they cannot be told, the schedule's next tick takes it up."""
    try:
        import_file.delay(record.pk)
    except BrokerError:
        messages.warning(request, "The workers could not be told; the schedule takes this file up within a minute.")


def state_badge(record: EventImport) -> Any:
    if record.failure:
        return badge("stopped", "bad")
    if record.finished_at is None:
        return badge("running")
    return badge(f"finished, {grouped(record.refused)} refused", "warn") if record.refused else badge("finished")
