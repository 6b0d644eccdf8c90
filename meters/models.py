"""What is counted: the event log and the meters that read it."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
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
    UNIQUE = "unique", "Unique: how many different values"
    MIN = "min", "Min: the lowest value"
    AVG = "avg", "Average: the mean value"
    WEIGHTED_SUM = "weighted_sum", "Weighted sum: value times hours it held"


# These know what held before the period began, if the meter says so.
CARRIED = (Aggregation.LAST, Aggregation.WEIGHTED_SUM)
MAX_GROUP_KEYS = 3


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
    # For last and weighted_sum: a period begins with the value that held before it, instead of with 0.
    carry_forward = models.BooleanField(
        default=False, help_text="A period begins with the last value from before it, instead of with nothing."
    )
    # Up to three metadata keys; usage is kept per value of each.
    group_by = ArrayField(models.CharField(max_length=100), default=list, blank=True, size=MAX_GROUP_KEYS)
    # The watermark: events up to this id (Event.id, in order of arrival) are in the buckets. Only meters.rollups moves
    # it, together with the buckets, in one transaction.
    rolled_up_to = models.BigIntegerField(default=0, editable=False)
    # Why the watermark stands still, in the database's words; empty while it moves.
    roll_failure = models.CharField(max_length=500, blank=True, editable=False)
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
            ),
            models.CheckConstraint(
                condition=models.Q(carry_forward=False) | models.Q(aggregation__in=["last", "weighted_sum"]),
                name="meter_carries_only_levels",
            ),
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
    # Set when it was voided: it stays in the log and counts for nothing. Why and by whom is in EventVoid.
    voided_at = models.DateTimeField(null=True)

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


class EventVoid(models.Model):
    """Why an event no longer counts, who said so and when. One a voided event."""

    # Event.id; the log is partitioned, so there is no foreign key to it.
    event = models.BigIntegerField(unique=True)
    event_id = models.TextField(db_collation="C")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    timestamp = models.DateTimeField()
    reason = models.TextField()
    # The operator, or the name of the API key.
    author = models.CharField(max_length=150)
    operator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    voided_at = models.DateTimeField()

    class Meta:
        ordering = ["-voided_at", "-id"]
        default_permissions = ("view", "add")
        permissions = [("void_event", "Can void events")]

    def __str__(self) -> str:
        return f"{self.event_id}: {self.reason}"


class Reconciliation(models.Model):
    """A comparison of buckets with the log: what was compared, what differed, whether it was mended."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    trigger = models.CharField(
        max_length=20, choices=[("schedule", "Schedule"), ("admin", "Admin"), ("command", "Command")]
    )
    meters = models.PositiveIntegerField(default=0)
    buckets = models.PositiveBigIntegerField(default=0)
    differing = models.PositiveBigIntegerField(default=0)
    fixed = models.BooleanField(default=False)
    # The first differences in words, for a person.
    findings = models.JSONField(default=list)

    class Meta:
        ordering = ["-started_at", "-id"]
        default_permissions = ("view", "add")

    def __str__(self) -> str:
        return f"reconciliation of {self.started_at:%Y-%m-%d %H:%M}"


class EventImport(models.Model):
    """A file of events being read in. `position` says how far it is, so that it can go on after a kill."""

    name = models.CharField(max_length=255)
    # SHA-256 of the file's bytes: the same file goes on where it stopped, and is not read twice.
    checksum = models.CharField(max_length=64, unique=True)
    # Lines read so far (the header of a CSV included).
    position = models.PositiveBigIntegerField(default=0)
    stored = models.PositiveBigIntegerField(default=0)
    repeated = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)
    # The first refused lines: [{"line": 7, "event_id": …, "code": …, "message": …}].
    problems = models.JSONField(default=list)
    # Where the upload of an admin lies until it is read in; empty for a command, which reads its own file.
    path = models.TextField(blank=True)
    size = models.PositiveBigIntegerField(default=0)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    # Why it stopped, when it could not go on.
    failure = models.TextField(blank=True)

    class Meta:
        ordering = ["-started_at", "-id"]
        default_permissions = ("view", "add")

    def __str__(self) -> str:
        return self.name


class ArchivedMonth(models.Model):
    """A month of the log that was written to a file. Its partition may be dropped; its keys and buckets stay."""

    month = models.DateField(unique=True)
    path = models.TextField()
    events = models.PositiveBigIntegerField()
    # SHA-256 of the file.
    checksum = models.CharField(max_length=64)
    archived_at = models.DateTimeField()
    dropped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-month"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"
