"""Who calls the API: a bearer key, which may be read-only."""

from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from customers.api.errors import BackfillKeyNeeded, ReadOnlyKey
from customers.keys import find_api_key
from customers.models import ApiKey

if TYPE_CHECKING:  # that module reads the settings, which name this one
    from rest_framework.views import APIView


class BearerKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer mk_…`. Afterwards `request.auth` is the ApiKey; there is no user."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey] | None:
        scheme, _, presented = get_authorization_header(request).partition(b" ")
        if not scheme:
            return None
        if scheme.lower() != b"bearer":
            raise AuthenticationFailed("Send the API key as `Authorization: Bearer <key>`.")
        try:
            key = find_api_key(presented=presented.strip().decode("ascii"))
        except UnicodeDecodeError:
            key = None
        if key is None:
            raise AuthenticationFailed("The API key is unknown or revoked.")
        return None, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasApiKey(BasePermission):
    """Every route needs a key, and a read-only key may only read."""

    message = "Send an API key as `Authorization: Bearer <key>`."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if not isinstance(request.auth, ApiKey):
            return False  # DRF answers 401, because nobody was authenticated
        if request.auth.read_only and request.method not in SAFE_METHODS:
            raise ReadOnlyKey
        return True


class MayBackfill(HasApiKey):
    """To change the past as well, a key needs the right to backfill; any key may read."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if not super().has_permission(request, view):
            return False
        may = isinstance(request.auth, ApiKey) and request.auth.backfill
        if request.method not in SAFE_METHODS and not may:
            raise BackfillKeyNeeded("Voiding events by filter needs an API key that may backfill.")
        return True
