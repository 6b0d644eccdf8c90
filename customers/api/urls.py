from django.urls import path

from customers.api import views

urlpatterns = [
    path("customers", views.CustomersView.as_view()),
    path("customers/<str:customer_id>", views.CustomerView.as_view()),
    path("customers/<str:customer_id>/customer-portal/session", views.PortalSessionView.as_view()),
]
