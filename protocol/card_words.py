"""What a model card says, in English and in Chinese. What trainers wrote themselves (use, limits, verdict, names of
references) is shown as they wrote it."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]

WORDS: dict[str, tuple[str, str]] = {
    # sections
    "verdict": ("Verdict", "结论"),
    "model": ("What it is", "模型说明"),
    "use": ("What it is for", "预期用途"),
    "lineage": ("Where it comes from", "来源"),
    "parameters": ("How it was trained", "训练参数"),
    "quality": ("How good it is", "质量"),
    "packing": ("What packing cost", "压缩损失"),
    "forms": ("Forms that were tried", "尝试过的形式"),
    "speed": ("Size and speed", "大小与速度"),
    "proof": ("How it is proven", "验证方式"),
    "lite": ("The same model for TFLite", "TFLite 版本"),
    "files": ("Files", "文件"),
    # lines
    "eligible": ("may serve", "可以投入使用"),
    "refused": ("may not serve", "不得投入使用"),
    "decision": ("Decision", "决定"),
    "why": ("Why", "理由"),
    "digest": ("Digest (sha256)", "摘要 (sha256)"),
    "slot": ("Slot", "用途槽位"),
    "family": ("Family", "类别"),
    "algorithm": ("Algorithm", "算法"),
    "version": ("Version", "版本"),
    "runtime": ("Runtime", "运行时"),
    "targets": ("Targets", "目标格式"),
    "licence": ("Licence", "许可"),
    "because": ("Trained because", "训练原因"),
    "intended": ("Intended use", "预期用途"),
    "limits": ("Limits", "局限"),
    "names": ("Names in it", "包含的名称"),
    "data": ("Data (sha256)", "数据 (sha256)"),
    "rows": ("Rows", "行数"),
    "code": ("Code version", "代码版本"),
    "seed": ("Seed", "随机种子"),
    "trained": ("Trained", "训练时间"),
    "combined": ("Combination of all forecasters", "全部预测器的组合"),
    "bound": ("Bound", "界限"),
    "task_change": ("Change of the task's figure", "任务指标变化"),
    "rel_rms": ("Element rms, of the answers' deviation", "逐元素均方根（相对答案标准差）"),
    "max_abs": ("Largest element error, of the answers' deviation", "最大逐元素误差（相对答案标准差）"),
    "float_bytes": ("As trained", "训练后大小"),
    "packed_bytes": ("Packed", "压缩后大小"),
    "latency": ("One call", "单次调用"),
    "measured_on": ("Measured on", "测量机器类别"),
    "rss": ("Memory of a process with it", "加载后进程内存"),
    "golden": ("Golden tolerance", "黄金向量容差"),
    "golden_words": (
        "|own answer - golden answer| <= {atol:g} + {rtol:g} * |golden answer|, on the gateway's own processor",
        "|本机答案 - 黄金答案| <= {atol:g} + {rtol:g} * |黄金答案|，在网关自身处理器上验证",
    ),
    "recipe": ("Recipe", "量化方式"),
    "inputs": ("Inputs", "输入"),
    "outputs": ("Outputs", "输出"),
    "not_measured": ("not measured", "未测量"),
    "not_said": ("not said", "未说明"),
    "none_yet": ("none yet", "尚无"),
    "of_float": ("{share:.0%} of the float size", "浮点大小的 {share:.0%}"),
    # columns
    "metric": ("figure", "指标"),
    "better": ("better", "更优方向"),
    "lower": ("lower", "越低越好"),
    "higher": ("higher", "越高越好"),
    "this": ("this model", "本模型"),
    "interval": ("95 % interval", "95% 置信区间"),
    "reference": ("simple reference", "简单基准"),
    "champion": ("champion", "现役模型"),
    "split": ("held out", "留出集"),
    "n": ("rows", "行数"),
    "form": ("form", "形式"),
    "size": ("size", "大小"),
    "call": ("one call", "单次调用"),
    "task": ("task", "任务指标"),
    "rms": ("element rms", "均方根误差"),
    "strain": ("out of the ordinary", "异常输入"),
    "outcome": ("outcome", "结果"),
    "taken": ("taken", "已采用"),
    "parameter": ("parameter", "参数"),
    "value": ("value", "值"),
    "file": ("file", "文件"),
    # groups of parameters
    "regularization": ("Regularization and dropout", "正则化与 Dropout"),
    "pruning": ("Pruning", "剪枝"),
    "teacher": ("Teacher (distillation)", "教师模型（蒸馏）"),
    "optimization": ("Optimization", "优化"),
    "other": ("Other settings", "其他设置"),
    "source": (
        "Sections after Mitchell et al., “Model Cards for Model Reporting”, FAT* 2019.",
        "章节结构参照 Mitchell 等，《Model Cards for Model Reporting》，FAT* 2019。",
    ),
}
"""key -> (English, Chinese)."""

METRICS: dict[str, tuple[str, str]] = {
    "mae_relative_to_naive": ("mean absolute error over the naive forecast's", "平均绝对误差（相对朴素预测）"),
    "f1": ("F1", "F1"),
    "log_loss": ("log loss", "对数损失"),
    "brier": ("Brier score", "Brier 分数"),
    "ndcg_at_5": ("NDCG@5", "NDCG@5"),
    "ndcg_at_10": ("NDCG@10", "NDCG@10"),
    "recall_at_10": ("recall@10", "召回率@10"),
    "hit_at_3": ("a right item among the first three", "前三项命中率"),
    "missed_shifts": ("missed shifts", "漏检偏移率"),
    "false_alarms_per_machine_month": ("false alarms a machine-month", "每机月误报数"),
    "choice_log_likelihood": ("log-likelihood of people's choices", "人工选择的对数似然"),
    "perplexity_without_mask": ("perplexity without a mask", "无掩码困惑度"),
}
"""Figures that have a name of their own; any other is shown by its name in the passport."""


def word(key: str, language: Language) -> str:
    """What the card says for a key."""
    return WORDS[key][language == "zh"]


def metric_word(metric: str, language: Language) -> str:
    """A figure's name for people."""
    known = METRICS.get(metric)
    return metric.replace("_", " ") if known is None else known[language == "zh"]
