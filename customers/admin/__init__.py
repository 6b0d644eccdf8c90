"""Customers, API keys and operators in the admin, and what every admin page shares (base, forms, formats, charts)."""

from customers.admin import accounts as accounts
from customers.admin import customers as customers
from customers.admin import keys as keys
