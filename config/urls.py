"""The URLs of the whole product; each room brings its own."""

from django.contrib import admin
from django.urls import include, path

from config.api import api
from config.home import home

urlpatterns = [
    path("", home, name="home"),
    path("", include("accounts.urls")),
    path("", include("jobs.urls")),
    path("", include("generation.urls")),
    path("", include("curation.urls")),
    path("", include("training.urls")),
    path("accounts/", include("allauth.urls")),
    path("api/", api.urls),
    path("admin/", admin.site.urls),
]
