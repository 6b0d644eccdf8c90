"""Who Meterbook talks to: customers, the keys applications use, and the links customers open."""

from datetime import datetime

from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower

from customers.fields import PublicIdField
from customers.ids import new_customer_id


class Customer(models.Model):
    """Someone who is billed."""

    # Chosen by the operator or made up by us; never changes, since applications send it with every event.
    public_id = PublicIdField(
        "customer id",
        default=new_customer_id,
        validators=[RegexValidator(r"^[A-Za-z0-9_.:@-]+$", "Use letters, digits and _ . : @ - only.")],
        help_text="What your application sends as customer_id. Leave it as it is, or use an id of your own.",
    )
    name = models.CharField(max_length=255)
    email = models.EmailField()
    phone_number = models.CharField(max_length=50, null=True, blank=True)
    preferred_locale = models.CharField(max_length=20, null=True, blank=True)
    # {"country": "DE", "city": …, "state": …, "street": …, "zipcode": …}, copied onto each invoice when it is issued.
    billing_address = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="customer_newest_first"),
            models.Index(Lower("email"), name="customer_email"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class ApiKey(models.Model):
    """A bearer key of an application. Only a hash of its secret is kept."""

    name = models.CharField(max_length=100, help_text="Which application uses it.")
    # The part of the key before its secret: shown in lists, and how a presented key is looked up.
    prefix = models.CharField(max_length=32, unique=True, db_collation="C", editable=False)
    # SHA-256 of the whole key. The secret is 256 random bits, so a slow hash would add nothing but latency.
    secret_hash = models.BinaryField(max_length=32, editable=False)
    read_only = models.BooleanField(default=False, help_text="May read, never write.")
    backfill = models.BooleanField(default=False, help_text="May send events of any age.")
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "API key"
        permissions = [("revoke_apikey", "Can revoke an API key")]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def is_active(self) -> bool:
        return self.revoked_at is None


class PortalLink(models.Model):
    """A customer's way into their own pages. The link carries a random token; only its hash is kept."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="portal_links")
    token_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    # Where the page's "back" leads, if the application said so.
    return_url = models.URLField(max_length=2000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"portal link of {self.customer}"

    def is_valid(self, *, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at
