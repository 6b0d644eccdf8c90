from django.urls import path

from customers.portal import events, views

app_name = "portal"

urlpatterns = [
    path("", views.home, name="home"),
    path("s/<path:token>", views.enter, name="enter"),
    path("closed", views.closed, name="closed"),
    path("leave", views.leave, name="leave"),
    path("plans/<str:subscription_id>/", views.plan, name="plan"),
    path("periods/<int:period_id>/usage.csv", views.usage_csv, name="usage_csv"),
    path("invoices/", views.invoices, name="invoices"),
    path("invoices/<str:invoice_id>/", views.invoice, name="invoice"),
    path("invoices/<str:invoice_id>/pdf", views.invoice_pdf, name="invoice_pdf"),
    path("invoices/<str:invoice_id>/lines/<int:position>/events/", events.line_events, name="line_events"),
    path("invoices/<str:invoice_id>/lines/<int:position>/events.csv", events.line_events_csv, name="line_events_csv"),
    path("credit-notes/<str:note_id>/", views.credit_note, name="credit_note"),
    path("credit-notes/<str:note_id>/pdf", views.credit_note_pdf, name="credit_note_pdf"),
    path("balance/", views.balance, name="balance"),
    # Anything else under here is a customer's mistake, so it gets a customer's page and not the API's JSON.
    path("<path:rest>", views.nowhere, name="nowhere"),
]
