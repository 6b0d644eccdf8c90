"""What is counted: the event log and the meters that read it."""

from django.db import models

from customers.fields import PublicIdField
from customers.ids import new_meter_id
from customers.models import Customer


class Aggregation(models.TextChoices):
    """How the events of a period become one quantity."""

    COUNT = "count", "Count: how many events"
    SUM = "sum", "Sum: add up a value"
    MAX = "max", "Max: the highest value"
    LAST = "last", "Last: the most recent value"


class Meter(models.Model):
    """A filter over events and an aggregation. What it counts never changes once it is made."""

    public_id = PublicIdField("meter id", default=new_meter_id, editable=False)
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    # Matched byte by byte against an event's name.
    event_name = models.CharField(max_length=255, db_collation="C")
    aggregation = models.CharField(max_length=20, choices=Aggregation)
    # The metadata key that is added up, compared or taken; empty for count.
    property_key = models.CharField("over property", max_length=100, blank=True)
    measurement_unit = models.CharField("unit", max_length=100, help_text="A label: calls, tokens, GB.")
    # The contract's filter tree, as meters.filters reads it; null matches every event of the name.
    filter = models.JSONField(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["event_name"], name="meter_event_name")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(aggregation="count", property_key="")
                | (~models.Q(aggregation="count") & ~models.Q(property_key="")),
                name="meter_property_unless_count",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def is_archived(self) -> bool:
        return self.archived_at is not None


class Event(models.Model):
    """One fact in the log: it is only ever added.

    The table is partitioned by month of `timestamp` and made by hand in the migrations; its real primary key is
    (timestamp, id). `id` grows with arrival, not with commit order.
    """

    id = models.BigAutoField(primary_key=True)
    event_id = models.TextField(db_collation="C")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    event_name = models.TextField(db_collation="C")
    timestamp = models.DateTimeField()
    # As sent: a flat object of strings, numbers and booleans, or null.
    metadata = models.JSONField(null=True)
    # The database's clock when it was stored.
    received_at = models.DateTimeField()

    class Meta:
        ordering = ["-timestamp", "-id"]
        managed = False
        db_table = "meters_event"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.event_id


class EventKey(models.Model):
    """Every event id ever accepted, as a 16-byte hash: an event counts once, for ever.

    It outlives the event's partition, and says where the event lies.
    """

    # The first 16 bytes of SHA-256 of the event id.
    key = models.UUIDField(primary_key=True)
    event = models.BigIntegerField()
    timestamp = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.key)


class Backfill(models.Model):
    """A span of event time that received events older than the lateness window.

    Written in the transaction that stores them. Billing reads it to find the closed periods it has to compare with
    what was billed.
    """

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    # Closed span: the earliest and the latest event of the batch.
    first = models.DateTimeField()
    last = models.DateTimeField()
    events = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    # When billing took notice.
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["customer"], condition=models.Q(seen_at__isnull=True), name="backfill_unseen")]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.events} events from {self.first:%Y-%m-%d} to {self.last:%Y-%m-%d} for {self.customer}"
