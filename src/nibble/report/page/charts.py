"""The charts of the page as Vega-Lite specifications, made with Altair.

They hold no data and no colours: both are given in the browser, where runs are chosen and colours follow the user's
scheme. Names of data and of their fields are those of `nibble.report.page.contents`.
"""

from typing import Any

import altair as alt

_HEIGHT = 300
_SMALL = 200
_TICKS = [0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]  # for error rates on a scale over several decades
ONE_RUN = "one run"  # the kind of a system that shares its run with others
_KINDS = ["float", "trained", "not trained", ONE_RUN]
_SHAPES = ["diamond", "circle", "triangle", "square"]
_APART: dict[str, Any] = {"labelOverlap": "greedy", "labelSeparation": 6}  # of the labels of an axis, on a phone too
_STEPS = alt.Axis(tickCount=5, **_APART)


Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def specifications(decades: bool, one_run: bool) -> dict[str, dict[str, Any]]:
    """Every chart by the name that the page knows it by.

    Args:
        decades: whether error rates differ so much that a linear scale would hide most of them.
        one_run: whether some systems share a run.
    """
    kinds = len(_KINDS) if one_run else _KINDS.index(ONE_RUN)
    error = (
        {
            "scale": alt.Scale(type="symlog", constant=1, nice=False, zero=False, padding=14),
            "axis": alt.Axis(values=_TICKS, **_APART),
        }
        if decades
        else {"scale": alt.Scale(zero=False, padding=12)}
    )
    y = alt.Y("wer:Q", title="WER, %", **error)
    bytes_ = alt.Axis(labelExpr="format(datum.value, '~s') + 'B'", tickCount=5, **_APART)
    times = alt.Axis(format="~g", tickCount=5, **_APART)
    charts: dict[str, Chart] = {
        "size": _error_against("bytes", "size of the bundle, bytes", y, bytes_, kinds, _published()),
        "memory": _error_against("memory", "memory in use, bytes", y, bytes_, kinds),
        "speed": _error_against("rtf", "real-time factor", y, times, kinds),
        "loss": _curve("training loss, nats per label", alt.Scale(type="log", nice=False)),
        "wer": _curve("WER of the dev part, %", alt.Scale(zero=True)),
        "sqnr": _band("SQNR of the weights, dB"),
        "damage": _damage(),
        "weights": _shares("weight", "share of the weights, %"),
        "codes": _shares("code", "share of the weights, %", whole=True),
    }
    return {name: chart.to_dict() for name, chart in charts.items()}


def _error_against(field: str, title: str, y: alt.Y, axis: alt.Axis, kinds: int, *below: Chart) -> Chart:
    """WER with its interval against a cost, of systems whose cost is known, before the layers `below`.

    The Pareto front is a line, and some of its points have names. The systems of one run have a line of their own.
    """
    x = alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=24), axis=axis)
    base = alt.Chart(alt.NamedData(name="rows")).transform_filter(f"datum.{field} !== null")
    kind = alt.Color("kind:N", title=None, scale=alt.Scale(domain=_KINDS[:kinds]), legend=alt.Legend(orient="top"))
    front = base.transform_filter(f"datum.front_{field}")
    points = base.mark_point(filled=True, opacity=0.9).encode(
        x=x,
        y=y,
        color=kind,
        shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=_KINDS[:kinds], range=_SHAPES[:kinds])),
        size=alt.condition("datum.row === picked", alt.value(320), alt.value(90)),
        description=alt.Description("description:N"),
        tooltip=alt.Tooltip("description:N", title=" "),
    )
    return (
        alt.layer(
            *below,
            front.mark_line(style="front", interpolate="step-after").encode(x=x, y=y, detail="one_run:N"),
            base.mark_rule(aria=False).encode(x=x, y=alt.Y("low:Q", title="WER, %"), y2="high:Q", color=kind),
            points,
            base.transform_filter(f"datum.named_{field}")
            .mark_text(style="name", dy=-12, aria=False)
            .encode(x=x, y=y, text="weights:N"),
        )
        .add_params(alt.param(name="picked", value=-1))
        .properties(width="container", height=_HEIGHT)
    )


def _published() -> Chart:
    """Systems of others, which were not measured here."""
    points = alt.Chart(alt.NamedData(name="published")).mark_point(shape="cross", style="published")
    return points.encode(x="bytes:Q", y="wer:Q", tooltip=alt.Tooltip("system:N", title="published"))


def _curve(title: str, scale: alt.Scale) -> Chart:
    """One metric of the chosen run over training, before those of all others."""
    x = alt.X("step:Q", title="optimizer steps", axis=_STEPS)
    y = alt.Y("value:Q", title=title, scale=scale)
    others = alt.Chart(alt.NamedData(name="others")).mark_line(style="other", aria=False)
    own = alt.Chart(alt.NamedData(name="curve")).mark_line(style="curve", point=False)
    return _over_phases(others.encode(x=x, y=y, detail="run:N"), own.encode(x=x, y=y))


def _band(title: str) -> Chart:
    """Median of the layers, and between their 10th and 90th percentile."""
    x = alt.X("step:Q", title="optimizer steps", axis=_STEPS)
    base = alt.Chart(alt.NamedData(name="curve"))
    band = base.mark_area(style="band", aria=False).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q")
    return _over_phases(band, base.mark_line(style="curve", point=True).encode(x=x, y=alt.Y("median:Q", title=title)))


def _over_phases(*layers: alt.Chart) -> Chart:
    """Curves before the phases of the schedule, each shaded and named."""
    base = alt.Chart(alt.NamedData(name="phases"))
    x = alt.X("start:Q", title="optimizer steps", scale=alt.Scale(nice=False), axis=_STEPS)
    shades = base.mark_rect(style="phase", aria=False).encode(
        x=x, x2="end:Q", fillOpacity=alt.FillOpacity("shade:Q", scale=None)
    )
    names = base.mark_text(style="phase-name", align="left", baseline="bottom", dx=2).encode(
        x=x, y=alt.value(-4), text="name:N"
    )
    return alt.layer(shades, *layers, names).properties(width="container", height=_SMALL)


def _damage() -> Chart:
    """Layers against bits, coloured by damage; a circle on the bits that were assigned. The page gives the height."""
    base = alt.Chart(alt.NamedData(name="damage"))
    y = alt.Y("layer:N", title=None, sort=None, axis=alt.Axis(labelLimit=320))
    x = alt.X("bits:O", title="bits of the weights", axis=alt.Axis(labelAngle=0, orient="top"))
    color = alt.Color(
        "shown:Q",
        title="damage, nats per label",
        scale=alt.Scale(type="log", scheme="viridis", reverse=True),
        legend=alt.Legend(orient="top", gradientLength=240, format="~e", tickCount=4),
    )
    tooltip = [alt.Tooltip("layer:N"), alt.Tooltip("bits:O"), alt.Tooltip("damage:Q", format="+.5f")]
    squares = base.mark_rect().encode(x=x, y=y, color=color, tooltip=tooltip)
    circles = (
        base.transform_filter("datum.chosen")
        .mark_point(style="assigned", filled=True, opacity=1, aria=False)
        .encode(x=x, y=y)
    )
    return alt.layer(squares, circles).properties(width="container")


def _shares(x_title: str, y_title: str, whole: bool = False) -> Chart:
    """A histogram."""
    axis = alt.Axis(tickMinStep=1, format="d") if whole else alt.Axis(format="~g")
    return (
        alt.Chart(alt.NamedData(name="bins"))
        .mark_bar(style="bin")
        .encode(
            x=alt.X("from:Q", title=x_title, axis=axis, bin="binned", scale=alt.Scale(nice=False, zero=False)),
            x2="to:Q",
            y=alt.Y("share:Q", title=y_title),
            tooltip=[alt.Tooltip("at:Q", title=x_title, format="~g"), alt.Tooltip("share:Q", title="share, %")],
        )
        .properties(width="container", height=_SMALL)
    )
