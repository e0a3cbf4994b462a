from django.urls import path

from curation.views import adjudication, campaigns, datasets, gold, order, rating, reliability, rules, samples, standing

urlpatterns = [
    path("rate/<slug:slug>/", rating.rate, name="rate"),
    path("campaigns/", campaigns.campaigns, name="campaigns"),
    path("campaigns/new/", campaigns.campaign_new, name="campaign_new"),
    path("campaigns/<slug:slug>/", campaigns.campaign, name="campaign"),
    path("campaigns/<slug:slug>/curve.json", campaigns.campaign_curve, name="campaign_curve"),
    path("campaigns/<slug:slug>/open/", campaigns.campaign_open, name="campaign_open"),
    path("campaigns/<slug:slug>/pause/", campaigns.campaign_pause, name="campaign_pause"),
    path("campaigns/<slug:slug>/close/", campaigns.campaign_close, name="campaign_close"),
    path("campaigns/<slug:slug>/raters/", campaigns.campaign_raters, name="campaign_raters"),
    path("campaigns/<slug:slug>/reliability/", reliability.reliability, name="campaign_reliability"),
    path("campaigns/<slug:slug>/adjudicate/", adjudication.campaign_adjudicate, name="campaign_adjudicate"),
    path(
        "campaigns/<slug:slug>/adjudicate/undo/", adjudication.campaign_adjudicate_undo, name="campaign_adjudicate_undo"
    ),
    path("campaigns/<slug:slug>/flagged/", adjudication.campaign_flagged, name="campaign_flagged"),
    path("campaigns/<slug:slug>/raters/<int:pk>/let-in/", standing.rater_let_in, name="rater_let_in"),
    path("campaigns/<slug:slug>/raters/<int:pk>/round/", standing.rater_round, name="rater_round"),
    path("campaigns/<slug:slug>/gold/", gold.campaign_gold, name="campaign_gold"),
    path("campaigns/<slug:slug>/gold/copy/", gold.gold_copy, name="gold_copy"),
    path("campaigns/<slug:slug>/gold/<int:pk>/", gold.gold_item, name="gold_item"),
    path("campaigns/<slug:slug>/gold/<int:pk>/retire/", gold.gold_retire, name="gold_retire"),
    path("campaigns/<slug:slug>/quality/", gold.campaign_quality, name="campaign_quality"),
    path("campaigns/<slug:slug>/rule/", rules.campaign_rule, name="campaign_rule"),
    path("campaigns/<slug:slug>/order/", order.campaign_order, name="campaign_order"),
    path("campaigns/<slug:slug>/recount/", rules.campaign_recount, name="campaign_recount"),
    path("samples/", samples.samples, name="samples"),
    path("samples/<int:pk>/", samples.sample, name="sample"),
    path("datasets/", datasets.datasets, name="datasets"),
    path("datasets/new/", datasets.dataset_new, name="dataset_new"),
    path("datasets/<slug:slug>/", datasets.dataset, name="dataset"),
    path("datasets/<slug:slug>/freeze/", datasets.dataset_freeze, name="dataset_freeze"),
    path("datasets/<slug:slug>/campaigns/", datasets.dataset_campaigns, name="dataset_campaigns"),
    path("datasets/<slug:slug>/v<int:number>/", datasets.dataset_version, name="dataset_version"),
    path(
        "datasets/<slug:slug>/v<int:number>/download/",
        datasets.dataset_version_download,
        name="dataset_version_download",
    ),
]
