"""Every address Meterbook answers. API paths have no version prefix and no trailing slash: that is the contract."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
]
