"""Schedules: when beat does what. The tables are django-celery-beat's; an operator edits them here."""

import json
from typing import Any

from celery import current_app
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from kombu.exceptions import OperationalError as BrokerError
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from customers.admin.base import CommandAdmin, CommandForm, command
from customers.admin.formats import ago, badge
from customers.errors import DomainError

# What an installation cannot be without: it may be switched off, which shows, but not deleted, which does not.
NEEDED = ("billing.tasks.close_due_cycles", "meters.tasks.make_partitions")

for model in (PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
    admin.site.unregister(model)


def task_choices() -> list[tuple[str, str]]:
    """The tasks that the workers know."""
    current_app.loader.import_default_modules()
    names = sorted(name for name in current_app.tasks if not name.startswith("celery."))
    return [("", "Choose…"), *((name, name) for name in names)]


class PeriodicTaskForm(forms.ModelForm):
    task = forms.ChoiceField(
        choices=task_choices, widget=UnfoldAdminSelectWidget(), help_text="What is done each time."
    )

    class Meta:
        model = PeriodicTask
        widgets = {"description": UnfoldAdminTextareaWidget(attrs={"rows": 3})}
        fields = (
            "name",
            "task",
            "description",
            "enabled",
            "interval",
            "crontab",
            "start_time",
            "one_off",
            "args",
            "kwargs",
            "expire_seconds",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A task that this version no longer has stays choosable, so that its row can be read and switched off.
        stored = self.instance.task
        field: Any = self.fields.get("task")
        if field is not None and stored and stored not in dict(field.choices):
            field.choices = [*field.choices, (stored, f"{stored} (unknown to the workers)")]

    def clean_args(self) -> str:
        return self._json("args", list, "a list such as []")

    def clean_kwargs(self) -> str:
        return self._json("kwargs", dict, "an object such as {}")

    def _json(self, name: str, kind: type, wanted: str) -> str:
        shown = self.cleaned_data[name]
        try:
            right = isinstance(json.loads(shown), kind)
        except ValueError:
            right = False
        if not right:
            raise ValidationError(f"Must be {wanted}.")
        return str(shown)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(CommandAdmin):
    form = PeriodicTaskForm
    list_display = ("name", "task", "when", "last_run", "state")
    list_display_links = ("name",)
    list_select_related = ("interval", "crontab", "solar", "clocked")
    list_filter = ("enabled",)
    list_filter_submit = True
    search_fields = ("name", "task")
    readonly_fields = ("last_run_at", "total_run_count")
    actions = ("switch_on", "switch_off")
    actions_detail = ("run_now",)
    fieldsets = (
        (None, {"fields": ("name", "task", "description", "enabled")}),
        (
            "When",
            {
                "fields": ("interval", "crontab", "start_time", "one_off", "last_run_at", "total_run_count"),
                "description": "Choose an interval or a crontab, one of them. A change takes effect within seconds.",
            },
        ),
        ("Arguments", {"fields": ("args", "kwargs", "expire_seconds"), "classes": ("collapse",)}),
    )
    empty_state = (
        "No schedule yet",
        "Schedules say when due periods are closed and other regular work is done. They are made when Celery beat "
        "starts for the first time.",
    )

    def has_run_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Django's hook for both ways to delete; whatever stands in the last list is why it refuses."""
        to_delete, counts, missing, protected = super().get_deleted_objects(objs, request)
        leaving = [task.pk for task in objs]
        left = set(PeriodicTask.objects.exclude(pk__in=leaving).filter(enabled=True).values_list("task", flat=True))
        kept = [
            f"“{task.name}”: no other schedule that is on runs {task.task}. Switch it off instead."
            for task in objs
            if task.task in NEEDED and task.task not in left
        ]
        return to_delete, counts, missing, [*protected, *kept]

    @display(description="When")
    def when(self, obj: PeriodicTask) -> str:
        return str(obj.scheduler)

    @display(description="Last run", ordering="last_run_at")
    def last_run(self, obj: PeriodicTask) -> str:
        return ago(obj.last_run_at)

    @display(description="Status", ordering="enabled")
    def state(self, obj: PeriodicTask) -> str:
        return badge("on", "good") if obj.enabled else badge("off", "warn")

    @action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        changed = queryset.update(enabled=True)
        PeriodicTasks.update_changed()
        messages.success(request, f"{changed} switched on.")

    @action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        changed = queryset.update(enabled=False, last_run_at=None)
        PeriodicTasks.update_changed()
        messages.success(request, f"{changed} switched off.")

    @command(
        title="Run now",
        permission="run",
        icon="play_arrow",
        explain=lambda task: f"Hands {task.task} to the workers once, now, beside its schedule.",
        submit="Run it now",
    )
    def run_now(self, request: HttpRequest, obj: PeriodicTask, form: CommandForm) -> None:
        task = current_app.tasks.get(obj.task)
        if task is None:
            raise DomainError(f"The workers know no task {obj.task}.")
        try:
            task.apply_async(args=json.loads(obj.args), kwargs=json.loads(obj.kwargs), queue=obj.queue or None)
        except BrokerError as error:
            raise DomainError("The workers could not be told: the message broker does not answer.") from error
        self.log_change(request, obj, "Run now.")
        messages.success(request, f"“{obj.name}” was handed to the workers.")


class TimingAdmin(ModelAdmin):
    """An interval or a crontab. Deleting one would take every schedule that uses it along, so it has to be unused."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        to_delete, counts, missing, protected = super().get_deleted_objects(objs, request)
        timings = [timing.pk for timing in objs]
        used = PeriodicTask.objects.filter(**{f"{self.opts.model_name.removesuffix('schedule')}__in": timings})
        kept = [f"“{task.name}” uses it: give that schedule another one first." for task in used.order_by("name")]
        return to_delete, counts, missing, [*protected, *kept]


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(TimingAdmin):
    list_display = ("__str__", "every", "period")


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(TimingAdmin):
    list_display = ("__str__", "human_readable", "timezone")
