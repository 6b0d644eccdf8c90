"""Billing goes on by a row in a table: nobody deletes that row by accident, nor what says when it runs."""

from django.test import Client
from django.urls import reverse
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from tests.admin.house import House, nothing_changes

CLOSING = "billing.tasks.close_due_cycles"
SURE = {"post": "yes"}


def delete(root: Client, row: object) -> str:
    """Confirm the deletion of one row on its page; what the page answers."""
    assert isinstance(row, PeriodicTask | IntervalSchedule | CrontabSchedule)
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_delete"
    return root.post(reverse(name, args=[row.pk]), SURE).content.decode()


def delete_selected(root: Client, model: type, *rows: int) -> str:
    url = reverse(f"admin:django_celery_beat_{model.__name__.lower()}_changelist")
    sent = {"action": "delete_selected", "_selected_action": list(rows), **SURE}
    return root.post(url, sent).content.decode()


def test_an_interval_in_use_cannot_be_deleted(house: House, root: Client) -> None:
    minute = PeriodicTask.objects.get(name="Close due billing periods").interval
    for ask in (lambda: delete(root, minute), lambda: delete_selected(root, IntervalSchedule, minute.pk)):
        with nothing_changes("deleting an interval in use"):
            page = ask()
        assert "“Close due billing periods” uses it" in page
    unused = IntervalSchedule.objects.create(every=17, period="days")
    delete(root, unused)
    assert not IntervalSchedule.objects.filter(pk=unused.pk).exists()


def test_a_crontab_in_use_cannot_be_deleted(house: House, root: Client) -> None:
    night = CrontabSchedule.objects.create(minute="0", hour="3")
    PeriodicTask.objects.create(name="Nightly", task=CLOSING, crontab=night)
    with nothing_changes("deleting a crontab in use"):
        assert "“Nightly” uses it" in delete(root, night)
    PeriodicTask.objects.filter(name="Nightly").delete()
    delete(root, night)
    assert not CrontabSchedule.objects.filter(pk=night.pk).exists()


def test_the_last_schedule_that_bills_can_be_switched_off_and_not_deleted(house: House, root: Client) -> None:
    billing = PeriodicTask.objects.get(name="Close due billing periods")
    partitions = PeriodicTask.objects.get(name="Make partitions of the event log")
    both = [billing.pk, house.task.pk]  # the house has a second one
    with nothing_changes("deleting what billing runs by"):
        assert "Switch it off instead." in delete_selected(root, PeriodicTask, *both)
        assert "Switch it off instead." in delete(root, partitions)
    delete(root, house.task)
    assert not PeriodicTask.objects.filter(pk=house.task.pk).exists()
    with nothing_changes("deleting the last one"):
        assert f"no other schedule that is on runs {CLOSING}. Switch it off instead." in delete(root, billing)
    PeriodicTask.objects.create(name="Spare", task=CLOSING, interval=billing.interval, enabled=False)
    with nothing_changes("deleting the last one that is on"):
        assert "Switch it off instead." in delete(root, billing)


def test_any_other_schedule_can_be_deleted(house: House, root: Client) -> None:
    other = PeriodicTask.objects.create(name="Other", task="something.else", interval=house.task.interval)
    delete_selected(root, PeriodicTask, other.pk)
    assert not PeriodicTask.objects.filter(pk=other.pk).exists()
