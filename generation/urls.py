from django.urls import path, re_path

from generation.views import images

urlpatterns = [
    re_path(r"^media/(?P<sha256>[0-9a-f]{64})\.png$", images.image, name="image"),
    re_path(r"^media/(?P<sha256>[0-9a-f]{64})\.webp$", images.thumbnail, name="thumbnail"),
    path("images/<str:token>/", images.image_for_viewer, name="image_for_viewer"),
]
