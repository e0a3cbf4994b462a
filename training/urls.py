from django.urls import path

from training.views import evaluations, exports, recipes, run_comparison, run_rehearsals, runs

urlpatterns = [
    path("recipes/", recipes.recipe_list, name="recipes"),
    path("recipes/new/", recipes.recipe_new, name="recipe_new"),
    path("recipes/new/preview/", recipes.recipe_preview, name="recipe_preview"),
    path("recipes/<slug:slug>/", recipes.recipe, name="recipe"),
    path("recipes/<slug:slug>/sweep/", recipes.recipe_sweep, name="recipe_sweep"),
    path("runs/", runs.run_list, name="runs"),
    path("runs/new/", runs.run_new, name="run_new"),
    path("runs/new/estimate/", runs.run_estimate, name="run_estimate"),
    path("runs/rehearse/", run_rehearsals.rehearse, name="rehearse"),
    path("runs/rehearsals/<uuid:pk>/", run_rehearsals.rehearsal, name="rehearsal"),
    path("runs/compare/", run_comparison.compare, name="runs_compare"),
    path("runs/compare/curves/", run_comparison.compare_curves, name="runs_compare_curves"),
    path("runs/<int:pk>/", runs.run, name="run"),
    path("runs/<int:pk>/state/", runs.run_state, name="run_state"),
    path("runs/<int:pk>/samples/", runs.run_samples, name="run_samples"),
    path("runs/<int:pk>/curves/", runs.run_curves, name="run_curves"),
    path("runs/<int:pk>/cancel/", runs.run_cancel, name="run_cancel"),
    path("runs/<int:pk>/resume/", runs.run_resume, name="run_resume"),
    path("models/<int:number>/download/", exports.model_download, name="model_download"),
    path("models/<int:number>/lora/", exports.model_lora, name="model_lora"),
    path("evaluations/", evaluations.evaluation_list, name="evaluations"),
    path("evaluations/new/", evaluations.evaluation_new, name="evaluation_new"),
    path("evaluations/<int:pk>/", evaluations.evaluation, name="evaluation"),
    path("evaluations/<int:pk>/state/", evaluations.evaluation_state, name="evaluation_state"),
    path("evaluations/<int:pk>/promote/", evaluations.evaluation_promote, name="evaluation_promote"),
]
