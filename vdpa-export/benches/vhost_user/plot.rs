//! The picture: a bar a row, how many times as fast as a peer ours is; the bracket is from the worst round to the best one.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

/// In pixels: the picture, the part of it that names rows, a row, what is around the rows of a panel, the top line.
const WIDTH: u32 = 1000;
const NAMES: i32 = 300;
const ROW: u32 = 22;
const AROUND: u32 = 84;
const TOP: u32 = 40;
/// What is written behind a bar takes so many at most.
const VALUE: i32 = 44;

const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
const MISSED: RGBColor = RGBColor(0xc2, 0x70, 0x2c);
const GOAL: RGBColor = RGBColor(0x1d, 0x7a, 0x3c);
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

type Failed = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A bar.
struct Bar {
    name: String,
    median: f64,
    min: f64,
    max: f64,
    goal: Option<f64>,
    /// It is a peer's own figure.
    is_theirs: bool,
    /// Nobody knows whether what was counted was right.
    is_doubtful: bool,
}

/// Bars of the same question.
struct Panel {
    title: &'static str,
    /// What is along its axis.
    axis: &'static str,
    bars: Vec<Bar>,
    /// Whether more is better, and 1 is as good.
    is_ratio: bool,
}

/// Table, key of the ratio, key of the goal, title, axis.
const RATIOS: [[&str; 5]; 4] = [
    [
        "net",
        "ratio",
        "goal",
        "Network device under DPDK's virtio-user, beside DPDK's net_vhost",
        "packets a second, times DPDK's device",
    ],
    [
        "net",
        "ratio_rustvmm",
        "goal_rustvmm",
        "Network device under DPDK's virtio-user, beside rust-vmm's vhost-user-backend",
        "packets a second, times rust-vmm's device",
    ],
    [
        "mirror",
        "ratio",
        "goal",
        "Network driver on DPDK's net_vhost, beside DPDK's virtio-user",
        "packets a second, times DPDK's driver",
    ],
    [
        "block",
        "ratio",
        "goal",
        "Null disk under virtio-driver, beside qemu-storage-daemon",
        "requests a CPU second of the device, times qemu-storage-daemon's",
    ],
];

/// Draws the rows of a file of `--json`'s. Of the same row twice the later one counts.
pub(crate) fn draw_file(from: &Path, to: &Path) -> Result<(), String> {
    let text =
        fs::read_to_string(from).map_err(|e| format!("--plot-from {}: {e}", from.display()))?;
    let mut rows = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let row: Value = serde_json::from_str(line)
            .map_err(|e| format!("--plot-from {}: line {number}: {e}", from.display()))?;
        rows.push(row);
    }
    draw(&rows, to)
}

/// Whether the picture can be written.
pub(crate) fn try_file(to: &Path) -> Result<(), String> {
    let opened = fs::File::options().create(true).append(true).open(to);
    opened
        .map(drop)
        .map_err(|e| format!("--plot {}: {e}", to.display()))
}

/// Draws rows.
pub(crate) fn draw(rows: &[Value], to: &Path) -> Result<(), String> {
    let panels = panels(rows);
    if panels.is_empty() {
        return Err("there is no row to be drawn".to_owned());
    }
    draw_panels(&panels, &conditions(rows), to).map_err(|e| format!("--plot {}: {e}", to.display()))
}

/// How the rows were measured, if all were alike.
fn conditions(rows: &[Value]) -> String {
    let of = |row: &Value| {
        let pages = match row.get("huge_pages")?.as_bool()? {
            true => "huge pages",
            false => "small pages",
        };
        let (rounds, seconds) = (row.get("rounds")?.as_u64()?, row.get("seconds")?.as_f64()?);
        Some(format!(
            "{rounds} interleaved rounds of {seconds} s, {pages}"
        ))
    };
    let mut all: Vec<String> = rows.iter().filter_map(of).collect();
    all.dedup();
    all.join("; ")
}

fn panels(rows: &[Value]) -> Vec<Panel> {
    let ratios = RATIOS.map(|[table, ratio, goal, title, axis]| Panel {
        title,
        axis,
        bars: bars(rows, table, |row| bar(row, ratio, goal)),
        is_ratio: true,
    });
    let latency = Panel {
        title: "One frame from our driver to a device and back",
        axis: "ns, median (bracket: to the 99th percentile)",
        bars: bars(rows, "latency", trip),
        is_ratio: false,
    };
    let all = ratios.into_iter().chain([latency]);
    all.filter(|panel| !panel.bars.is_empty()).collect()
}

fn bars(rows: &[Value], table: &str, bar: impl Fn(&Value) -> Option<Bar>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for new in rows
        .iter()
        .filter(|row| row.get("table").and_then(Value::as_str) == Some(table))
        .filter_map(bar)
    {
        match bars.iter_mut().find(|old| old.name == new.name) {
            Some(old) => *old = new,
            None => bars.push(new),
        }
    }
    bars
}

fn bar(row: &Value, ratio: &str, goal: &str) -> Option<Bar> {
    let ratio = row.get(ratio)?;
    let of = |name: &str| ratio.get(name).and_then(Value::as_f64);
    Some(Bar {
        name: name(row)?,
        median: of("median")?,
        min: of("min")?,
        max: of("max")?,
        goal: row.get(goal).and_then(Value::as_f64),
        is_theirs: false,
        is_doubtful: !row.get("verified")?.as_bool()?,
    })
}

fn name(row: &Value) -> Option<String> {
    let (mode, size) = (row.get("mode")?.as_str()?, row.get("size")?.as_u64()?);
    let direction = row.get("direction")?.as_str()?;
    Some(match row.get("depth").and_then(Value::as_u64) {
        Some(depth) => format!("{mode}, {direction} {size} B, depth {depth}"),
        None => format!("{mode}, {size} B, {direction}"),
    })
}

fn trip(row: &Value) -> Option<Bar> {
    let median = |key: &str| row.get(key)?.get("median")?.as_f64();
    let p50 = median("p50_ns")?;
    let name = row.get("mode")?.as_str()?;
    Some(Bar {
        name: name.to_owned(),
        median: p50,
        min: p50,
        max: median("p99_ns")?,
        goal: None,
        is_theirs: !name.starts_with("ours"),
        is_doubtful: !row.get("verified")?.as_bool()?,
    })
}

fn draw_panels(panels: &[Panel], conditions: &str, to: &Path) -> Result<(), Failed> {
    let height = |panel: &Panel| AROUND + ROW * u32::try_from(panel.bars.len()).unwrap_or(u32::MAX);
    let whole = TOP + panels.iter().map(height).sum::<u32>();
    let root = SVGBackend::new(to, (WIDTH, whole)).into_drawing_area();
    root.fill(&WHITE)?;
    let head = format!("vhost-user: ours beside others; {conditions}");
    root.draw_text(&head, &text(15, HPos::Left, &BLACK), (12, 22))?;
    let (_, mut rest) = root.split_vertically(TOP);
    for panel in panels {
        let (area, below) = rest.split_vertically(height(panel));
        draw_panel(&area, panel)?;
        rest = below;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Result<(), Failed> {
    area.draw_text(panel.title, &text(16, HPos::Left, &BLACK), (12, 16))?;
    let most = panel
        .bars
        .iter()
        .flat_map(|bar| [bar.max, bar.goal.unwrap_or(1.0)]);
    // What is written behind the longest bar needs room.
    let end = most.fold(1.0, f64::max) * if panel.is_ratio { 1.12 } else { 1.3 };
    let rows = panel.bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_top(28)
        .margin_right(24)
        .margin_bottom(6)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        // The first row is on top.
        .build_cartesian_2d(0.0..end, rows..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(12)
        .x_label_formatter(&|value| format!("{}", (value * 100.0).round() / 100.0))
        .x_desc(panel.axis)
        .label_style((FONT, 12))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .draw()?;
    for (bar, at) in panel.bars.iter().zip(0..) {
        let middle = f64::from(at) + 0.5;
        let colour = match bar.goal {
            _ if bar.is_theirs => GREY,
            Some(goal) if bar.median < goal => MISSED,
            _ => OURS,
        };
        chart.draw_series([Rectangle::new(
            [(0.0, middle - 0.32), (bar.median, middle + 0.32)],
            colour.mix(0.75).filled(),
        )])?;
        chart.draw_series(bracket(bar, middle))?;
        if let Some(goal) = bar.goal {
            let line = vec![(goal, middle - 0.5), (goal, middle + 0.5)];
            chart.draw_series([PathElement::new(line, GOAL.stroke_width(2))])?;
        }
        // In pixels of the whole picture.
        let (x, y) = chart.backend_coord(&(bar.max.max(bar.median), middle));
        let (left, top) = area.get_base_pixel();
        let (x, y) = (x - left, y - top);
        let value = match panel.is_ratio {
            true => format!("{:.2}", bar.median),
            false => format!("{:.0}, p99 {:.0}", bar.median, bar.max),
        };
        // Not through the line of the goal.
        let line = bar
            .goal
            .map(|goal| chart.backend_coord(&(goal, middle)).0 - left);
        let x = match line.filter(|line| (x..x + VALUE).contains(line)) {
            Some(line) => line,
            None => x,
        };
        area.draw_text(&value, &text(12, HPos::Left, &BLACK), (x + 8, y))?;
        let name = match bar.is_doubtful {
            true => format!("NOT VERIFIED: {}", bar.name),
            false => bar.name.clone(),
        };
        area.draw_text(&name, &text(12, HPos::Right, &BLACK), (NAMES - 8, y))?;
    }
    if panel.is_ratio {
        let line = vec![(1.0, 0.0), (1.0, rows)];
        chart.draw_series([PathElement::new(line, BLACK.stroke_width(1))])?;
        let legend = "black line: as fast; green: the goal; orange: below the goal";
        let right = i32::try_from(WIDTH).unwrap_or(i32::MAX) - 24;
        area.draw_text(legend, &text(12, HPos::Right, &GREY), (right, 16))?;
    }
    Ok(())
}

/// From the smallest to the largest.
fn bracket(bar: &Bar, middle: f64) -> Vec<PathElement<(f64, f64)>> {
    let path = |from, to| PathElement::new(vec![from, to], BLACK.stroke_width(1));
    let end = |at| path((at, middle - 0.18), (at, middle + 0.18));
    vec![
        path((bar.min, middle), (bar.max, middle)),
        end(bar.min),
        end(bar.max),
    ]
}

fn text<'a>(size: u32, at: HPos, colour: &'a RGBColor) -> TextStyle<'a> {
    TextStyle::from((FONT, size).into_font())
        .color(colour)
        .pos(Pos::new(at, VPos::Center))
}
