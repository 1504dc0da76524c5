// Draws the charts of a page that kms_fast/charts.py made: the JSON in #charts, one entry for each .plot, in order.
"use strict";
(() => {
  const HEIGHT = 260;
  const SERIES_COLOURS = 8;
  const descriptions = JSON.parse(document.getElementById("charts").textContent);
  const places = [...document.querySelectorAll(".plot")];
  let plots = [];

  // Four digits that count, but never less than the whole number.
  const format = (value) => {
    if (value == null) return "–";
    const decimals = value === 0 ? 0 : Math.min(9, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value)))));
    return value.toLocaleString("en-US", { maximumFractionDigits: decimals });
  };
  const withUnit = (text, unit) => (unit && text !== "–" ? `${text} ${unit}` : text);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // The whole of the data and no more: a range of one value would have no width.
  const fitX = (log) => (plot, low, high) => {
    if (low == null) return [1, 10];
    if (low < high) return [low, high];
    return log ? [low / 2, high * 2] : [low - 1, high + 1];
  };
  const fitY = (log) => (plot, low, high) => {
    if (low == null) return [1, 10];
    if (log) return [low / 1.15, high * 1.15];
    return [Math.min(0, low), high > 0 ? high * 1.05 : 1];
  };

  // Marks of a logarithmic axis: 1 to 9 times each power of ten. With many powers only some get a label.
  const markLog = (plot, axis, low, high) => {
    const marks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (let digit = 1; digit < 10; digit++) marks.push(digit * 10 ** power);
    }
    const within = marks.filter((mark) => low <= mark && mark <= high);
    return within.length > 1 ? within : [low, Math.sqrt(low * high), high];
  };
  const labelLog = (plot, marks) => {
    const labelled = marks.length > 30 ? "1" : marks.length > 12 ? "125" : marks.length > 7 ? "12357" : "123456789";
    return marks.map((mark) => (labelled.includes(mark.toExponential(3)[0]) ? mark : null));
  };

  const describeAxis = (axis, isY) => ({
    label: axis.title,
    labelFont: "12px system-ui, sans-serif",
    font: "12px system-ui, sans-serif",
    labelSize: 20,
    stroke: colour("muted"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { stroke: colour("line"), width: 1, size: 5 },
    values: (plot, splits) => splits.map((value) => (value == null ? "" : format(value))),
    ...(axis.log && { splits: markLog, filter: labelLog }),
    size: 30,
    ...(isY && { size: (plot, values) => 16 + 7 * Math.max(3, ...(values ?? []).map((text) => text.length)) }),
  });

  const describeSeries = (series, number, description) => {
    const stroke = colour(series.tone || `series-${(number % SERIES_COLOURS) + 1}`);
    return {
      label: series.name,
      stroke,
      width: 1.75,
      value: (plot, value) => withUnit(format(value), description.axes[1].unit),
      ...(series.dashed && { dash: [6, 4] }),
      ...(description.histogram && { fill: `${stroke}40`, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }),
    };
  };

  // In a histogram the value at an edge belongs to the range that begins there; the last edge repeats the last value.
  const draw = (description, place) => {
    const { histogram, points, axes, series } = description;
    const last = points.length - 1;
    const nameX = (index) => {
      if (index == null) return "–";
      if (!histogram) return withUnit(format(points[index]), axes[0].unit);
      const begin = Math.min(index, last - 1);
      return withUnit(`${format(points[begin])} – ${format(points[begin + 1])}`, axes[0].unit);
    };
    const options = {
      width: place.clientWidth,
      height: HEIGHT,
      scales: {
        x: { time: false, distr: axes[0].log ? 3 : 1, range: fitX(axes[0].log) },
        y: { distr: axes[1].log ? 3 : 1, range: fitY(axes[1].log) },
      },
      axes: axes.map((axis, number) => describeAxis(axis, number === 1)),
      series: [
        { label: axes[0].title, value: (plot, value, number, index) => nameX(index) },
        ...series.map((one, number) => describeSeries(one, number, description)),
      ],
      cursor: {
        y: false,
        dataIdx: (plot, number, nearest, value) =>
          histogram && nearest > 0 && points[nearest] > value ? nearest - 1 : nearest,
      },
    };
    const drawable = axes[1].log ? (value) => (value > 0 ? value : null) : (value) => value;
    const values = series.map((one) => (histogram ? [...one.values, one.values[last - 1]] : one.values).map(drawable));
    return new uPlot(options, [points, ...values], place);
  };

  const drawAll = () => {
    plots.forEach((plot) => plot.destroy());
    plots = descriptions.map((description, number) => draw(description, places[number]));
  };

  // Colours stand in the canvas, so another scheme, or paper, means to draw again.
  const redrawFor = (medium) => {
    document.documentElement.classList.toggle("paper", medium === "paper");
    drawAll();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => redrawFor("paper"));
  addEventListener("afterprint", () => redrawFor("screen"));
  drawAll();
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const plot = plots[places.indexOf(target)];
      if (plot.width !== target.clientWidth) plot.setSize({ width: target.clientWidth, height: HEIGHT });
    }
  });
  places.forEach((place) => observer.observe(place));
})();
