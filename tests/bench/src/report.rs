//! The results: a table to read and JSON to keep.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::stats::{Better, Samples};

/// A kind of value that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What is measured.
    pub name: &'static str,
    /// Of what it is so many.
    pub unit: &'static str,
    /// Which direction is good.
    pub better: Better,
}

impl Kind {
    /// Milliseconds.
    pub const fn ms(name: &'static str) -> Self {
        Self::less(name, "ms")
    }

    /// Something of which less is better.
    pub const fn less(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            better: Better::Less,
        }
    }

    /// Something of which more is better.
    pub const fn more(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            better: Better::More,
        }
    }
}

#[derive(Debug)]
struct Metric {
    kind: Kind,
    samples: Vec<Samples>,
}

#[derive(Debug)]
struct Section {
    title: String,
    metrics: Vec<Metric>,
    others_busy: Option<f64>,
}

/// All results, by section and kind, for each side; ratios are to the first side.
#[derive(Debug)]
pub struct Report {
    sides: Vec<String>,
    sections: Vec<Section>,
}

impl Report {
    /// An empty report about these sides.
    pub fn new(sides: Vec<String>) -> Self {
        Self {
            sides,
            sections: Vec::new(),
        }
    }

    /// The names of the sides.
    pub fn sides(&self) -> &[String] {
        &self.sides
    }

    /// What is added from now on belongs to this section.
    pub fn begin(&mut self, title: impl Into<String>) {
        self.sections.push(Section {
            title: title.into(),
            metrics: Vec::new(),
            others_busy: None,
        });
    }

    /// Adds a measured value of a side to the current section.
    pub fn add(&mut self, kind: Kind, side: usize, value: f64) {
        let sides = self.sides.len();
        let Some(section) = self.sections.last_mut() else {
            return;
        };
        let known = section
            .metrics
            .iter()
            .position(|m| m.kind.name == kind.name);
        let at = known.unwrap_or_else(|| {
            section.metrics.push(Metric {
                kind,
                samples: vec![Samples::default(); sides],
            });
            section.metrics.len() - 1
        });
        section.metrics[at].samples[side].add(value);
    }

    /// Notes how many processors programs that do not belong to the measurement kept busy.
    pub fn others_were_busy(&mut self, processors: f64) {
        if let Some(section) = self.sections.last_mut() {
            section.others_busy = Some(processors);
        }
    }

    /// The current section as a table.
    pub fn table(&self) -> String {
        let Some(section) = self.sections.last() else {
            return String::new();
        };
        let mut rows = vec![self.header()];
        rows.extend(section.metrics.iter().map(|metric| self.row(metric)));
        let mut text = format!("\n{}", section.title);
        if let Some(busy) = section.others_busy {
            // Writing to a string does not fail.
            let _infallible = write!(text, " (other programs kept {busy:.2} processors busy)");
        }
        text.push_str("\n\n");
        text.push_str(&aligned(&rows));
        text
    }

    fn header(&self) -> Vec<String> {
        let mut cells = vec![String::new(), "unit".into()];
        for (at, side) in self.sides.iter().enumerate() {
            cells.push(side.clone());
            if at > 0 {
                cells.push("better".into());
            }
        }
        cells
    }

    fn row(&self, metric: &Metric) -> Vec<String> {
        let mut cells = vec![metric.kind.name.to_owned(), metric.kind.unit.to_owned()];
        for (at, samples) in metric.samples.iter().enumerate() {
            cells.push(match (samples.median(), samples.p99()) {
                (Some(median), Some(p99)) if samples.len() > 1 => {
                    format!("{} / {}", short(median), short(p99))
                }
                (Some(only), _) => short(only),
                _ => "–".into(),
            });
            if at > 0 {
                let ratio = ratio(metric, at);
                cells.push(ratio.map_or_else(|| "–".into(), |r| format!("{} ×", short(r))));
            }
        }
        cells
    }

    /// All results.
    pub fn json(&self) -> Value {
        let sections = self.sections.iter().map(|section| {
            let metrics = section
                .metrics
                .iter()
                .map(|metric| self.metric_json(metric));
            json!({
                "title": section.title,
                "processors_busy_with_others": section.others_busy,
                "metrics": metrics.collect::<Vec<_>>(),
            })
        });
        Value::Array(sections.collect())
    }

    fn metric_json(&self, metric: &Metric) -> Value {
        let sides = self.sides.iter().zip(&metric.samples).enumerate();
        let sides = sides.map(|(at, (name, samples))| {
            let entry = json!({
                "n": samples.len(),
                "median": samples.median(),
                "p99": samples.p99(),
                "times_better": if at > 0 { ratio(metric, at) } else { None },
                "values": samples.values(),
            });
            (name.clone(), entry)
        });
        json!({
            "name": metric.kind.name,
            "unit": metric.kind.unit,
            "less_is_better": metric.kind.better == Better::Less,
            "sides": Value::Object(sides.collect()),
        })
    }
}

/// How many times better a side's median is than the first side's.
fn ratio(metric: &Metric, side: usize) -> Option<f64> {
    let baseline = metric.samples.first()?.median()?;
    metric
        .kind
        .better
        .ratio(baseline, metric.samples[side].median()?)
}

/// Three significant digits, but whole numbers from 100 on.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Rows as a Markdown table whose columns are also aligned for the eye; the first row is the header.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str("| ");
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 1 - cell.chars().count()));
        }
        text.push_str("|\n");
        if at == 0 {
            for width in &widths {
                text.push('|');
                text.extend(std::iter::repeat_n('-', width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}
