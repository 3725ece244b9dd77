//! The chart: a bar for everybody, as a ratio to lastout.

use std::fmt::Write;

use crate::{
    lab::Role,
    report::{Report, Row},
};

const WIDTH: u32 = 760;
const BAR: u32 = 16;
const STEP: u32 = 22;
/// Where bars begin, and how long the longest is.
const LEFT: u32 = 130;
const LONGEST: f64 = 500.0;

/// A panel for each measure that is worth a picture.
pub fn draw(report: &Report) -> String {
    let panels: Vec<&Row> = super::measures::CHART.iter().filter_map(|title| report.row(title)).collect();
    let (mut body, mut y) = (String::new(), 24);
    for row in panels {
        let Some(own) = row.of("lastout").map(|own| own.median).filter(|own| *own > 0.0) else { continue };
        writeln!(body, r#"<text x="8" y="{y}" class="title">{}</text>"#, escape(&row.title)).unwrap();
        y += 10;
        let most = row.values.iter().map(|value| value.median / own).fold(1.0, f64::max);
        for value in &row.values {
            let ratio = value.median / own;
            let class = match value.role {
                Role::Lastout => "own",
                Role::Floor => "floor",
                Role::Peer | Role::Beside => "peer",
            };
            let (text, width) = (y + 13, (ratio / most * LONGEST).max(1.0));
            writeln!(body, r#"<text x="{}" y="{text}" class="name">{}</text>"#, LEFT - 8, escape(&value.name)).unwrap();
            writeln!(body, r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{BAR}" class="{class}"/>"#).unwrap();
            let x = f64::from(LEFT) + width + 6.0;
            writeln!(body, r#"<text x="{x:.1}" y="{text}" class="ratio">{ratio:.2}</text>"#).unwrap();
            y += STEP;
        }
        y += 24;
    }
    let style = "text{font:13px sans-serif;fill:#333}.title{font-weight:bold}.name{text-anchor:end}\
                 .own{fill:#1f77b4}.peer{fill:#bbb}.floor{fill:#e0c060}";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\">\n\
         <style>{style}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
