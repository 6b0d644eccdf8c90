from django.urls import path

from billing.api import views, wallets

urlpatterns = [
    path("customers/<str:customer_id>/wallets", wallets.WalletsView.as_view()),
    path("customers/<str:customer_id>/wallets/ledger-entries", wallets.WalletEntriesView.as_view()),
    path("products", views.ProductsView.as_view()),
    path("products/<str:product_id>", views.ProductView.as_view()),
    path("products/<str:product_id>/unarchive", views.ProductUnarchiveView.as_view()),
    path("subscriptions", views.SubscriptionsView.as_view()),
    path("subscriptions/<str:subscription_id>", views.SubscriptionView.as_view()),
    path("subscriptions/<str:subscription_id>/usage-history", views.UsageHistoryView.as_view()),
    path("subscriptions/<str:subscription_id>/credit-usage", views.CreditUsageView.as_view()),
    path("payments", views.PaymentsView.as_view()),
    path("payments/<str:payment_id>", views.PaymentView.as_view()),
    path("payments/<str:payment_id>/line-items", views.PaymentLineItemsView.as_view()),
    path("invoices/payments/<str:payment_id>", views.InvoiceOfPaymentView.as_view()),
]
