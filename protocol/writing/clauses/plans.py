"""The catalogues of clauses of process plans, maintenance plans, their steps, designs, and a design's values."""

from __future__ import annotations

from protocol.writing.clauses.listing import MOST_LISTED, NUMBERS, listing
from protocol.writing.clauses.stating import clause
from protocol.writing.frames import TITLE, Clause, Frames, Heading

MAINTENANCE, PROCESS, STEP, DESIGN, VALUE = "maintenance_plan", "process_plan", "plan_step", "design", "design_value"
VERSION = 1

_PURPOSE = [
    clause(
        "purpose.failure",
        "purpose",
        [
            "It puts right <failure> on <machine>.",
            "For <failure> on <machine>.",
            "<machine> is to be freed of <failure>.",
        ],
        ["用于处理 <machine> 的<failure>。", "针对 <machine> 的<failure>。", "目的：排除 <machine> 的<failure>。"],
    ),
    clause(
        "origin.event",
        "purpose",
        ["A fault event of <asked_at> asked for it.", "Reason: the fault event of <asked_at>."],
        ["由 <asked_at> 的故障事件触发。", "起因：<asked_at> 的故障事件。"],
        when={"asked": "event"},
    ),
    clause(
        "origin.note",
        "purpose",
        ["A note that was read at <asked_at> asked for it.", "Reason: a note, read at <asked_at>."],
        ["由 <asked_at> 读取的备注触发。", "起因：<asked_at> 读取的备注。"],
        when={"asked": "note"},
    ),
    clause(
        "origin.risk",
        "purpose",
        ["A failure foretold at <asked_at> asked for it.", "Reason: the failure that was foretold at <asked_at>."],
        ["由 <asked_at> 的故障预测触发。", "起因：<asked_at> 预测到的故障。"],
        when={"asked": "risk"},
    ),
    clause(
        "origin.answer",
        "purpose",
        ["The remedy was accepted at <asked_at>.", "Reason: an answer of <asked_at> that accepted the remedy."],
        ["该措施已于 <asked_at> 被采纳。", "起因：<asked_at> 的答复采纳了该措施。"],
        when={"asked": "answer"},
    ),
    clause(
        "origin.request",
        "purpose",
        ["It was asked for at <asked_at>.", "Requested at <asked_at>."],
        ["于 <asked_at> 按请求编制。", "请求时间：<asked_at>。"],
        when={"asked": "request"},
    ),
    clause(
        "origin.place",
        "purpose",
        [
            "In the recommendation the remedy stands at place <place>.",
            "The recommender put the remedy at place <place>.",
        ],
        ["在推荐列表中，该措施排第 <place> 位。", "推荐系统将该措施排在第 <place> 位。"],
    ),
]
_GLANCE = [
    clause(
        "work.many",
        "glance",
        ["<steps> steps, <minutes> of work.", "There are <steps> steps; together they take <minutes>."],
        ["共 <steps> 步，工时 <minutes>。", "步骤数：<steps>，合计用时 <minutes>。"],
        when={"size": "many"},
    ),
    clause(
        "work.one",
        "glance",
        ["A single step, <minutes> of work.", "There is a single step; it takes <minutes>."],
        ["只有一步，工时 <minutes>。", "仅一个步骤，用时 <minutes>。"],
        when={"size": "one"},
    ),
    *listing(
        "machines",
        "glance",
        ["machine"],
        [("Machines: ", "{machine}", ", "), ("It runs over ", "{machine}", ", then ")],
        [("设备：", "{machine}", "、"), ("依次经过", "{machine}", "、")],
    ),
    clause(
        "machines.many",
        "glance",
        ["More machines take part than can be listed here: see the steps."],
        ["涉及的设备较多，详见各步骤。"],
        when={"machines": "many"},
    ),
    *listing(
        "tools",
        "glance",
        ["tool"],
        [("Tools: ", "{tool}", ", "), ("Get these tools ready: ", "{tool}", ", ")],
        [("工具：", "{tool}", "、"), ("准备工具：", "{tool}", "、")],
    ),
    clause(
        "tools.none",
        "glance",
        ["No tools are needed.", "It needs no tools."],
        ["无需工具。", "不需要工具。"],
        when={"tools": "none"},
    ),
    clause(
        "tools.many",
        "glance",
        ["More tools are needed than can be listed here: see the steps."],
        ["所需工具较多，详见各步骤。"],
        when={"tools": "many"},
    ),
    *listing(
        "parts",
        "glance",
        ["part", "quantity"],
        [("Parts: ", "{part} ({quantity})", ", "), ("Draw from the store: ", "{part} ({quantity})", ", ")],
        [("备件物料：", "{part}（{quantity}）", "、"), ("领料：", "{part}（{quantity}）", "、")],
    ),
    clause(
        "parts.none",
        "glance",
        ["No parts are used up.", "Nothing is drawn from the store."],
        ["不消耗备件。", "无需领料。"],
        when={"parts": "none"},
    ),
    clause(
        "parts.many",
        "glance",
        ["More parts are used than can be listed here: see the steps."],
        ["所用备件较多，详见各步骤。"],
        when={"parts": "many"},
    ),
]


def _choice(usual: tuple[str, str], other: tuple[str, str]) -> list[Clause]:
    """Which alternative this is. usual, other: how one that is typical and one that is not are described."""
    return [
        clause(
            "choice.place",
            "choice",
            ["Alternative <candidate> of <candidates>.", "This is number <candidate> of <candidates> alternatives."],
            ["方案 <candidate>，共 <candidates> 个。", "这是 <candidates> 个备选方案中的第 <candidate> 个。"],
        ),
        clause("aim.usual", "choice", [usual[0]], [usual[1]], when={"aim": "usual"}),
        clause(
            "aim.thorough",
            "choice",
            ["Settings as typical as the limits allow, and every optional step that is possible here."],
            ["参数取限值内最接近典型值的数值，并包含所有可行的可选步骤。"],
            when={"aim": "thorough"},
        ),
        clause(
            "aim.short",
            "choice",
            ["Each setting in turn is the one that takes the least time, nothing optional."],
            ["各参数依次取耗时最短的数值，不含可选步骤。"],
            when={"aim": "short"},
        ),
        clause(
            "aim.small",
            "choice",
            ["Each measure in turn is the smallest that the rules allow."],
            ["各尺寸依次取规则允许的最小值。"],
            when={"aim": "small"},
        ),
        clause(
            "aim.large",
            "choice",
            ["Each measure in turn is the largest that the rules allow."],
            ["各尺寸依次取规则允许的最大值。"],
            when={"aim": "large"},
        ),
        clause(
            "aim.other",
            "choice",
            [other[0]],
            [other[1]],
            when={"aim": "other"},
        ),
        clause(
            "aim.model",
            "choice",
            ["A language model chose it from what the catalogue allows."],
            ["由语言模型在目录允许的范围内选定。"],
            when={"aim": "model"},
        ),
        clause(
            "choice.score",
            "choice",
            ["The recommender scored it <score>.", "Score of the recommender: <score>."],
            ["推荐得分 <score>。", "推荐系统评分：<score>。"],
            optional=True,
        ),
        clause(
            "choice.checked",
            "choice",
            ["It was checked by <checks> rules and breaks none.", "None of <checks> rules is broken."],
            ["已按 <checks> 条规则检查，无一违反。", "经 <checks> 条规则核查，全部符合。"],
        ),
    ]


def _after_several() -> list[Clause]:
    """A step that waits for two to nine others."""
    made = []
    for count in range(2, MOST_LISTED + 1):
        slots = [f"<after_{number}>" for number in range(1, count + 1)]
        en, zh = f"{', '.join(slots[:-1])} and {slots[-1]}", "、".join(slots)
        made.append(
            clause(
                f"after.{NUMBERS[count]}",
                "step",
                [f"It can begin once steps {en} are done.", f"It waits for steps {en}."],
                [f"步骤 {zh} 均完成后即可开始。", f"需等待步骤 {zh}。"],
                unless=[f"after_{count + 1}"] if count < MOST_LISTED else [],
            )
        )
    return made


_HEADINGS = [
    Heading(section="purpose", en="What it is for", zh="目的"),
    Heading(section="glance", en="At a glance", zh="概要"),
    Heading(section="choice", en="This alternative", zh="本方案"),
]
_PLAN_CHOICE = _choice(
    ("Settings as typical as the limits allow, nothing optional.", "参数取限值内最接近典型值的数值，不含可选步骤。"),
    (
        "Settings as typical as the limits allow; another remedy, machine, tool or order of steps than usual.",
        "参数取限值内最接近典型值的数值；措施、设备、工具或步骤顺序与常规方案不同。",
    ),
)
MAINTENANCE_PLAN = Frames(
    document=MAINTENANCE,
    version=VERSION,
    headings=_HEADINGS,
    clauses=[
        clause(
            "title.plan",
            TITLE,
            ["Maintenance plan for <machine>: <action>", "<action> on <machine>"],
            ["<machine> 维护计划：<action>", "<action>（<machine>）"],
        ),
        *_PURPOSE,
        *_GLANCE,
        *_PLAN_CHOICE,
    ],
)
PROCESS_PLAN = Frames(
    document=PROCESS,
    version=VERSION,
    headings=_HEADINGS,
    clauses=[
        clause(
            "title.plan",
            TITLE,
            ["Process plan for <product>", "How to make <product>"],
            ["<product>工艺计划", "<product>的加工方案"],
        ),
        clause(
            "purpose.product",
            "purpose",
            ["Product: <product>, of <material>.", "What is made: <product>; material: <material>."],
            ["产品：<product>，材料：<material>。", "加工<product>；材料为<material>。"],
        ),
        clause(
            "purpose.product_alone",
            "purpose",
            ["Product: <product>.", "What is made: <product>."],
            ["产品：<product>。", "加工<product>。"],
            unless=["material"],
        ),
        *[one for one in _PURPOSE if one.id == "origin.request"],
        *_GLANCE,
        *_PLAN_CHOICE,
    ],
)
PLAN_STEP = Frames(
    document=STEP,
    version=VERSION,
    headings=[Heading(section="step", en="What to do", zh="操作")],
    clauses=[
        clause("title.step", TITLE, ["Step <number>"], ["第 <number> 步"]),
        clause(
            "do.at",
            "step",
            ["At <machine>: <operation>.", "<machine>: <operation>."],
            ["<machine>：<operation>。", "设备<machine>：<operation>。"],
        ),
        clause(
            "do.here",
            "step",
            ["<operation>.", "To do: <operation>."],
            ["<operation>。", "操作：<operation>。"],
            unless=["machine"],
        ),
        clause(
            "after.one",
            "step",
            ["It can begin once step <after_1> is done.", "It waits for step <after_1> alone."],
            ["步骤 <after_1> 完成后即可开始。", "只需等待步骤 <after_1>。"],
            unless=["after_2"],
        ),
        *_after_several(),
        clause(
            "after.nothing",
            "step",
            ["It need not wait for any other step.", "Begin whenever it suits."],
            ["无需等待其他步骤。", "可随时开始。"],
            when={"start": "free"},
        ),
        clause("tool.one", "step", ["Tool: <tool>.", "Use <tool>."], ["工具：<tool>。", "使用<tool>。"]),
        *listing(
            "settings",
            "step",
            ["setting", "value"],
            [("Keep to: ", "{setting} {value}", "; "), ("Target values: ", "{setting} {value}", "; ")],
            [("要求：", "{setting} {value}", "；"), ("目标值：", "{setting} {value}", "；")],
        ),
        *listing(
            "parts",
            "step",
            ["part", "quantity"],
            [("Use up: ", "{part} ({quantity})", ", "), ("Parts: ", "{part} ({quantity})", ", ")],
            [("使用：", "{part}（{quantity}）", "、"), ("备件物料：", "{part}（{quantity}）", "、")],
        ),
        clause(
            "minutes.one", "step", ["Allow <minutes>.", "Time: <minutes>."], ["用时 <minutes>。", "工时：<minutes>。"]
        ),
    ],
)
DESIGN_PROPOSAL = Frames(
    document=DESIGN,
    version=VERSION,
    headings=[
        Heading(section="purpose", en="What was asked for", zh="要求"),
        Heading(section="rules", en="Rules that it keeps", zh="满足的规则"),
        Heading(section="choice", en="This alternative", zh="本方案"),
    ],
    clauses=[
        clause(
            "title.design",
            TITLE,
            ["Design proposal: <family>", "<family>: a proposal"],
            ["设计方案：<family>", "<family>设计方案"],
        ),
        *listing(
            "needs",
            "purpose",
            ["need"],
            [("", "{need}", "; "), ("Asked for: ", "{need}", ", ")],
            [("", "{need}", "；"), ("须满足：", "{need}", "，")],
        ),
        clause(
            "needs.none",
            "purpose",
            ["Nothing but the family was asked for.", "No measure was asked for."],
            ["仅指定了零件族。", "未提出尺寸要求。"],
            when={"needs": "none"},
        ),
        *listing(
            "rules",
            "rules",
            ["rule"],
            [("", "{rule}", "; "), ("Kept: ", "{rule}", ", ")],
            [("", "{rule}", "；"), ("已满足：", "{rule}", "，")],
        ),
        *_choice(
            (
                "Each measure in turn is as near to its typical value as the rules allow.",
                "各尺寸依次取规则允许的最接近典型值的数值。",
            ),
            ("Other measures than the usual ones, within the same rules.", "与常规方案不同的尺寸，同样符合规则。"),
        ),
    ],
)
DESIGN_VALUE = Frames(
    document=VALUE,
    version=VERSION,
    headings=[Heading(section="value", en="Value", zh="取值")],
    clauses=[
        clause("title.value", TITLE, ["<name>"], ["<name>"]),
        clause(
            "value.standard",
            "value",
            [
                "<value>, a standard value between <lowest> and <highest>.",
                "Standard value <value> of <lowest> to <highest>.",
            ],
            ["<value>，为 <lowest> 至 <highest> 之间的标准值。", "标准值 <value>，范围 <lowest> 至 <highest>。"],
            when={"origin": "standard"},
        ),
        clause(
            "value.range",
            "value",
            ["<value>, from the range <lowest> to <highest>.", "Chosen: <value>, allowed <lowest> to <highest>."],
            ["<value>，取自范围 <lowest> 至 <highest>。", "选定 <value>，允许 <lowest> 至 <highest>。"],
            when={"origin": "range"},
        ),
        clause(
            "value.derived",
            "value",
            ["<value>, which follows from the measures.", "Computed: <value>."],
            ["<value>，由各尺寸计算得出。", "计算值：<value>。"],
            when={"origin": "derived"},
        ),
    ],
)
PLAN_CATALOGUES = {
    one.document: one for one in (MAINTENANCE_PLAN, PROCESS_PLAN, PLAN_STEP, DESIGN_PROPOSAL, DESIGN_VALUE)
}
"""Document -> its catalogue of clauses."""
