"""API keys: made here, shown once, revoked here."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.enums import ActionVariant

from customers.admin.base import CommandForm, PageAdmin, command
from customers.admin.formats import badge, moment
from customers.admin.forms import switch, text
from customers.keys import create_api_key, revoke_api_key
from customers.models import ApiKey


class KeyForm(CommandForm):
    name = text(
        "Name", max_length=100, help_text="Which application will use it: one key each, so that one can be revoked."
    )
    read_only = switch("Read only", help_text="May read everything, and write nothing.")
    backfill = switch(
        "May backfill",
        help_text="May send and void events of any age, and void many at once. Others: only of the last hour.",
    )

    def clean(self) -> dict[str, Any] | None:
        values = super().clean()
        if values and values.get("read_only") and values.get("backfill"):
            self.add_error("backfill", "A read-only key cannot send events, so it cannot backfill either.")
        return values


@admin.register(ApiKey)
class ApiKeyAdmin(PageAdmin):
    add_form = KeyForm
    add_title = "New API key"
    add_submit = "Create key"
    page_template = "admin/customers/apikey/page.html"
    list_display = ("name", "prefix_shown", "scope", "created", "status")
    search_fields = ("name", "prefix")
    list_filter = ("read_only", "backfill")
    actions_detail = ("revoke",)
    actions_row = ("revoke",)
    empty_state = (
        "No API key yet",
        "An application needs a key to send usage events. It is shown once, when you create it.",
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "revoke_apikey")

    def create(self, request: HttpRequest, form: Any) -> ApiKey:
        key, full_key = create_api_key(**form.cleaned_data)
        request.new_api_key = full_key  # type: ignore[attr-defined]
        return key

    def after_create(self, request: HttpRequest, obj: ApiKey) -> HttpResponse:
        """The only moment the whole key exists in the clear, so it is shown by this very answer and kept nowhere."""
        response = TemplateResponse(
            request,
            "admin/customers/apikey/created.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": obj,
                "obj": obj,
                "title": "API key created",
                "full_key": request.new_api_key,  # type: ignore[attr-defined]
                "api_url": api_url(),
            },
        )
        response["Cache-Control"] = "no-store"
        return response

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {"api_url": api_url()}

    @command(
        title="Revoke",
        permission="revoke",
        icon="block",
        variant=ActionVariant.DANGER,
        explain=lambda key: (
            f"“{key.name}” stops working within seconds, everywhere, and for good. "
            "An application that still uses it will get 401 answers."
        ),
        submit="Revoke this key",
        available=lambda key: key.is_active(),
    )
    def revoke(self, request: HttpRequest, obj: ApiKey, form: CommandForm) -> None:
        revoke_api_key(key=obj, now=timezone.now())
        self.log_change(request, obj, "Revoked.")
        messages.success(request, f"The key “{obj.name}” is revoked.")

    @display(description="Key", ordering="prefix")
    def prefix_shown(self, obj: ApiKey) -> str:
        return f"{obj.prefix}…"

    @display(description="May")
    def scope(self, obj: ApiKey) -> str:
        if obj.read_only:
            return "read"
        return "read, write, backfill" if obj.backfill else "read, write"

    @display(description="Created", ordering="created_at")
    def created(self, obj: ApiKey) -> str:
        return moment(obj.created_at)

    @display(description="Status", ordering="revoked_at")
    def status(self, obj: ApiKey) -> str:
        return badge("active") if obj.is_active() else badge("revoked")


def api_url() -> str:
    from django.conf import settings

    return str(settings.BASE_URL)
