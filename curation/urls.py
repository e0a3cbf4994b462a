from django.urls import path

from curation.views import rating

urlpatterns = [
    path("rate/<slug:slug>/", rating.rate, name="rate"),
]
