"""Whatever raters' tabs, curators and the clock do, in any order: no item gets too many judgments, each counts once, each chain
is one line, and every count is what its rows add up to."""

import uuid
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from django.db import transaction
from django.db.models import Count, Q
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accounts.models import User
from curation import mixing, probes, tallies
from curation.adjudications import adjudicate, latest_of, undo_adjudication
from curation.assignments import LeaseRefused, done_by, lease_items, left_for
from curation.campaigns import (
    close_campaign,
    create_compare_campaign,
    open_campaign,
    pause_campaign,
    set_raters,
)
from curation.exclusions import set_excluded
from curation.gold import mark_gold, set_gold_percent
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import (
    Assignment,
    Campaign,
    CampaignRater,
    CampaignState,
    ItemOrder,
    Judgment,
    Probe,
    RaterExclusion,
    RaterState,
)
from curation.order import Order, set_order, turn
from curation.probes import set_probe_percent
from curation.recounts import recount, set_rule
from curation.rules import MAJORITY, Rule, RuleKind
from tests.curation.factories import make_campaign, make_curator, make_rater
from tests.curation.test_leases import expire, make_pairs

pytestmark = pytest.mark.django_db
ITEMS, OVERLAP = 4, 2
EXAMPLES, STEPS = 12, 12
TABS = [0, 0, 1, 2]  # Whose tab it is: the first rater has two.
RULES = [MAJORITY, Rule(RuleKind.UNANIMOUS), Rule(RuleKind.DAWID_SKENE, 0.7)]
ACTIONS = st.sampled_from(["answer", "answer", "answer", "skip", "flag"])
TAB = st.integers(0, len(TABS) - 1)
PLACE = st.integers(0, 3)
BY_SCORE = {
    ItemOrder.LOWEST: lambda score: score,
    ItemOrder.HIGHEST: lambda score: -score,
    ItemOrder.UNCERTAIN: lambda score: abs(score - 0.5),
}


@dataclass
class Tab:
    """What one tab believes to hold, which may long be somebody else's."""

    rater: User
    held: list[int] = field(default_factory=list)

    def at(self, place: int) -> int | None:
        return self.held[place % len(self.held)] if self.held else None


def machine_for(campaign: Campaign, raters: list[User]) -> type[RuleBasedStateMachine]:
    curator = campaign.created_by
    question = campaign.questions.get()
    values = [choice["value"] for choice in question.choices]
    VALUES = st.sampled_from(values)
    # Among gold and what is asked again it is no use to count how much a rater is handed.
    is_plain = not campaign.items.filter(is_gold=True).exists() and not campaign.probe_percent

    class Rating(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            # Each run of the machine finds the campaign untouched.
            self.atomic = transaction.atomic()
            self.atomic.__enter__()
            self.tabs = [Tab(raters[number]) for number in TABS]
            self.stored: dict[str, tuple[User, dict]] = {}
            self.chains: defaultdict[int, list[str]] = defaultdict(list)

        def teardown(self):
            try:
                assert list(problems()) == []
            finally:
                transaction.set_rollback(True)
                self.atomic.__exit__(None, None, None)

        def row(self, assignment, action="answer", value=values[0], supersedes=None):
            return {
                "id": str(uuid.uuid4()),
                "assignment": assignment,
                "action": action,
                "answers": {question.name: value} if action == "answer" else {},
                "reason": "",
                "shown_at": "2026-11-23T09:30:00Z",
                "decided_at": "2026-11-23T09:30:02Z",
                "order": [],
                "supersedes": supersedes,
            }

        def send(self, rater, rows, *expected):
            results = record_judgments(rater, rows)
            assert [result.status for result in results] == list(expected), results
            for row, status in zip(rows, expected, strict=True):
                if status == "stored":
                    self.stored[row["id"]] = (rater, row)
                    self.chains[row["assignment"]].append(row["id"])

        @initialize(
            by_rule=st.sampled_from(RULES), values=st.lists(st.lists(VALUES, max_size=2), min_size=3, max_size=3)
        )
        def begin(self, by_rule, values):
            """What some have judged, so that there is something to change, and what they then hold."""
            self.count_anew(by_rule)
            for tab, said in zip(self.tabs[1:], values, strict=True):
                if said:
                    tab.held = [row.pk for row in lease_items(campaign, tab.rater, len(said))]
                    # Where others hold the rest, fewer are to be had than were asked for.
                    rows = [self.row(held, value=value) for held, value in zip(tab.held, said, strict=False)]
                    self.send(tab.rater, rows, *["stored"] * len(rows))
                tab.held = [row.pk for row in lease_items(campaign, tab.rater, 2)]

        @rule(tab=TAB, count=st.integers(1, 4))
        def lease(self, tab, count):
            tab = self.tabs[tab]
            left, ordinary = left_for(campaign, tab.rater), self.ordinary_left(tab.rater)
            state = Campaign.objects.get(pk=campaign.pk).state
            try:
                tab.held = [row.pk for row in lease_items(campaign, tab.rater, count)]
            except LeaseRefused:
                assert state != CampaignState.OPEN or self.is_out(tab.rater)
                return
            assert state == CampaignState.OPEN
            assert not self.is_out(tab.rater)
            # Nobody else is at work at this very moment, so that all that is left can be had.
            assert len(tab.held) == min(count, left) if is_plain else len(tab.held) >= min(count, ordinary)
            assert set(Assignment.objects.filter(pk__in=tab.held).values_list("rater", flat=True)) <= {tab.rater.pk}

        def is_removed(self, rater):
            return CampaignRater.objects.filter(campaign=campaign, rater=rater).exclude(removed_at=None).exists()

        def is_out(self, rater):
            """Taken out of the campaign, or paused for what they said of gold."""
            place = CampaignRater.objects.get(campaign=campaign, rater=rater)
            return place.removed_at is not None or place.state == RaterState.PAUSED

        def ordinary_left(self, rater):
            """By the rows themselves: what the rater holds and what is free for them, without what measures them."""
            own = Assignment.objects.live().filter(rater=rater, item__campaign=campaign, item__is_open=True)
            return own.count() + campaign.items.free_for(rater, OVERLAP).count()

        @rule(number=st.integers(0, len(raters) - 1))
        def remove_or_bring_back(self, number):
            """In the middle of their work, which their tabs go on sending."""
            before = set(
                CampaignRater.objects.filter(campaign=campaign, removed_at=None).values_list("rater", flat=True)
            )
            wanted = before ^ {raters[number].pk}
            set_raters(campaign, [rater for rater in raters if rater.pk in wanted], by=curator)
            assert self.is_removed(raters[number]) == (raters[number].pk in before)

        @rule(tab=TAB, place=PLACE, action=ACTIONS, value=VALUES)
        def submit(self, tab, place, action, value):
            tab = self.tabs[tab]
            if (held := tab.at(place)) is not None:
                self.send(tab.rater, [self.row(held, action, value)], self.becomes(held, action))

        def becomes(self, assignment, action):
            """Of a row that names none before it: it takes back no answer unless it is one."""
            if self.is_ended(assignment):
                return "rejected"
            chain = self.chains[assignment]
            answered = bool(chain) and self.stored[chain[-1]][1]["action"] == "answer"
            return "rejected" if answered and action in ("skip", "flag") else "stored"

        def is_ended(self, assignment):
            """Whether it was done with when the campaign was closed, or its rater taken out of it."""
            row = Assignment.objects.select_related("item__campaign").get(pk=assignment)
            if row.state == "leased":
                return False
            now = row.item.campaign
            ends = [CampaignRater.objects.get(campaign=campaign, rater=row.rater_id).removed_at]
            ends.append(now.closed_at if now.state == CampaignState.CLOSED else None)
            came = Judgment.objects.get(pk=self.chains[assignment][-1]).received_at
            return any(end is not None and came < end for end in ends)

        @rule(tab=TAB, action=ACTIONS, value=VALUES)
        def submit_all_at_once_and_one_twice(self, tab, action, value):
            tab = self.tabs[tab]
            if not tab.held:
                return
            rows = [self.row(assignment, action, value) for assignment in tab.held]
            become = [self.becomes(assignment, action) for assignment in tab.held]
            self.send(tab.rater, [*rows, rows[0]], *become, "duplicate" if become[0] == "stored" else "rejected")

        @rule(tab=TAB, place=PLACE, value=VALUES, back=st.integers(0, 2))
        def correct(self, tab, place, value, back):
            """By a tab that knows the chain's end, or an earlier row of it."""
            tab = self.tabs[tab]
            held = tab.at(place)
            if held is None or len(self.chains[held]) <= back:
                return
            becomes = "rejected" if self.is_ended(held) else "stored"
            row = self.row(held, value=value, supersedes=self.chains[held][-1 - back])
            self.send(tab.rater, [row], becomes)

        @rule(tab=TAB, place=PLACE)
        def undo(self, tab, place):
            tab = self.tabs[tab]
            assignment = tab.at(place)
            if assignment is None or not self.chains[assignment]:
                return
            chain = self.chains[assignment]
            again = self.stored[chain[-1]][1]["action"] == "undo" or self.is_ended(assignment)
            row = self.row(assignment, "undo", supersedes=chain[-1])
            self.send(tab.rater, [row], "rejected" if again else "stored")
            if len(chain) > 2:
                self.send(tab.rater, [self.row(assignment, "undo", supersedes=chain[0])], "rejected")

        @rule(tab=TAB, place=PLACE, value=VALUES)
        def answer_undo_and_answer_in_one_request(self, tab, place, value):
            tab = self.tabs[tab]
            held = tab.at(place)
            if held is None:
                return
            first = self.row(held, value=value)
            undo = self.row(held, "undo", supersedes=first["id"])
            last = self.row(held, supersedes=undo["id"])
            becomes = "rejected" if self.is_ended(held) else "stored"
            self.send(tab.rater, [first, undo, last], becomes, becomes, becomes)

        @precondition(lambda self: self.stored)
        @rule(data=st.data())
        def send_again(self, data):
            rater, row = self.stored[data.draw(st.sampled_from(list(self.stored)))]
            self.send(rater, [row], "duplicate")
            stranger = next(person for person in raters if person != rater)
            other = {**row, "id": str(uuid.uuid4())}
            self.send(stranger, [row, other], "rejected", "rejected")

        @rule(data=st.data())
        def run_out(self, data):
            live = list(Assignment.objects.live().filter(item__campaign=campaign).order_by("pk"))
            if not live:
                return
            expire(*data.draw(st.lists(st.sampled_from(live), min_size=1, max_size=3)))

        @rule(verb=st.sampled_from([open_campaign, open_campaign, pause_campaign, close_campaign]))
        def move(self, verb):
            campaign.refresh_from_db()
            verb(campaign, by=curator)

        @rule(place=st.integers(0, ITEMS - 1), value=VALUES)
        def decide(self, place, value):
            item = campaign.items.get(position=place)
            end = latest_of(item)
            if end is not None and end.action == "decide":
                undo_adjudication(end, by=curator)
            else:
                adjudicate(item, by=curator, answers={question.name: value}, seen=end and end.pk)

        @rule(number=st.integers(0, len(raters) - 1))
        def exclude_or_take_in(self, number):
            place = CampaignRater.objects.select_related("campaign", "rater").get(
                campaign=campaign, rater=raters[number]
            )
            set_excluded(place, excluded=not place.excluded, reason="A reason.", by=curator)

        @rule(by_rule=st.sampled_from(RULES))
        def count_anew(self, by_rule):
            """By another rule, or by the same, which estimates raters anew where it is an estimated one."""
            campaign.refresh_from_db()
            if campaign.rule == by_rule.name:
                recount(campaign, by=curator)
            else:
                set_rule(campaign, by_rule, by=curator)

        @rule(kind=st.sampled_from(ItemOrder), by_bucket=st.booleans())
        def reorder(self, kind, by_bucket):
            threshold = 0.5 if kind == ItemOrder.UNCERTAIN else None
            set_order(campaign, Order(kind, by_bucket, threshold), by=curator)

        @invariant()
        def what_goes_out_first_has_the_score_that_was_asked_for(self):
            now = Campaign.objects.get(pk=campaign.pk)
            scores = list(now.items.filter(is_open=True).order_by(*turn(now)).values_list("score", flat=True))
            key = BY_SCORE.get(now.item_order)
            if key is not None and not now.by_bucket:
                assert scores == sorted(scores, key=key)

        @rule()
        def fold(self):
            tallies.fold()

        @invariant()
        def no_item_has_too_many(self):
            answer = Q(judgments__action="answer", judgments__superseded_by=None)
            # Who was excluded for a time comes back on top of those that took their place.
            steady = [rater for rater in raters if not RaterExclusion.objects.filter(rater=rater).exists()]
            mine = answer & Q(judgments__rater__in=steady)
            for item in campaign.items.to_decide().annotate(
                in_time=Count("judgments", filter=mine & Q(judgments__late=False)),
                late=Count("judgments", filter=mine & Q(judgments__late=True)),
                counted=Count("judgments", filter=answer & Q(judgments__assignment__excluded=False)),
            ):
                live = Assignment.objects.live().filter(item=item, rater__in=steady).count()
                assert item.in_time <= campaign.most
                assert item.late or item.in_time + live <= campaign.most
                assert item.judged == item.counted
                assert len(steady) < len(raters) or item.judged == item.in_time + item.late
                if campaign.most == OVERLAP:
                    assert item.is_open == (item.judged < OVERLAP and not item.adjudicated)

        @invariant()
        def each_judgment_counts_once_and_each_chain_is_one_line(self):
            expected = {
                judgment: (assignment, before)
                for assignment, chain in self.chains.items()
                for judgment, before in zip(chain, [None, *chain], strict=False)
            }
            rows = Judgment.objects.filter(item__campaign=campaign).values_list("pk", "assignment", "supersedes")
            assert {str(pk): (assignment, before and str(before)) for pk, assignment, before in rows} == expected

        @invariant()
        def counts_are_what_the_rows_add_up_to(self):
            assert tallies.differences(campaign) == []
            for rater in raters:
                ordinary, left = self.ordinary_left(rater), left_for(campaign, rater)
                if self.is_out(rater):
                    assert left == 0
                else:
                    assert left == ordinary if is_plain else left >= ordinary
                through = Assignment.objects.filter(rater=rater, state__in=["judged", "released"])
                assert done_by(campaign, rater) == through.filter(item__campaign=campaign).count()

        @invariant()
        def what_measures_raters_decides_nothing(self):
            measures = campaign.items.filter(is_gold=True)
            assert set(measures.values_list("is_open", "judged", "verdicts__outcome", "adjudicated")) <= {
                (False, 0, None, "")
            }
            for probe in Probe.objects.filter(item__campaign=campaign):
                # It goes to who is asked again, of what they judged, and to nobody else.
                assert set(probe.item.assignments.values_list("rater", flat=True)) <= {probe.rater_id}
                assert Judgment.objects.filter(item=probe.of_id, rater=probe.rater_id).exists()
                assert not probe.of.is_gold

        @invariant()
        def an_item_is_open_while_it_wants_more_and_no_further(self):
            now = Campaign.objects.get(pk=campaign.pk)
            for item in campaign.items.to_decide():
                assert item.is_open or item.judged >= OVERLAP or item.adjudicated
                assert not item.is_open or item.judged < now.most
                assert now.state != CampaignState.CLOSED or not item.is_open or item.judged < OVERLAP

    return Rating


def test_rating_in_any_order_keeps_every_promise():
    raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=ITEMS, raters=raters, overlap=OVERLAP)
    run(campaign, raters)


def test_rating_among_gold_probes_and_items_that_ask_for_more_keeps_every_promise(monkeypatch):
    raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=ITEMS + 2, raters=raters, overlap=OVERLAP, max_overlap=OVERLAP + 1)
    for item in campaign.items.order_by("-position")[:2]:
        mark_gold(item, {"alignment": "pass"}, by=campaign.created_by)
    set_gold_percent(campaign, 40, by=campaign.created_by)
    ask_again_soon(campaign, monkeypatch)
    run(campaign, raters)


def test_comparing_among_pairs_that_come_again_keeps_every_promise(monkeypatch):
    raters = [make_rater() for _ in range(3)]
    campaign = create_compare_campaign(
        "Pairs", make_pairs(ITEMS), by=make_curator(), raters=raters, overlap=OVERLAP, open_now=True
    )
    ask_again_soon(campaign, monkeypatch)
    run(campaign, raters)


def ask_again_soon(campaign, monkeypatch):
    """At every second place, and at once: no run is long enough for what is usual."""
    usual = mixing.gold_places
    monkeypatch.setattr(probes, "LEAST_BETWEEN", 0)
    monkeypatch.setattr(
        mixing, "gold_places", lambda place, percent, of="gold": usual(place, percent if of == "gold" else 50, of)
    )
    set_probe_percent(campaign, 10, by=campaign.created_by)
    campaign.refresh_from_db()


def run(campaign, raters):
    # A rule that finds nothing to do returns: to assume away would throw away all that the run did before.
    for item, score in zip(campaign.items.order_by("position")[:ITEMS], (0.6, 0.1, 0.9, 0.35), strict=True):
        campaign.items.filter(pk=item.pk).update(score=score)
    run_state_machine_as_test(
        machine_for(campaign, raters),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
