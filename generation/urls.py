from django.urls import path, re_path

from generation.views import batches, images, models, prompt_sets

urlpatterns = [
    path("prompts/", prompt_sets.prompt_sets, name="prompt_sets"),
    path("prompts/new/", prompt_sets.prompt_set_new, name="prompt_set_new"),
    path("prompts/<slug:slug>/v<int:version>/", prompt_sets.prompt_set, name="prompt_set"),
    path("batches/", batches.batches, name="batches"),
    path("batches/new/", batches.batch_new, name="batch_new"),
    path("batches/new/estimate/", batches.batch_estimate, name="batch_estimate"),
    path("batches/<int:pk>/", batches.batch, name="batch"),
    path("batches/<int:pk>/state/", batches.batch_state, name="batch_state"),
    path("batches/<int:pk>/wall/", batches.batch_wall, name="batch_wall"),
    path("batches/<int:pk>/cancel/", batches.batch_cancel, name="batch_cancel"),
    path("batches/<int:pk>/retry/", batches.batch_retry, name="batch_retry"),
    path("models/", models.models, name="models"),
    path("models/import/", models.model_import, name="model_import"),
    path("models/<int:number>/", models.model, name="model"),
    path("models/<int:number>/promote/", models.model_promote, name="model_promote"),
    path("models/<int:number>/licence/", models.model_licence, name="model_licence"),
    path("models/<int:number>/decoder/", models.model_decoder, name="model_decoder"),
    re_path(r"^media/(?P<sha256>[0-9a-f]{64})\.png$", images.image, name="image"),
    re_path(r"^media/(?P<sha256>[0-9a-f]{64})\.webp$", images.thumbnail, name="thumbnail"),
    path("images/<str:token>/", images.image_for_viewer, name="image_for_viewer"),
]
