"""What every admin page shares: pages built from domain objects, and commands that change something.

Django's own change form edits rows. Here nothing is edited behind the domain's back: lists come from Django, an
object has a page of its own, and every change is a *command*: a small form that is shown by GET, runs by POST, asks
for its permission, and calls one domain function.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin import ShowFacets, SimpleListFilter
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.enums import ActionVariant
from unfold.paginator import InfinitePaginator

from customers.errors import DomainError


class CommandForm(forms.Form):
    """What a command asks before it runs. Without fields it is a plain confirmation."""

    def __init__(self, data: Any = None, *, request: HttpRequest, obj: Any = None, **kwargs: Any) -> None:
        self.request = request
        self.obj = obj
        super().__init__(data, **kwargs)


# Says in one or more sentences what will happen; sees the object as it is now.
Explain = Callable[[Any], str | Sequence[str]]


def command(
    *,
    title: str,
    permission: str,
    explain: Explain | str = "",
    submit: str = "",
    icon: str | None = None,
    variant: ActionVariant = ActionVariant.DEFAULT,
    form_class: type[CommandForm] = CommandForm,
    available: Callable[[Any], bool] = lambda obj: True,
    own_page: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Make a method of a PageAdmin a command.

    The method gets (request, obj, form) with a valid form and returns the address to go to, a finished response, or
    None for the object's page. `available` only decides whether the button is offered: the domain refuses what must
    not happen. A command that answers with a page (`own_page`) is not shown in a dialog.
    """

    def decorate(method: Callable[..., Any]) -> Any:
        @wraps(method)
        def view(self: "CommandAdmin", request: HttpRequest, object_id: str | None = None) -> HttpResponse:
            if request.method not in ("GET", "HEAD", "POST"):
                return HttpResponseNotAllowed(["GET", "POST"])
            if not getattr(self, f"has_{permission}_permission")(request):
                raise PermissionDenied
            obj = self.get_object(request, unquote(object_id)) if object_id is not None else None
            if object_id is not None and obj is None:
                raise Http404(f"There is no such {self.opts.verbose_name}.")
            form = form_class(request.POST if request.method == "POST" else None, request=request, obj=obj)
            if request.method == "POST" and form.is_valid():
                try:
                    target = method(self, request, obj, form)
                except DomainError as error:
                    form.add_error(None, error.message)
                else:
                    if isinstance(target, HttpResponse):
                        return target
                    return leave(request, target or self.page_url(obj))
            said = explain(obj) if callable(explain) else explain
            return TemplateResponse(
                request,
                "admin/command_dialog.html" if request.headers.get("HX-Request") else "admin/command.html",
                {
                    **self.admin_site.each_context(request),
                    "opts": self.opts,
                    "original": obj,
                    "title": title,
                    "command_title": title,
                    "explanation": [said] if isinstance(said, str) else list(said),
                    "form": form,
                    "submit": submit or title,
                    "danger": variant == ActionVariant.DANGER,
                    "back_url": self.page_url(obj),
                    "media": form.media,
                },
            )

        for name, value in {
            "allowed_permissions": [permission],
            "short_description": title,
            "icon": icon,
            "variant": variant,
            "dialog": None if own_page else {"title": title},
            "attrs": {},
            "original_function_name": method.__name__,
            "available": available,
        }.items():
            setattr(view, name, value)
        return view

    return decorate


def link_action(
    *,
    title: str,
    permission: str,
    icon: str | None = None,
    available: Callable[[Any], bool] = lambda obj: True,
) -> Callable[[Callable[..., str]], Any]:
    """A button that only leads somewhere: the method returns the address. Nothing changes."""

    def decorate(method: Callable[..., str]) -> Any:
        @wraps(method)
        def view(self: "CommandAdmin", request: HttpRequest, object_id: str | None = None) -> HttpResponse:
            if request.method not in ("GET", "HEAD"):
                return HttpResponseNotAllowed(["GET"])
            if not getattr(self, f"has_{permission}_permission")(request):
                raise PermissionDenied
            return HttpResponseRedirect(method(self, request, object_id))

        for name, value in {
            "allowed_permissions": [permission],
            "short_description": title,
            "icon": icon,
            "variant": ActionVariant.DEFAULT,
            "attrs": {},
            "original_function_name": method.__name__,
            "available": available,
        }.items():
            setattr(view, name, value)
        return view

    return decorate


def leave(request: HttpRequest, url: str) -> HttpResponse:
    """Go to `url`, also out of a dialog that htmx posted."""
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


def with_query(url: str, **parameters: Any) -> str:
    return f"{url}?{urlencode(parameters, doseq=True)}" if parameters else url


class CommandAdmin(ModelAdmin):
    """An admin whose buttons may be commands; it knows its own addresses."""

    # Counting each filter's rows would read whole tables.
    show_facets = ShowFacets.NEVER
    # (what the list holds, what to do next) for a list that has nothing to show.
    empty_state: tuple[str, str] = ("", "")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        # PostgreSQL cannot even be asked about a null character, and no page of ours sends one.
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            return HttpResponseRedirect(self.list_url())
        return super().changelist_view(request, extra_context)

    def may(self, request: HttpRequest, codename: str, app: str = "") -> bool:
        return bool(request.user.has_perm(f"{app or self.opts.app_label}.{codename}"))

    def list_url(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def page_url(self, obj: Model | None) -> str:
        if obj is None or obj.pk is None:
            return self.list_url()
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(obj.pk)])


class PageAdmin(CommandAdmin):
    """Lists as Django makes them; an object's page and its forms as we make them."""

    # The template of an object's page.
    page_template = ""
    # The form to create one, and to edit what may be edited. None: not offered.
    add_form: type[CommandForm] | None = None
    edit_form: type[CommandForm] | None = None
    form_template = "admin/form_page.html"
    add_title = ""
    add_submit = "Create"
    change_list_template = "admin/mb_change_list.html"
    list_per_page = 50
    list_disable_select_all = True
    show_full_result_count = False
    actions_on_top = True
    # (value, label) of the tabs over a list, and the parameter they set.
    list_tabs: Sequence[tuple[str, str]] = ()
    list_tab_parameter = "status"

    # -- who may ------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.add_form is not None and super().has_add_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing that billing stands on is ever deleted; things are archived, cancelled, revoked or made void."""
        return False

    # -- an object's page ----------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        """What the page's template needs beside the object."""
        return {}

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        obj = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        if obj is None:
            messages.warning(request, f"There is no such {self.opts.verbose_name}. It may belong elsewhere.")
            return HttpResponseRedirect(self.list_url())
        return TemplateResponse(
            request,
            self.page_template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": obj,
                "obj": obj,
                "title": str(obj),
                "subtitle": None,
                "mb_commands": self.commands(request, obj),
                "now": timezone.now(),
                **self.page_context(request, obj),
                **(extra_context or {}),
            },
        )

    def commands(self, request: HttpRequest, obj: Any) -> list[dict[str, Any]]:
        """What this person may do with this object as it is."""
        offered = [
            action
            for action in self.get_actions_detail(request, obj.pk)
            if getattr(action.method, "available", lambda obj: True)(obj)
        ]
        return self._get_actions_navigation(self.actions_detail, offered, str(quote(obj.pk)))

    # -- forms ---------------------------------------------------------------------------------------------

    def create(self, request: HttpRequest, form: Any) -> Model:
        """Call the domain with a valid form; may raise DomainError."""
        raise NotImplementedError

    def edit(self, request: HttpRequest, obj: Any, form: Any) -> None:
        raise NotImplementedError

    def after_create(self, request: HttpRequest, obj: Any) -> str | HttpResponse | None:
        """Say what was made; where to go next, if not to its page, or a finished page."""
        messages.success(request, f"{self.opts.verbose_name.capitalize()} “{obj}” was created.")
        return None

    def form_context(self, request: HttpRequest, form: Any, obj: Any) -> Mapping[str, Any]:
        return {}

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if self.add_form is None or not self.has_add_permission(request):
            raise PermissionDenied
        form = self.add_form(
            request.POST if request.method == "POST" else None, request=request, initial=request.GET.dict()
        )
        if request.method == "POST" and form.is_valid():
            try:
                obj = self.create(request, form)
            except DomainError as error:
                form.add_error(None, error.message)
            else:
                self.log_addition(request, obj, [{"added": {}}])
                target = self.after_create(request, obj)
                if isinstance(target, HttpResponse):
                    return target
                return HttpResponseRedirect(target or self.page_url(obj))
        return self._form_page(request, form, None, self.add_title or f"New {self.opts.verbose_name}", self.add_submit)

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if self.edit_form is None or not self.has_change_permission(request):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            raise Http404(f"There is no such {self.opts.verbose_name}.")
        form = self.edit_form(request.POST if request.method == "POST" else None, request=request, obj=obj)
        if request.method == "POST" and form.is_valid():
            try:
                self.edit(request, obj, form)
            except DomainError as error:
                form.add_error(None, error.message)
            else:
                self.log_change(request, obj, [{"changed": {"fields": list(form.changed_data)}}])
                messages.success(request, "Saved.")
                return HttpResponseRedirect(self.page_url(obj))
        return self._form_page(request, form, obj, f"Edit {self.opts.verbose_name}", "Save")

    def _form_page(self, request: HttpRequest, form: Any, obj: Any, title: str, submit: str) -> HttpResponse:
        return TemplateResponse(
            request,
            self.form_template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": obj,
                "title": title,
                "form": form,
                "submit": submit,
                "back_url": self.page_url(obj),
                "media": form.media,
                **self.form_context(request, form, obj),
            },
            status=200,
        )

    def get_custom_urls(self) -> tuple[Any, ...]:
        return ()

    def get_urls(self) -> list[Any]:
        from django.urls import path

        def edit(request: HttpRequest, object_id: str) -> HttpResponse:
            return self.edit_view(request, object_id)

        edit_path = path(
            "<path:object_id>/edit/",
            self.admin_site.admin_view(edit),
            name=f"{self.opts.app_label}_{self.opts.model_name}_edit",
        )
        return [*([edit_path] if self.edit_form else []), *super().get_urls()]

    def edit_url(self, obj: Model) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_edit", args=[quote(obj.pk)])

    # -- lists ---------------------------------------------------------------------------------------------

    def in_tab(self, queryset: Any, value: str) -> Any:
        """The rows of one tab; the tab whose value is empty is what the list opens with."""
        return queryset

    def get_list_filter(self, request: HttpRequest) -> Any:
        filters = super().get_list_filter(request)
        return [*filters, self._tab_filter()] if self.list_tabs else filters

    def _tab_filter(self) -> type[SimpleListFilter]:
        owner = self

        class TabFilter(SimpleListFilter):
            """Applies a tab; shown as tabs, so it draws nothing among the filters."""

            title = owner.list_tab_parameter
            parameter_name = owner.list_tab_parameter
            template = "admin/components/nothing.html"

            def has_output(self) -> bool:
                return True

            def lookups(self, request: Any, model_admin: Any) -> Any:
                return owner.list_tabs

            def choices(self, changelist: Any) -> Any:
                return []

            def queryset(self, request: Any, queryset: Any) -> Any:
                return owner.in_tab(queryset, str(self.value() or ""))

        return TabFilter

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        """How many each tab holds; one query."""
        return {}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        context: dict[str, Any] = {"empty_state": self.empty_state, "is_empty_state_filtered": bool(request.GET)}
        if self.list_tabs:
            counts = self.tab_counts(request)
            current = request.GET.get(self.list_tab_parameter, "")
            context["mb_tabs"] = [
                {
                    "label": label,
                    "url": with_query(self.list_url(), **({self.list_tab_parameter: value} if value else {})),
                    "active": current == value,
                    "count": counts.get(value),
                }
                for value, label in self.list_tabs
            ]
        return super().changelist_view(request, {**context, **(extra_context or {})})


class UncountedAdmin(PageAdmin):
    """For tables too large to count: pages forward and back without ever knowing how many there are."""

    paginator = InfinitePaginator
    show_full_result_count = False


def moved(instant: datetime | None) -> str:
    """An instant as a form shows it, in the billing time zone."""
    return timezone.localtime(instant).strftime("%Y-%m-%dT%H:%M") if instant else ""
