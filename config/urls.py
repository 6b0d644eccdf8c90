"""Every address Meterbook answers. API paths have no version prefix and no trailing slash: that is the contract."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView

from config import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.start, name="start"),
    path("admin/", admin.site.urls),
    path("portal/", include("customers.portal.urls")),
    path("openapi.json", SpectacularJSONAPIView.as_view(), name="openapi"),
    # The split view keeps its script in a file of its own, so that no inline script is needed.
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="openapi"), name="docs"),
    path("", include("customers.api.urls")),
    path("", include("meters.api.urls")),
    path("", include("billing.api.urls")),
]

handler400 = views.bad_request
handler403 = views.permission_denied
handler404 = views.not_found
handler500 = views.server_error
