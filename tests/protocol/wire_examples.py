"""One example of every document of protocol v1. Their bytes are kept in tests/golden/v1 for ever: a released gateway
must still be understood, so an example may be added and never changed."""

from __future__ import annotations

import msgspec

from protocol.capabilities import PlanKind
from protocol.catalogue import ItemCard
from protocol.clocks import ClockConfidence, ClockCorrection
from protocol.covariates import KnownInput, Source
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.observations import SignalBlock, WorkOrder
from protocol.plans import Aim, Asked, Design, DesignValue, Passage, PlanPart, PlanStep, Setting, WorkPlan
from protocol.purchases import DemandSource, OpenOrder, PurchaseProposal, StockLevel, SupplierOption
from protocol.reading.notes import About, Class, Entity, Judged, LikeNote, Note, NoteReading
from protocol.reports import (
    Contribution,
    DemandForecast,
    Evidence,
    FaultEvent,
    FaultRisk,
    Forecast,
    ForecastExplanation,
    ForecastShare,
    LeftOut,
    Member,
    ModelRef,
    PastCase,
    Recommendation,
    RecommendedItem,
    RemainingLife,
    Report,
    Risk,
    Section,
    Severity,
    SimilarCase,
    SupplyRisk,
)
from protocol.schedules import Closed, Placed, PlacedMaintenance, Schedule, Waits
from protocol.sync import Ack, Batch, ClassAck, Command, Numbering, Refusal, Reply, Resend, envelope
from protocol.twin import (
    Assignment,
    Desired,
    Heartbeat,
    LiveError,
    ModelStatus,
    Reported,
    Role,
    RunningModel,
    SkillHealth,
    State,
)
from protocol.writing.facts import Fact, Kind, Span

T0 = 1_760_000_000_000
DIGEST = "ab" * 32
MODEL = ModelRef("forecast.arima", "arima", 3, DIGEST)
EVIDENCE = Evidence(
    machine="P-101",
    signal="vibration",
    start_ms=T0,
    end_ms=T0 + 3_600_000,
    samples=12,
    statistic="max",
    value=7.8,
    unit="mm/s",
    expected_low=3.1,
    expected_high=4.6,
    model=MODEL,
)
EVENT = FaultEvent(
    id="event-1",
    machine="P-101",
    machine_type="pump",
    signal="vibration",
    kind="above_expected",
    severity=Severity.WARNING,
    start_ms=T0,
    detected_ms=T0 + 900_000,
    score=6.5,
    symptoms=["vibration:high"],
    evidence=[EVIDENCE],
)
REPORT = Report(
    id="report-1",
    event="event-1",
    recommendation="recommendation-1",
    machine="P-101",
    issued_ms=T0,
    severity=Severity.WARNING,
    title_en="Feed pump P-101: vibration above its expected range",
    title_zh="进料泵 P-101：振动高于预期范围",
    sections=[
        Section(
            title_en="What happened",
            title_zh="发生了什么",
            text_en="Peak 7.8 mm/s [1].",
            text_zh="峰值 7.8 mm/s [1]。",
            cites=[0],
        )
    ],
    evidence=[EVIDENCE],
    written_by=ModelRef("report", "template"),
)
EXAMPLES: dict[str, msgspec.Struct] = {
    "signal_block": SignalBlock(
        machine="P-101", signal="温度", unit="°C", start_ms=T0, step_ms=900_000, values=[71.25, None, 70.5]
    ),
    "work_order": WorkOrder(
        id="WO-7",
        machine="P-101",
        machine_type="pump",
        time_ms=T0,
        symptoms=["vibration:high"],
        actions=["replace-bearing"],
    ),
    "forecast": Forecast(
        id="f-1",
        machine="P-101",
        signal="vibration",
        unit="mm/s",
        issued_ms=T0,
        inputs_until_ms=T0,
        start_ms=T0,
        step_ms=900_000,
        mean=[3.5, 3.6],
        low=[3.1, 3.0],
        high=[3.9, 4.2],
        model=MODEL,
    ),
    "forecast_calibrated": Forecast(
        id="f-2",
        machine="P-101",
        signal="vibration",
        unit="mm/s",
        issued_ms=T0,
        inputs_until_ms=T0 - 2_700_000,
        stale=True,
        start_ms=T0,
        step_ms=900_000,
        mean=[3.5, 3.6],
        low=[3.1, 3.0],
        high=[3.9, 4.2],
        model=ModelRef("forecast.combined", "combined"),
        low95=[2.9, 2.7],
        high95=[4.2, 4.6],
        coverage=0.81,
        coverage_n=500,
        fallback="stale_inputs",
        members=[Member(MODEL, 0.75), Member(ModelRef("forecast.naive", "naive"), 0.25)],
    ),
    "forecast_explanation": ForecastExplanation(
        id="why-1",
        forecast="f-1",
        event="event-1",
        machine="P-101",
        signal="vibration",
        unit="mm/s",
        issued_ms=T0,
        method="sampled",
        orders=8,
        baseline_en="each part at the window's mean",
        baseline_zh="各部分取窗口均值",
        base=3.2,
        total=3.55,
        shares=[
            ForecastShare(
                kind="recent",
                label_en="the last 3 h",
                label_zh="最近 3 小时",
                start_ms=T0 - 10_800_000,
                end_ms=T0,
                amount=0.4,
                error=0.02,
            ),
            ForecastShare(kind="calendar", label_en="time of day", label_zh="一天中的时刻", amount=-0.05),
        ],
        cases=[
            PastCase(start_ms=T0 - 180_000_000, end_ms=T0 - 169_200_000, similarity=0.97, followed=[3.5, None, 3.75])
        ],
        model=MODEL,
    ),
    "fault_event": EVENT,
    "known_input": KnownInput(
        id="known-1",
        machine="P-101",
        covariate="load",
        start_ms=T0,
        end_ms=T0 + 14_400_000,
        known_ms=T0 - 86_400_000,
        value=0.85,
        source=Source.SCHEDULE,
        origin="schedule-12",
    ),
    "remaining_life": RemainingLife(
        id="life-1",
        machine="P-101",
        machine_type="pump",
        unit="h",
        issued_ms=T0,
        inputs_until_ms=T0,
        age=41.5,
        cap=48.0,
        median=30.5,
        low=18.0,
        high=44.0,
        levels=[0.1, 0.5, 0.9],
        quantiles=[18.0, 30.5, 44.0],
        risks=[Risk(6.0, 0.01), Risk(24.0, 0.25)],
        expected=31.0,
        usual=38.0,
        contributions=[Contribution("vibration", -5.5), Contribution("bearing temperature", -1.5)],
        model=ModelRef("fault.life", "hazard_net", 1, DIGEST),
    ),
    "recommendation": Recommendation(
        id="recommendation-1",
        event="event-1",
        machine="P-101",
        issued_ms=T0,
        profile=["symptom:vibration:high", "type:pump"],
        items=[
            RecommendedItem(
                item="action:replace-bearing",
                position=1,
                score=0.82,
                contributions=[Contribution("symptom:vibration:high", 0.82)],
            )
        ],
        model=ModelRef("recommend.items", "item_cf", 1, DIGEST),
    ),
    "demand_forecast": DemandForecast(
        id="demand-1",
        part="bearing 6204",
        unit="pcs",
        issued_ms=T0 + 1,
        inputs_until_ms=T0,
        first_month="2025-11",
        known_months=23,
        pattern="intermittent",
        month_mean=[0.5, 0.75],
        expected=1.25,
        levels=[0.5, 0.95],
        quantiles=[1, 4],
        none_probability=0.375,
        order_up_to=4,
        baseline=1.0,
        contributions=[Contribution("month:earlier", -0.25), Contribution("month:2025-10", 0.5)],
        model=ModelRef("supply.demand", "demand_lstm", 1, DIGEST),
    ),
    "report": REPORT,
    "fault_risk": FaultRisk(
        id="fault-risk-1",
        machine="P-101",
        component="comp2",
        issued_ms=T0,
        horizon_ms=172_800_000,
        probability=0.75,
        alarm=True,
        expected_ms=64_800_000,
        score=1.5,
        expected_score=-4.5,
        contributions=[Contribution("error2 in the last 24 h", 5.0), Contribution("model", 1.0)],
        model=ModelRef("fault.events", "discrete_hazard_trees", 1, DIGEST),
    ),
    "supply_risk": SupplyRisk(
        id="supply-risk-1",
        order_line="PO-7/3",
        issued_ms=T0,
        probability=0.25,
        expected_days=2.5,
        score=-1.0,
        expected_score=-2.0,
        contributions=[Contribution("late share, vendor, 90 days", 1.0)],
        model=ModelRef("supply.late", "asof_logistic_trees", 1, DIGEST),
    ),
    "feedback": Feedback(
        id="fb-1",
        target="recommendation-1",
        item="action:replace-bearing",
        verdict=Verdict.CORRECTED,
        correction="action:realign-coupling",
        time_ms=T0,
    ),
    "heartbeat": Heartbeat(
        boot_id="b-1",
        time_ms=T0,
        uptime_s=12.5,
        rss_bytes=80_000_000,
        counters={"intake.stored": 12},
        skills={"forecast": SkillHealth(expected=4, results=4, latency_us=210.0)},
        live_errors=[LiveError(slot="forecast.lstm", algorithm="lstm", n=40, scaled_error=0.81, coverage=0.79)],
        outbox={"metric": 2},
    ),
    "heartbeat_by_horizon": Heartbeat(
        boot_id="b-1",
        time_ms=T0,
        uptime_s=12.5,
        rss_bytes=80_000_000,
        live_errors=[
            LiveError(
                slot="forecast.lstm",
                algorithm="lstm",
                n=40,
                scaled_error=0.81,
                coverage=0.79,
                by_horizon=[0.8, 0.79, 0.78],
            )
        ],
    ),
    "batch": Batch(
        envelopes=[
            envelope(EVENT, site="demo", gateway="line-1", seq=1, boot="b-1", clock=ClockConfidence.SYNCED, time_ms=T0)
        ],
        shed=[(2, 5)],
    ),
    "ack": Ack(
        classes={
            MessageClass.EVENT: ClassAck(upto=7, beyond=[(9, 9)], gaps=[(8, 8)], nack=[Refusal(7, "unknown_type")])
        }
    ),
    "batch_dead": Batch(envelopes=[], dead=[Refusal(6, "never_acknowledged")]),
    "ack_rate": Ack(classes={MessageClass.EVENT: ClassAck(upto=7)}, rate=250.0),
    "batch_numbering": Batch(envelopes=[], numbering=Numbering("5f0c3a9e77b1d204", 5002)),
    "ack_numbering": Ack(
        classes={
            MessageClass.EVENT: ClassAck(upto=7, numbering="5f0c3a9e77b1d204"),
            MessageClass.BULK: ClassAck(upto=5000, numbering="0d94c1f2a8b6e375", foreign="5f0c3a9e77b1d204"),
        }
    ),
    "resend": Resend(classes={MessageClass.EVENT: [(8, 8)]}),
    "command": Command(id="c-1", name="say_hello", expires_ms=T0, arguments=msgspec.Raw(b"{}")),
    "reply": Reply(id="c-1", done=True, result=msgspec.Raw(b"null")),
    "state": State(online=True, timestamp=T0, boot_id="b-1", agent_version="0.1.0", models={"forecast.arima": 3}),
    "desired": Desired(
        version=2,
        models=[
            Assignment(
                slot="forecast.arima",
                version=3,
                digest=DIGEST,
                size=9000,
                path=f"/api/v1/bundles/{DIGEST}",
                because="x",
            )
        ],
    ),
    "reported": Reported(
        applied_version=2,
        boot_id="b-1",
        time_ms=T0,
        models=[
            RunningModel(
                slot="forecast.arima",
                role=Role.SERVING,
                algorithm="arima",
                version=3,
                digest=DIGEST,
                status=ModelStatus.SERVING,
                since_ms=T0,
                results=9,
            )
        ],
    ),
    "reported_engine": Reported(
        applied_version=2,
        boot_id="b-1",
        time_ms=T0,
        models=[
            RunningModel(
                slot="forecast.lstm",
                role=Role.SERVING,
                algorithm="lstm",
                version=3,
                digest=DIGEST,
                status=ModelStatus.SERVING,
                since_ms=T0,
                results=9,
                engine="tflite by ai-edge-litert 2.3.0",
                engine_why="the fastest here (tflite 472 us, onnxruntime 611 us for the golden inputs)",
            )
        ],
    ),
    "recommendation_with_reasons": Recommendation(
        id="recommendation-2",
        event="event-1",
        machine="P-101",
        issued_ms=T0,
        profile=["symptom:vibration:high", "type:pump"],
        items=[
            RecommendedItem(
                item="action:replace-bearing",
                position=1,
                score=1.25,
                propensity=0.95,
                contributions=[Contribution("symptom:vibration:high", 1.0), Contribution("popularity", 0.25)],
                explored=True,
                similar=[SimilarCase(who="machine:P-102", similarity=0.8, amount=0.5)],
                flips_without=["symptom:vibration:high"],
                shown_share=1.0,
            )
        ],
        model=ModelRef("recommend.items", "hybrid", 2, DIGEST),
        left_out=[LeftOut(item="action:replace-impeller", reason="rejected", since_ms=T0 - 60_000)],
        policy="explore",
    ),
    "item_card": ItemCard(
        id="card-1",
        item="plan:bearing-change-6204",
        issued_ms=T0,
        attributes={"failure": "bearing wear", "type": "pump"},
        text="Change the bearing of a feed pump. 更换进料泵轴承。",
    ),
    "stock_level": StockLevel(
        id="stock-1",
        part="bearing-6204",
        time_ms=T0,
        on_hand=2,
        on_order=[OpenOrder(quantity=4, due_ms=T0 + 86_400_000, supplier="north")],
        first_month="2025-07",
        monthly=[1.0, None, 2.0],
    ),
    "purchase_proposal": PurchaseProposal(
        id="purchase-1",
        part="bearing-6204",
        unit="pcs",
        issued_ms=T0,
        inputs_until_ms=T0,
        on_hand=2,
        on_order=4,
        cover_days=21.0,
        expected=5.5,
        levels=[0.5, 0.9],
        quantiles=[5, 9],
        service_level=0.95,
        order_up_to=10,
        quantity=5,
        supplier="north",
        total_price=62.5,
        order_by_ms=T0 + 86_400_000,
        arrives_ms=T0 + 15 * 86_400_000,
        short_now=0.3,
        short_then=0.04,
        sources=[DemandSource("history", 4.0), DemandSource("risk:P-101 bearing wear", 1.5)],
        options=[
            SupplierOption(
                supplier="north",
                quantity=5,
                unit_price=12.5,
                arrives_ms=T0 + 15 * 86_400_000,
                late_probability=0.1,
                cost=7.25,
                chosen=True,
            )
        ],
        limits=["pack"],
        because_en="Buy 5.",
        because_zh="购买 5 件。",
        model=ModelRef("supply.demand", "factors", 1, DIGEST),
    ),
    "note": Note(
        id="note-1", machine="P-101", time_ms=T0, text="brg noisy, 轴承异响", author="crew-a", about="report-1"
    ),
    "note_reading": NoteReading(
        id="reading-1",
        note="note-1",
        machine="P-101",
        issued_ms=T0,
        judged=[
            Judged(
                about=About.FAILURE,
                classes=[Class("noise", 0.81), Class("vibration", 0.12)],
                sure=True,
                score=1.9,
                baseline=0.4,
                words=[Contribution("4:9", 1.1), Contribution("11:15", 0.4)],
            )
        ],
        entities=[Entity(start=0, end=3, kind="physical_object", probability=0.97)],
        normalised="bearing noisy, 轴承异响",
        like=[LikeNote(case="order-1", similarity=0.74, text="bearing noise", failure="noise", fixed_by=["a"])],
        model=ModelRef("notes.reader", "words", 1, DIGEST),
    ),
    "schedule": Schedule(
        id="schedule-1",
        issued_ms=T0,
        start_ms=T0,
        end_ms=T0 + 5_400_000,
        bound_ms=T0 + 3_600_000,
        tardiness_ms=600_000.0,
        late_jobs=["order-1"],
        placed=[
            Placed(
                job="order-1",
                operation=0,
                machine="R-301",
                start_ms=T0,
                end_ms=T0 + 3_600_000,
                setup_ms=0,
            )
        ],
        maintenance=[
            PlacedMaintenance(
                id="m-1",
                machine="R-301",
                start_ms=T0 + 3_600_000,
                end_ms=T0 + 5_400_000,
                risk_before=0.02,
                cost_ms=1_800_000,
                because="fault.life",
            )
        ],
        closed=[Closed(machine="R-301", start_ms=T0 + 7_200_000, end_ms=T0 + 9_000_000, because="night")],
        critical=[
            Waits(job="order-1", operation=0, machine="R-301", start_ms=T0, end_ms=T0 + 3_600_000, because="start")
        ],
        because_en="Ends at 01:30.",
        because_zh="01:30 结束。",
        solver=ModelRef("schedule.local", "tabu"),
    ),
    "work_plan": WorkPlan(
        id="plan-1",
        item="plan:replace-bearing-1a2b3c4d",
        kind=PlanKind.MAINTENANCE,
        machine="P-101",
        machine_type="pump",
        failure="bearing wear",
        action="action:replace-bearing",
        issued_ms=T0,
        candidate=1,
        candidates=3,
        aim=Aim.THOROUGH,
        score=0.25,
        steps=[
            PlanStep(operation="lock-out", machine="P-101", tool="lockout-kit", minutes=10.0),
            PlanStep(
                operation="fit-bearing",
                machine="P-101",
                settings=[Setting("temperature", 100.0, "°C")],
                parts=[PlanPart("bearing-6204", 1, "pcs")],
                minutes=15.0,
                after=[0],
            ),
        ],
        minutes=25.0,
        asked=Asked.EVENT,
        asked_ms=T0,
        place=1,
        asked_by="event-1",
        sources=["recommendation-1"],
        checks=["capability"],
        model=ModelRef("plan.rules", "rules"),
        ranked_by=ModelRef("recommend.items", "hybrid", 2, DIGEST),
        passages=[
            Passage(
                document="plan_step",
                title_en="Step 1",
                title_zh="第 1 步",
                frames=f"plan_step/1/{DIGEST}",
                facts=[
                    Fact(key="minutes", kind=Kind.COUNT, value=10.0, unit="min", source="catalogue/operation/lock-out")
                ],
                sections=[
                    Section(
                        title_en="What to do",
                        title_zh="操作",
                        text_en="Allow 10 min.",
                        text_zh="用时 10 min。",
                        section="step",
                        clauses_en=["minutes.one#0"],
                        clauses_zh=["minutes.one#0"],
                        spans_en=[Span(6, 12, 0)],
                        spans_zh=[Span(3, 9, 0)],
                    )
                ],
            )
        ],
    ),
    "clock_correction": ClockCorrection(
        id="clock-1", boot="b-1", first_ms=T0, until_ms=T0 + 60_000, shift_ms=18_000_000, issued_ms=T0 + 18_060_000
    ),
    "ack_with_time": Ack(classes={MessageClass.EVENT: ClassAck(upto=7)}, time=T0),
    "design": Design(
        id="design-1",
        item="design:hydraulic-cylinder-1a2b3c4d",
        family="hydraulic-cylinder",
        issued_ms=T0,
        aim=Aim.SMALL,
        values=[
            DesignValue(name="bore", value=63.0, unit="mm"),
            DesignValue(name="push", value=62.5, unit="kN", derived=True),
        ],
        needs=["push >= 60"],
        checks=["rules"],
        model=ModelRef("plan.rules", "rules"),
    ),
}
