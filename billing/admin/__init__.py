"""What is sold, to whom, and what was billed: products, subscriptions, invoices, payments, runs, schedules."""

from billing.admin import balances as balances
from billing.admin import corrections as corrections
from billing.admin import credit_notes as credit_notes
from billing.admin import credits as credits
from billing.admin import invoices as invoices
from billing.admin import numbers as numbers
from billing.admin import payments as payments
from billing.admin import products as products
from billing.admin import runs as runs
from billing.admin import schedules as schedules
from billing.admin import subscriptions as subscriptions
from billing.admin import taxes as taxes
